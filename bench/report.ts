/** Results for people: tables for the terminal, and the same in Markdown for docs/performance.md. */

import Table from 'cli-table3';
import { checkLimit } from './checks.ts';
import {
  type Figure,
  figureOf,
  inOrder,
  type Metric,
  type Sample,
  spread,
  subjectsOf,
  worksOf,
} from './figures.ts';
import { isQuiet, percent, type Result } from './result.ts';
import { ratioOf, TARGETS } from './targets.ts';

const MIB = 1 << 20;

interface View {
  title: string;
  metric: Metric;
  text(value: number): string;
  suits(work: string): boolean;
}

const isResync = (work: string): boolean => /^(resync|carry)-/.test(work);
const isSmall = (work: string): boolean => /-(4k|16k)/.test(work);
const micros = (value: number): string => Math.round(value).toLocaleString('en');
const mib = (value: number): string => (value / MIB).toFixed(value < 100 * MIB ? 1 : 0);

const VIEWS: readonly View[] = [
  { title: 'IOPS', metric: 'iops', text: micros, suits: isSmall },
  {
    title: 'MiB/s',
    metric: 'bytes_per_s',
    text: mib,
    suits: (work) => !isSmall(work) || /^carry-/.test(work),
  },
  {
    title: 'Latency, microseconds, 50th percentile',
    metric: 'latency_us_p50',
    text: micros,
    suits: () => true,
  },
  {
    title: 'Latency, microseconds, 99th percentile',
    metric: 'latency_us_p99',
    text: micros,
    suits: () => true,
  },
  {
    title: 'Processor seconds for each GiB moved',
    metric: 'cpu_s_per_gib',
    text: (value) => value.toFixed(2),
    suits: () => true,
  },
  {
    title: 'Bytes on the wire for each byte moved',
    metric: 'wire_bytes_per_byte',
    text: (value) => value.toFixed(3),
    suits: (work) => !/^(read|carry)-/.test(work),
  },
  {
    title: 'Microseconds of the threads that serve, for each request',
    metric: 'thread_us_per_io',
    text: (value) => value.toFixed(1),
    suits: () => true,
  },
  {
    title: 'Context switches for each request',
    metric: 'switches_per_io',
    text: (value) => value.toFixed(2),
    suits: () => true,
  },
  {
    title: "Wake-ups of the primary's volume thread for each request",
    metric: 'wakeups_per_io',
    text: (value) => value.toFixed(2),
    suits: () => true,
  },
  {
    title: 'Requests that the thread took at once',
    metric: 'requests_per_batch',
    text: (value) => value.toFixed(1),
    suits: () => true,
  },
  {
    title: 'Sends to the peer for each request',
    metric: 'sends_per_io',
    text: (value) => value.toFixed(2),
    suits: (work) => !/^read-/.test(work),
  },
  {
    title: 'Milliseconds from connecting to being in step',
    metric: 'resync_ms',
    text: micros,
    suits: isResync,
  },
];

export interface Grid {
  title: string;
  /** The first of each row is the work. */
  head: string[];
  rows: string[][];
}

/** One grid for each thing measured: works down, subjects across; the median, and how far the rounds lie apart. */
export function grids(result: Result): Grid[] {
  const { samples } = result;
  return VIEWS.flatMap(({ title, metric, text, suits }) => {
    const cell = (figure: Figure | null): string => {
      if (figure === null) return '';
      const apart = figure.rounds > 1 ? ` ±${Math.round(spread(figure) * 100)}%` : '';
      return `${text(figure.median)}${apart}`;
    };
    const having = (sample: Sample): boolean =>
      sample.values[metric] !== undefined && suits(sample.work);
    const measured = samples.filter(having);
    // A column is kept only where there is something in it.
    const subjects = inOrder(subjectsOf(measured), result.titles.subjects);
    if (subjects.length === 0) return [];
    const rows = inOrder(worksOf(measured), result.titles.works).map((work) => [
      result.titles.works[work] ?? work,
      ...subjects.map((subject) => cell(figureOf(samples, subject, work, metric))),
    ]);
    return [{ title, head: ['', ...subjects], rows }];
  });
}

/** The targets of the run's place, with what was reached. */
export function targetGrid(result: Result): Grid {
  const rows = TARGETS.filter(({ where }) => where === result.where).map((target) => {
    const ratio = ratioOf(result.samples, target);
    const reached = ratio === null ? 'not measured' : ratio.toFixed(2);
    const met = ratio !== null && ratio >= target.at_least ? 'yes' : 'no';
    return [target.title, String(target.at_least), reached, met];
  });
  const limits = result.limits.map(checkLimit).map(({ what, wanted, found, passed }) => {
    return [what, wanted, found, passed ? 'yes' : 'no'];
  });
  return {
    title: 'Targets',
    head: ['target', 'at least', 'measured', 'reached'],
    rows: [...rows, ...limits],
  };
}

/** What is in the columns, what is missing, and whether the machine was quiet. */
export function remarks(result: Result): string[] {
  const measured = inOrder(subjectsOf(result.samples), result.titles.subjects);
  const names = measured.map((id) => `${id}: ${result.titles.subjects[id] ?? id}`);
  const missing = result.missing.map(({ subject, work, reason }) => {
    const what = work === null ? subject : `${subject}, ${work}`;
    return `not measured: ${what}: ${reason.split('\n', 1)[0]}`;
  });
  const before = `${percent(result.busy_before)} busy before the run`;
  const { waited } = result;
  const busy =
    waited === null
      ? before
      : `${before}, and the virtual machine waited for processors for ${percent(waited)} of it`;
  const quiet = isQuiet(result) ? busy : `${busy}: figures are NOT to be quoted`;
  const run = `${result.rounds} rounds of ${result.seconds_each} s; Linux ${result.kernel}, ${result.cpus} processors, Node ${result.node}; ${quiet}`;
  return [run, ...names, ...missing];
}

export function terminalText(result: Result): string {
  const tables = grids(result).map(({ title, head, rows }) => {
    const table = new Table({ head: [title, ...head.slice(1)], style: { head: [], border: [] } });
    table.push(...rows);
    return table.toString();
  });
  return [...tables, ...remarks(result)].join('\n');
}

export function markdownTable({ head, rows }: Grid): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
