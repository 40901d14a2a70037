/** fio: runs one work on one device, and reads its report. */

import { run } from '../test/vm/command.ts';
import type { Values } from './figures.ts';
import { batching, costs, read } from './meters.ts';
import { earlier, type Window } from './profile.ts';
import type { Subject } from './subject.ts';

/** Beyond the run's own time. */
const LIMIT_MS = 120_000;

interface Direction {
  io_bytes: number;
  total_ios: number;
  iops: number;
  bw_bytes: number;
  lat_ns: { mean: number; percentile?: Record<string, number> };
}

interface Report {
  jobs: Array<{ error: number; read: Direction; write: Direction }>;
}

/** What fio is told for every work on this subject. */
export function commonArguments(subject: Subject): string[] {
  return [
    '--name=bench',
    ...subject.fio(),
    `--size=${subject.bytes}`,
    '--randseed=1',
    '--output-format=json',
    '--group_reporting',
    '--clat_percentiles=0',
    '--lat_percentiles=1',
    '--percentile_list=50:99:99.9',
  ];
}

/**
 * Throughput of reads and writes together; the latency is that of the writes, or of the reads where there are no writes.
 * @throws Error when fio reported an error, or did nothing.
 */
export function valuesOf(output: string): { values: Values; bytes: number; requests: number } {
  // fio may print notes before the JSON.
  const begin = output.search(/^\{/m);
  if (begin < 0) throw new Error(`fio printed no report: ${output.slice(-500)}`);
  const job = (JSON.parse(output.slice(begin)) as Report).jobs[0];
  if (job === undefined || job.error !== 0) throw new Error(`fio: error ${job?.error ?? 'no job'}`);
  const side = job.write.total_ios > 0 ? job.write : job.read;
  const bytes = job.read.io_bytes + job.write.io_bytes;
  if (bytes === 0) throw new Error('fio moved no bytes');
  const percentile = (key: string): number | undefined => {
    const ns = side.lat_ns.percentile?.[key];
    return ns === undefined ? undefined : ns / 1000;
  };
  const values: Values = {
    iops: job.read.iops + job.write.iops,
    bytes_per_s: job.read.bw_bytes + job.write.bw_bytes,
    latency_us_mean: side.lat_ns.mean / 1000,
  };
  const [p50, p99, p999] = ['50.000000', '99.000000', '99.900000'].map(percentile);
  if (p50 !== undefined) values.latency_us_p50 = p50;
  if (p99 !== undefined) values.latency_us_p99 = p99;
  if (p999 !== undefined) values.latency_us_p999 = p999;
  return { values, bytes, requests: job.read.total_ios + job.write.total_ios };
}

/** Of its run, while all of fio is at work. */
const STEADY = { from: 0.1, to: 0.8 };

/** Runs fio for so long, and meters what it cost. */
export async function measureFio(
  subject: Subject,
  work: readonly string[],
  seconds: number,
): Promise<{ values: Values; window: Window }> {
  const argv: [string, ...string[]] = [
    'fio',
    ...commonArguments(subject),
    '--time_based',
    `--runtime=${seconds}`,
    ...work,
  ];
  const pids = subject.pids();
  const workedBefore = await subject.worked?.();
  const threadBefore = subject.threadNs?.();
  const before = read(pids);
  const { stdout } = await run(argv, { timeoutMs: seconds * 1000 + LIMIT_MS });
  const end = process.hrtime.bigint();
  const after = read(pids);
  const threadAfter = subject.threadNs?.();
  const workedAfter = await subject.worked?.();
  const { values, bytes, requests } = valuesOf(stdout);
  const told = pids === null || subject.threadsLast;
  const batches = workedBefore && workedAfter ? batching(workedBefore, workedAfter, requests) : {};
  Object.assign(values, costs(before, after, bytes, told ? requests : 0), batches);
  if (threadBefore !== undefined && threadAfter !== undefined)
    values.thread_us_per_io = (threadAfter - threadBefore) / 1000 / requests;
  const at = (share: number) => earlier(end, seconds * 1000 * (1 - share));
  const window: Window = {
    begin_ns: at(STEADY.from),
    end_ns: at(STEADY.to),
    amount: requests * (STEADY.to - STEADY.from),
    unit: 'request',
  };
  return { values, window };
}

/** Writes to the device once, in one pass: all of it, or as `work` says. */
export async function pass(
  subject: Subject,
  work: readonly string[],
  limitMs = LIMIT_MS,
): Promise<void> {
  const argv: [string, ...string[]] = ['fio', ...commonArguments(subject), ...work];
  valuesOf((await run(argv, { timeoutMs: limitMs })).stdout);
}

/** Every subject's disk has been written once before anything is measured, unless it is too large for that. */
export const FILL = ['--rw=write', '--bs=1m', '--iodepth=4'];
