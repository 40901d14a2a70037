/** The figures in docs/performance.md and README.md, which nobody writes by hand: between markers, one pair for each place. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Chart, chartsOf } from './charts.ts';
import { isBeside, subjectsOf } from './figures.ts';
import { grids, markdownTable, remarks, targetGrid } from './report.ts';
import { type Result, tooBusy } from './result.ts';

const PERFORMANCE = 'docs/performance.md';
const README = 'README.md';
/** Beside the documents that show them. */
const CHART_FOLDER = 'docs/performance';
const PLACES = { here: 'On a host, over NBD', vm: 'In the virtual machine, over ublk' };

function markers(name: string): [begin: string, end: string] {
  return [`<!-- bench ${name} -->`, `<!-- bench ${name} end -->`];
}

/** @throws Error when the markers are not there, once and in order. */
export function replaceBetween(text: string, name: string, content: string): string {
  const [begin, end] = markers(name);
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from || from !== text.lastIndexOf(begin) || to !== text.lastIndexOf(end)) {
    throw new Error(`expected one '${begin}' and after it one '${end}'`);
  }
  return `${text.slice(0, from + begin.length)}\n${content}${text.slice(to)}`;
}

/** Why these figures are not for a document; null: they are. */
export function unquotable(result: Result, only: readonly string[]): string | null {
  const busy = tooBusy(result.busy_before, result.waited);
  if (busy !== null) return busy;
  if (only.length > 0) return '--only leaves targets out';
  if (result.profiled) return '--profile took time from what was measured';
  if (subjectsOf(result.samples).some(isBeside))
    return '--beside measured another checkout as well';
  const [missing] = result.missing;
  if (missing !== undefined) {
    return `${missing.subject}${missing.work === null ? '' : `, ${missing.work}`}, was not measured: ${missing.reason}`;
  }
  return result.rounds < 3 ? `${result.rounds} rounds tell no spread; at least 3 are needed` : null;
}

function image({ title, name }: Chart, { where }: Result, folder: string): string {
  return `![${title}](${folder}/${where}-${name}.svg)`;
}

/** What docs/performance.md shows of a run. */
export function performanceText(result: Result, charts: readonly Chart[]): string {
  const target = targetGrid(result);
  const parts = [
    `### ${PLACES[result.where]}`,
    `Measured on ${result.began.slice(0, 10)}; medians, and half of what lies between the rounds.`,
    remarks(result)
      .map((remark) => `- ${remark}`)
      .join('\n'),
    markdownTable(target),
    ...charts.map((chart) => image(chart, result, 'performance')),
    ...grids(result).map((grid) =>
      markdownTable({ ...grid, head: [grid.title, ...grid.head.slice(1)] }),
    ),
  ];
  return `\n${parts.join('\n\n')}\n\n`;
}

function readmeText(result: Result, charts: readonly Chart[]): string {
  const machine = `${result.cpus} processors, shared by both nodes, fio and all others; ${result.began.slice(0, 10)}`;
  const images = charts.map((chart) => image(chart, result, CHART_FOLDER));
  const about = `Over NBD, on one machine of ${machine}. More, and over ublk: [${PERFORMANCE}](${PERFORMANCE}).`;
  return `\n${[about, ...images].join('\n\n')}\n\n`;
}

/** Writes one file for each chart; returns their paths. */
export function writeCharts(result: Result, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  return chartsOf(result).map(({ name, svg }) => {
    const path = join(folder, `${result.where}-${name}.svg`);
    writeFileSync(path, `${svg}\n`);
    return path;
  });
}

/** @throws Error when the figures are not to be quoted. */
export function writeDocs(checkout: string, result: Result, only: readonly string[]): void {
  const why = unquotable(result, only);
  if (why !== null) throw new Error(`--docs: ${why}`);
  const charts = chartsOf(result);
  writeCharts(result, join(checkout, CHART_FOLDER));
  const rewrite = (path: string, content: string) => {
    const file = join(checkout, path);
    writeFileSync(file, replaceBetween(readFileSync(file, 'utf8'), result.where, content));
  };
  rewrite(PERFORMANCE, performanceText(result, charts));
  if (result.where !== 'here') return;
  rewrite(README, readmeText(result, charts));
}
