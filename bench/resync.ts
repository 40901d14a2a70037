/** Resyncs: a pair is taken apart, its chunks are made dirty, and it is timed while it comes together. */

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Point, quantile, type Series, type Values } from './figures.ts';
import { commonArguments, FILL, pass } from './fio.ts';
import { costs, type Reading, read } from './meters.ts';
import { earlier, type Window } from './profile.ts';
import { Program } from './program.ts';
import type { ResyncSubject } from './subject.ts';

const MIB = 1 << 20;
const LIMIT_MS = 300_000;
const POLL_MS = 5;
const APPLICATION_BYTES = 4096;
/** The application writes alone so long before the resync begins, and after it. */
const APART_MS = 500;
const APPLICATION_MS_MAX = 120_000;
/** A chart has so many points at most. */
const POINTS_MAX = 200;

/** One chunk of 4 KiB in every 64 KiB is dirty. */
export const SCATTERED = ['--rw=write:60k', '--bs=4k', '--iodepth=32'];
export const EVERYTHING = FILL;

export interface Resynced {
  values: Values;
  series: Series;
  window: Window;
}

/** @param dirt fio's options for what is written while the pair is apart */
export async function measureResync(
  subject: ResyncSubject,
  dirt: readonly string[],
): Promise<Resynced> {
  await subject.disconnect();
  await pass(subject, dirt, LIMIT_MS);
  const { values, spent, dirty, copied, window } = await comeTogether(subject);
  Object.assign(values, costs(...spent, dirty));
  return { values, series: { copied_bytes: thin(fromStart(copied)), latency_us: [] }, window };
}

/** A resync of everything, while an application writes 4 KiB at random, one at a time; the latencies are its. */
export async function measureResyncUnderLoad(subject: ResyncSubject): Promise<Resynced> {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-bench-fio-'));
  await subject.disconnect();
  await pass(subject, EVERYTHING, LIMIT_MS);
  const writesBefore = await subject.writes();
  const fio = Program.start(
    [
      'fio',
      ...commonArguments(subject),
      ...['--rw=randwrite', `--bs=${APPLICATION_BYTES}`, '--iodepth=1', '--time_based'],
      `--runtime=${APPLICATION_MS_MAX / 1000}`,
      ...[`--write_lat_log=${join(folder, 'log')}`, '--log_unix_epoch=1'],
    ],
    { name: 'fio', log: join(folder, 'output') },
  );
  try {
    await fio.until(
      'it writes',
      async () => (await subject.writes()) > writesBefore,
      APPLICATION_MS_MAX,
    );
    await delay(APART_MS);
    const together = await comeTogether(subject);
    const { values, spent, dirty, copied, window } = together;
    const { connectedUnixMs, beginUnixMs, endUnixMs } = together;
    await delay(APART_MS);
    fio.signal('SIGINT');
    if (!(await fio.ended(APPLICATION_MS_MAX))) throw new Error('fio goes on after SIGINT');
    const latencies = await readLatencies(folder);
    const since = (fromUnixMs: number) =>
      latencies.filter(([at]) => at >= fromUnixMs && at <= endUnixMs);
    const during = since(beginUnixMs).map(([, latency]) => latency);
    if (during.length === 0) throw new Error('no application write ended during the resync');
    const moved = dirty + since(connectedUnixMs).length * APPLICATION_BYTES;
    Object.assign(values, costs(...spent, moved), latencyValues(during), {
      iops: (during.length * 1000) / Math.max(1, endUnixMs - beginUnixMs),
    });
    const origin = latencies[0]?.[0] ?? 0;
    return {
      values,
      series: {
        copied_bytes: thin(copied.map(([at, bytes]) => [at - origin, bytes])),
        latency_us: means(latencies.map(([at, latency]) => [at - origin, latency])),
      },
      window,
    };
  } finally {
    await fio.end();
    await rm(folder, { recursive: true, force: true });
  }
}

interface Together {
  values: Values;
  spent: [before: Reading, after: Reading];
  /** Bytes. */
  dirty: number;
  /** [Unix ms, bytes] */
  copied: Point[];
  connectedUnixMs: number;
  beginUnixMs: number;
  endUnixMs: number;
  window: Window;
}

/** Connects, and watches the copying from its first to its last byte. */
async function comeTogether(subject: ResyncSubject): Promise<Together> {
  const dirty = (await subject.progress()).dirty_bytes;
  if (dirty === 0) throw new Error(`${subject.id}: nothing is dirty before the resync`);
  const pids = subject.pids();
  const before = read(pids);
  const connected = now();
  await subject.connect();
  const copied: Point[] = [];
  let begin = connected;
  for (;;) {
    const { done, copying, dirty_bytes } = await subject.progress();
    const at = now();
    if (copied.length === 0) begin = copying || done ? at : begin;
    if (copying) copied.push([at, Math.max(0, dirty - dirty_bytes)]);
    if (done) {
      copied.push([at, dirty]);
      const end_ns = process.hrtime.bigint();
      const begin_ns = earlier(end_ns, at - begin);
      const after = read(pids);
      return {
        values: {
          bytes_per_s: (dirty * 1000) / Math.max(POLL_MS, at - begin),
          resync_ms: at - connected,
        },
        spent: [before, after],
        dirty,
        copied,
        connectedUnixMs: connected,
        beginUnixMs: begin,
        endUnixMs: at,
        window: { begin_ns, end_ns, amount: dirty / MIB, unit: 'MiB' },
      };
    }
    if (at - connected > LIMIT_MS) throw new Error(`${subject.id}: no resync in ${LIMIT_MS} ms`);
    await delay(POLL_MS);
  }
}

/** Unix time, finer than a millisecond. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

/** [Unix ms, microseconds] of every write in fio's log: `time, ns, direction, bytes, ...`. */
export function parseLatencies(text: string): Point[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [ms, ns] = line.split(',').map(Number);
      return [ms ?? 0, (ns ?? 0) / 1000];
    });
}

async function readLatencies(folder: string): Promise<Point[]> {
  const name = (await readdir(folder)).find((entry) => /^log_lat\./.test(entry));
  if (name === undefined) throw new Error('fio wrote no log of latencies');
  return parseLatencies(await readFile(join(folder, name), 'utf8'));
}

function latencyValues(us: readonly number[]): Values {
  return {
    latency_us_mean: us.reduce((sum, value) => sum + value, 0) / us.length,
    latency_us_p50: quantile(us, 0.5),
    latency_us_p99: quantile(us, 0.99),
    latency_us_p999: quantile(us, 0.999),
  };
}

function fromStart(points: readonly Point[]): Point[] {
  const origin = points[0]?.[0] ?? 0;
  return points.map(([at, value]) => [at - origin, value]);
}

/** Every so manyth point, and the last. */
export function thin(points: readonly Point[]): Point[] {
  const step = Math.ceil(points.length / POINTS_MAX);
  return points.filter((_, index) => index % step === 0 || index === points.length - 1);
}

/** The mean of each slice of time. */
export function means(points: readonly Point[]): Point[] {
  const last = points.at(-1)?.[0] ?? 0;
  const slice = Math.max(1, Math.ceil(last / POINTS_MAX));
  const sums = new Map<number, { sum: number; count: number }>();
  for (const [at, value] of points) {
    const index = Math.floor(at / slice);
    const entry = sums.get(index) ?? { sum: 0, count: 0 };
    sums.set(index, { sum: entry.sum + value, count: entry.count + 1 });
  }
  return [...sums]
    .sort(([a], [b]) => a - b)
    .map(([index, { sum, count }]) => [index * slice, sum / count]);
}
