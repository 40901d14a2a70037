/** One table of figures, on the terminal and in docs/performance.md: what bench:micro and bench:scale show. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { replaceBetween } from './docs.ts';
import { type Grid, markdownTable } from './report.ts';
import { tooBusy } from './result.ts';

const PERFORMANCE = fileURLToPath(new URL('../docs/performance.md', import.meta.url));

export function showSheet({ head, rows }: Grid): void {
  const style = { head: [], border: [], compact: true };
  const table = new Table({ head: [...head], style });
  table.push(...rows.map((row) => [...row]));
  console.log(table.toString());
}

/**
 * @param busy how busy the machine was before the run, 0..1
 * @throws Error when the figures are not to be quoted.
 */
export function writeSheet(name: 'micro' | 'scale', grid: Grid, busy: number): void {
  const why = tooBusy(busy);
  if (why !== null) throw new Error(`--docs: ${why}`);
  const day = new Date().toISOString().slice(0, 10);
  const content = `\nMeasured on ${day}.\n\n${markdownTable(grid)}\n\n`;
  writeFileSync(PERFORMANCE, replaceBetween(readFileSync(PERFORMANCE, 'utf8'), name, content));
}
