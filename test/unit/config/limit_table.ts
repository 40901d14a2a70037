// The tables of docs/CONFIG.md, made from lib/config/limits.ts.
import type { Limit } from '../../../lib/config/limits.ts';
import { formatRange, formatUnit } from '../../../lib/config/units.ts';

/** A Markdown table of the limits, by key. */
export function limitTable(limits: Record<string, Limit>): string {
  const rows = Object.entries(limits).map(([key, limit]) => {
    const value = formatUnit(limit.default, limit.unit);
    return `| \`${key}\` | ${value} | ${formatRange(limit)} | ${limit.meaning} |`;
  });
  return ['| key | default | range | meaning |', '| --- | --- | --- | --- |', ...rows].join('\n');
}
