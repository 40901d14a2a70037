/**
 * `npm run bench:micro [-- --filter REGEX --seconds S --json FILE --docs --check]`: the parts of the core alone, by google benchmark
 * (bench/native). What is shown is CPU time of the one thread that works, the median of three repetitions, since machines are shared.
 *
 * `--docs` writes the table into docs/performance.md. `--check` compares with the targets and ends with 'N passed, N failed'.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkLimit, type Limit, tellChecks } from './checks.ts';
import type { Grid } from './report.ts';
import { watchBusy } from './run.ts';
import { showSheet, writeSheet } from './sheet.ts';

const PROGRAM = fileURLToPath(new URL('../build/bench/tidemark-bench', import.meta.url));
const REPETITIONS = 3;
const LIMIT_MS = 30 * 60_000;
const NEXT_DIRTY_NS_MAX = 2000;
const BEYOND_PERCENT_MAX = 2;
/** Which benchmarks have a target. */
export const LIMITED = '^(next_dirty_few_marks|map_and_log)/';

/** One benchmark as google benchmark reports it; counters are further fields. */
interface Run {
  name: string;
  run_name: string;
  aggregate_name?: string;
  real_time: number;
  cpu_time: number;
  time_unit: string;
  bytes_per_second?: number;
  [counter: string]: unknown;
}

export interface Figure {
  name: string;
  ns: number;
  gib_per_s: number | null;
  counters: Record<string, number>;
}

const COUNTERS = ['bytes', 'map_bytes', 'log_bytes', 'beyond_percent'];

function run(filter: string, seconds: number): Run[] {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-micro-'));
  try {
    const file = join(folder, 'result.json');
    const { status, signal, error } = spawnSync(
      PROGRAM,
      [
        `--benchmark_filter=${filter}`,
        `--benchmark_min_time=${seconds}`,
        `--benchmark_repetitions=${REPETITIONS}`,
        '--benchmark_report_aggregates_only=true',
        `--benchmark_out=${file}`,
        '--benchmark_out_format=json',
      ],
      { stdio: ['ignore', 'ignore', 'inherit'], timeout: LIMIT_MS },
    );
    if (error) throw error;
    if (status !== 0) throw new Error(`tidemark-bench ended with ${signal ?? status}`);
    return (JSON.parse(readFileSync(file, 'utf8')) as { benchmarks: Run[] }).benchmarks;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function figure(one: Run): Figure {
  // With manual time the work around it is no part of what is measured.
  const ns = one.run_name.includes('manual_time') ? one.real_time : one.cpu_time;
  const counters = COUNTERS.flatMap((name) =>
    typeof one[name] === 'number' ? [[name, one[name]] as const] : [],
  );
  return {
    name: one.run_name.replace(/\/(iterations:\d+|manual_time|repeats:\d+)/g, ''),
    ns,
    gib_per_s: one.bytes_per_second === undefined ? null : one.bytes_per_second / 2 ** 30,
    counters: Object.fromEntries(counters),
  };
}

function gridOf(figures: Figure[]): Grid {
  return {
    title: 'Parts of the core alone',
    head: ['benchmark', 'ns', 'GiB/s', 'counters'],
    rows: figures.map(({ name, ns, gib_per_s, counters }) => [
      name,
      ns.toFixed(ns < 100 ? 1 : 0),
      gib_per_s === null ? '' : gib_per_s.toFixed(1),
      Object.entries(counters)
        .map(([key, value]) => `${key} ${Number(value.toFixed(2))}`)
        .join(', '),
    ]),
  };
}

/** What has a target. @param figures without one of them it counts as not measured */
export function microLimits(figures: readonly Figure[]): Limit[] {
  const of = (name: string) => figures.find((one) => one.name === name);
  const next = 'next_dirty_few_marks/TiB:1024';
  return [
    { what: `${next}, ns`, value: of(next)?.ns ?? null, at_most: NEXT_DIRTY_NS_MAX },
    ...[1024, 16_384, 1_048_576].map((gib) => {
      const name = `map_and_log/GiB:${gib}/extents:1237`;
      return {
        what: `${name}, RAM beyond 1 bit a chunk, %`,
        value: of(name)?.counters.beyond_percent ?? null,
        at_most: BEYOND_PERCENT_MAX,
      };
    }),
  ];
}

/** @param filter a regular expression: which benchmarks; `seconds` of each at least */
export function measureMicro(filter: string, seconds: number): Figure[] {
  return run(filter, seconds)
    .filter(({ aggregate_name }) => aggregate_name === 'median')
    .map(figure);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      filter: { type: 'string', default: '.' },
      seconds: { type: 'string', default: '0.1' },
      json: { type: 'string' },
      check: { type: 'boolean', default: false },
      docs: { type: 'boolean', default: false },
    },
  });
  const seconds = Number(values.seconds);
  if (!(seconds >= 0.001 && seconds <= 60)) {
    throw new Error(`--seconds: ${values.seconds} is not a number from 0.001 to 60`);
  }
  const busy = await watchBusy();
  const figures = measureMicro(values.filter, seconds);
  const grid = gridOf(figures);
  showSheet(grid);
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify(figures, null, 2)}\n`);
  }
  if (values.docs) {
    if (values.filter !== '.') throw new Error('--docs: --filter leaves figures out');
    writeSheet('micro', grid, busy);
  }
  if (values.check && !tellChecks(microLimits(figures).map(checkLimit))) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
