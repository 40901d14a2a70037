/** `--profile`: what the whole machine did while one work was done on one subject, by perf's samples, in microseconds for each unit of work. */

import {
  accessSync,
  constants,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../test/vm/command.ts';
import { endAll } from './ends.ts';
import { need } from './place.ts';
import { Program } from './program.ts';
import { reasonOf } from './reason.ts';

/** No divisor of what others do at even times. */
const SAMPLES_PER_S = 997;
const RECORD = ['-a', '-e', 'cpu-clock', '-F', String(SAMPLES_PER_S), '-k', 'CLOCK_MONOTONIC'];
const DATA = 'data';
const LIMIT_MS = 300_000;
/** Of the samples that were due: with fewer, what is missing may be of a kind. */
const TAKEN_SHARE_MIN = 0.5;
/** What is rarer than this share of the samples is not listed. */
const LISTED_SHARE_MIN = 0.001;

/** When the work was done, by CLOCK_MONOTONIC, and how much of it. */
export interface Window {
  begin_ns: bigint;
  end_ns: bigint;
  amount: number;
  unit: 'request' | 'MiB';
}

/** So long before a time in nanoseconds. */
export function earlier(ns: bigint, ms: number): bigint {
  return ns - BigInt(Math.round(ms * 1e6));
}

export interface PerfSample {
  /** Of the thread; spaces in it are kept. */
  comm: string;
  symbol: string;
  /** Where the symbol is: a file, or `[kernel.kallsyms]`, or a module in brackets. */
  object: string;
}

/** In order: the first that suits. What comes after the rest of user space is the kernel's, by the names of its functions. */
const GROUPS: ReadonlyArray<[name: string, suits: (sample: PerfSample) => boolean]> = [
  ['idle', ({ comm }) => comm.startsWith('swapper')],
  ['perf itself', ({ comm }) => comm === 'perf'],
  ['fio', ({ comm, object }) => comm === 'fio' && !isKernel(object)],
  ['checksums', ({ symbol }) => /crc32|::extend_/.test(symbol)],
  [
    'copies in user space',
    ({ symbol, object }) => !isKernel(object) && /mem(cpy|move)/.test(symbol),
  ],
  [
    'JavaScript and libuv',
    ({ comm, object }) => !isKernel(object) && /^node|Worker|libuv/.test(comm),
  ],
  ['the rest of user space', ({ object }) => !isKernel(object)],
  [
    'copies and new pages',
    named(/copy_(user|page|mc|to|from|folio)|rep_(movs|stos)|memcpy|clear_page|csum_partial/),
  ],
  ['ublk', ({ symbol, object }) => /ublk/.test(symbol) || /ublk/.test(object)],
  [
    'RAM disk and block layer',
    named(/brd_|^_*blk|_blk_|bio(_|s|$)|bdev|submit_bh|^disk_|^part_|sbitmap|^_*elv_|^_*dd_/),
  ],
  [
    'TCP, sockets and loopback',
    named(
      /tcp|^_*ip_|inet|skb|sock|net(if|_rx|dev|works?)|loopback|dev_(queue|hard)|qdisc|nf_|softirq|_send|_recv|unix_stream|datagram/,
    ),
  ],
  ['io_uring', named(/^_*io_|uring|io_wq|io_worker/)],
  [
    'page cache and memory',
    named(
      /shmem|page|folio|xas?_|xarray|filemap|slab|kmem|kmalloc|kfree|_fault|fault_|_pte|pte_|lru_|gup_|pin_user|alloc|free_|memcg/,
    ),
  ],
  [
    'wake-ups, switches, and what interrupts had to wait for',
    named(
      /sched|wake|switch|enqueue|dequeue|task|futex|epoll|eventfd|pick_next|update_(curr|load|rq)|timer|poll|_irq|irqentry|idle|cpu_/,
    ),
  ],
  [
    'system calls, files and their checks',
    named(
      /syscall|entry|sys_|vfs|file|inode|fdget|fput|security|apparmor|aa_|iov|aio_|get_user|_rw_|readv|writev/,
    ),
  ],
  ['the rest of the kernel', () => true],
];

function named(symbols: RegExp): (sample: PerfSample) => boolean {
  return ({ symbol }) => symbols.test(symbol);
}

function groupOf(sample: PerfSample): string {
  return GROUPS.find(([, suits]) => suits(sample))![0];
}

function isKernel(object: string): boolean {
  return /^\[(?!vdso|vsyscall|unknown|heap|stack|anon)/.test(object);
}

/** Lines of `perf script -F comm,tid,ip,sym,dso`, one sample each; others are left out. */
export function perfSamples(text: string): PerfSample[] {
  const samples: PerfSample[] = [];
  for (const line of text.split('\n')) {
    const parts = /^\s*(.+?)\s+\d+\s+[0-9a-f]+ (.+) \((.+)\)\s*$/.exec(line);
    if (parts === null) continue;
    samples.push({
      comm: parts[1]!,
      symbol: parts[2]!.replace(/\+0x[0-9a-f]+$/, ''),
      object: parts[3]!,
    });
  }
  return samples;
}

/** All processors' time within the window, shared out by the samples. @throws Error with less than half of what was due. */
export function profileText(
  samples: readonly PerfSample[],
  window: Window,
  processors: number,
): string {
  const seconds = Number(window.end_ns - window.begin_ns) / 1e9;
  const due = Math.round(seconds * processors * SAMPLES_PER_S);
  if (samples.length === 0 || samples.length < due * TAKEN_SHARE_MIN)
    throw new Error(`perf took ${samples.length} samples of ${due} while the work was done`);
  const usEach = (seconds * processors * 1e6) / window.amount / samples.length;
  const table = (title: string, keyOf: (sample: PerfSample) => string): string => {
    const counts = new Map<string, number>();
    for (const sample of samples) counts.set(keyOf(sample), (counts.get(keyOf(sample)) ?? 0) + 1);
    const rows = [...counts]
      .filter(([, count]) => count >= samples.length * LISTED_SHARE_MIN)
      .sort(([, a], [, b]) => b - a)
      .map(([key, count]) => {
        const share = ((100 * count) / samples.length).toFixed(1);
        return `${(count * usEach).toFixed(2).padStart(10)} us ${share.padStart(5)} %  ${key}`;
      });
    return [`${title}, for each ${window.unit}:`, ...rows, ''].join('\n');
  };
  return [
    `${samples.length} samples of ${due} in ${seconds.toFixed(2)} s of ${processors} processors; ${window.amount.toFixed(0)} times ${window.unit}`,
    '',
    table('What it was', groupOf),
    table('Whose it was', ({ comm }) => comm),
    table('Whose and what', (sample) => `${sample.comm}: ${groupOf(sample)}`),
    table('Where it was', ({ comm, symbol, object }) => `${comm}: ${symbol} (${object})`),
  ].join('\n');
}

/** Records with perf, and writes one text for each work on each subject and round. */
export class Profile {
  private readonly folder: string;
  private readonly note: (text: string) => void;

  private constructor(folder: string, note: (text: string) => void) {
    this.folder = folder;
    this.note = note;
  }

  /** @throws when perf is not installed or not allowed, or the folder cannot be written. */
  static async open(folder: string, note: (text: string) => void): Promise<Profile> {
    await Profile.check(folder);
    await run(['perf', 'record', '-q', ...RECORD, '-o', '/dev/null', '--', 'true']);
    return new Profile(folder, note);
  }

  /** @throws when perf is not installed, or the folder cannot be written. */
  static async check(folder: string): Promise<void> {
    await need('perf', 'linux-perf');
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
  }

  /**
   * What was measured is not lost with its profile: that is only noted.
   * @param measure does the work, and says when that was; without that nothing is written
   */
  async around<T extends { window?: Window }>(name: string, measure: () => Promise<T>): Promise<T> {
    // Not in the folder, which may lie on a slow file system.
    const scratch = mkdtempSync(join(tmpdir(), 'tidemark-perf-'));
    let perf: Program | null = null;
    try {
      perf = await record(scratch);
      const measured = await measure();
      try {
        await this.write(name, perf, scratch, measured.window);
      } catch (error) {
        this.note(`no profile of ${name}: ${reasonOf(error)}`);
      }
      return measured;
    } finally {
      await endAll([() => perf?.end(), () => rmSync(scratch, { recursive: true, force: true })]);
    }
  }

  private async write(
    name: string,
    perf: Program,
    scratch: string,
    window: Window | undefined,
  ): Promise<void> {
    perf.alive('the work was done');
    perf.signal('SIGINT');
    if (!(await perf.ended(LIMIT_MS))) throw new Error('perf goes on after SIGINT');
    if (window === undefined) return;
    const samples = await this.samples(join(scratch, DATA), window);
    writeFileSync(join(this.folder, `${name}.txt`), profileText(samples, window, cpus().length));
  }

  private async samples(data: string, { begin_ns, end_ns }: Window): Promise<PerfSample[]> {
    const time = [begin_ns, end_ns].map(seconds).join(',');
    const fields = ['-F', 'comm,tid,ip,sym,dso'];
    const argv = ['perf', 'script', '-i', data, '--time', time, ...fields] as const;
    return perfSamples((await run([...argv], { timeoutMs: LIMIT_MS })).stdout);
  }
}

async function record(scratch: string): Promise<Program> {
  const data = join(scratch, DATA);
  const perf = Program.start(['perf', 'record', '-q', ...RECORD, '-o', data], {
    name: 'perf',
    log: join(scratch, 'log'),
  });
  const isThere = () => (statSync(data, { throwIfNoEntry: false })?.size ?? 0) > 0;
  await perf.until('it records', isThere, LIMIT_MS);
  return perf;
}

/** As perf takes it. */
function seconds(ns: bigint): string {
  return `${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;
}
