/** What was measured, as numbers: samples of single runs, and over all rounds their median and spread. */

/** Units come last in each name. Not every sample has every metric. */
export const METRICS = [
  'iops',
  'bytes_per_s',
  'latency_us_mean',
  'latency_us_p50',
  'latency_us_p99',
  'latency_us_p999',
  'cpu_s_per_gib',
  'wire_bytes_per_byte',
  'thread_us_per_io',
  'switches_per_io',
  'wakeups_per_io',
  'requests_per_batch',
  'sends_per_io',
  'resync_ms',
] as const;
export type Metric = (typeof METRICS)[number];
export type Values = Partial<Record<Metric, number>>;

/** [ms since the beginning, value] */
export type Point = [number, number];

/** A resync over time, with the application's writes during it. */
export interface Series {
  copied_bytes: Point[];
  latency_us: Point[];
}

/** One run of one work on one subject. */
export interface Sample {
  subject: string;
  work: string;
  round: number;
  values: Values;
  series?: Series;
}

/** One metric of one work on one subject, over all rounds. */
export interface Figure {
  median: number;
  min: number;
  max: number;
  rounds: number;
}

/** The middle value, or the mean of the middle two. @throws RangeError without values. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Between the two nearest values in proportion; `share` 0..1. @throws RangeError without values. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new RangeError('a quantile of no values');
  if (!(share >= 0 && share <= 1)) throw new RangeError(`quantile: ${share} is not in 0..1`);
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const below = sorted[Math.floor(place)]!;
  const above = sorted[Math.ceil(place)]!;
  return below + (above - below) * (place - Math.floor(place));
}

/** Null where nothing was measured. */
export function figureOf(
  samples: readonly Sample[],
  subject: string,
  work: string,
  metric: Metric,
): Figure | null {
  const values = samples
    .filter((sample) => sample.subject === subject && sample.work === work)
    .map((sample) => sample.values[metric])
    .filter((value) => value !== undefined);
  if (values.length === 0) return null;
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    rounds: values.length,
  };
}

/** How far the rounds lie apart: half of max - min, as a share of the median. */
export function spread(figure: Figure): number {
  return figure.median === 0 ? 0 : (figure.max - figure.min) / 2 / figure.median;
}

/** Each once, in the order of their first appearance. */
export function worksOf(samples: readonly Sample[]): string[] {
  return [...new Set(samples.map(({ work }) => work))];
}

export function subjectsOf(samples: readonly Sample[]): string[] {
  return [...new Set(samples.map(({ subject }) => subject))];
}

/** What another checkout's build did. */
const BESIDE = '-beside';

export function besideId(subject: string): string {
  return `${subject}${BESIDE}`;
}

export function isBeside(subject: string): boolean {
  return subject.endsWith(BESIDE);
}

/** As the sections name them: which came first in the samples changes with the rounds. */
export function inOrder(ids: readonly string[], titles: Record<string, string>): string[] {
  const order = Object.keys(titles);
  return [...ids].sort((a, b) => order.indexOf(a) - order.indexOf(b));
}
