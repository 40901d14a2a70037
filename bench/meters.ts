/** What a run cost besides time: processor seconds, and bytes on the wire. Read from /proc. */

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Values } from './figures.ts';
import type { Worked } from './subject.ts';

const GIB = 2 ** 30;

let ticksPerSecond = 0;

function ticks(): number {
  if (ticksPerSecond === 0) {
    ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  }
  return ticksPerSecond;
}

/** Processor seconds of a process since its start, user and system, from /proc/PID/stat. */
export function processTicks(stat: string): number {
  // pid (command) state ...; the command may hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Ticks that the machine's processors were busy, and all ticks, from /proc/stat. */
export function machineTicks(stat: string): { busy: number; all: number } {
  const fields = (/^cpu +(.*)$/m.exec(stat)?.[1] ?? '').split(' ').map(Number);
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] =
    fields;
  const busy = user + nice + system + irq + softirq + steal;
  return { busy, all: busy + idle + iowait };
}

/** Bytes that the loopback interface received, from /proc/net/dev: every replicated byte once. */
export function loopbackBytes(dev: string): number {
  const received = /^\s*lo:\s*(\d+)/m.exec(dev)?.[1];
  if (received === undefined) throw new Error('/proc/net/dev has no loopback interface');
  return Number(received);
}

export interface Reading {
  cpu_s: number;
  wire_bytes: number;
  /** Of their threads from sleep to work, or, of the machine, all from one thread to another. */
  switches: number;
}

/** All context switches of the machine, from /proc/stat. */
export function machineSwitches(stat: string): number {
  const count = /^ctxt (\d+)$/m.exec(stat)?.[1];
  if (count === undefined) throw new Error('/proc/stat has no ctxt');
  return Number(count);
}

/** How often a thread went to sleep, from its status. */
export function threadSleeps(status: string): number {
  return Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)?.[1] ?? 0);
}

/** What a file of each thread of a process says, or of those that have such a name; of none, once the process has ended. */
function ofThreads(pid: number, file: string, named?: RegExp): string[] {
  const folder = `/proc/${pid}/task`;
  const isWanted = (thread: string) =>
    named === undefined || named.test(readFileSync(`${folder}/${thread}/comm`, 'utf8').trim());
  const texts: string[] = [];
  for (const thread of existsSync(folder) ? readdirSync(folder) : []) {
    try {
      if (isWanted(thread)) texts.push(readFileSync(`${folder}/${thread}/${file}`, 'utf8'));
    } catch {
      // It ended just now, as io_uring's workers do when they are idle.
    }
  }
  return texts;
}

function total(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** @param pids the processes that serve; null: all that the machine does, as kernel threads belong to nobody */
export function read(pids: readonly number[] | null): Reading {
  const wire_bytes = loopbackBytes(readFileSync('/proc/net/dev', 'utf8'));
  if (pids === null) {
    const stat = readFileSync('/proc/stat', 'utf8');
    return {
      cpu_s: machineTicks(stat).busy / ticks(),
      wire_bytes,
      switches: machineSwitches(stat),
    };
  }
  const sum = (of: (pid: number) => number) => total(pids.map(of));
  return {
    cpu_s: sum((pid) => processTicks(readFileSync(`/proc/${pid}/stat`, 'utf8'))) / ticks(),
    wire_bytes,
    switches: sum((pid) => total(ofThreads(pid, 'status').map(threadSleeps))),
  };
}

/** What lies between two readings, for the bytes and, where there were any, the requests that were moved meanwhile. */
export function costs(before: Reading, after: Reading, bytes: number, requests = 0): Values {
  const values: Values = {
    cpu_s_per_gib: ((after.cpu_s - before.cpu_s) * GIB) / bytes,
    wire_bytes_per_byte: (after.wire_bytes - before.wire_bytes) / bytes,
  };
  if (requests > 0) values.switches_per_io = (after.switches - before.switches) / requests;
  return values;
}

/** In what batches the thread worked that served so many requests of fio's between two counts. */
export function batching(before: Worked, after: Worked, requests: number): Values {
  const more = (key: keyof Worked) => after[key] - before[key];
  const values: Values = { wakeups_per_io: more('wakeups') / requests };
  if (more('request_batches') > 0) {
    values.requests_per_batch = more('requests') / more('request_batches');
  }
  if (more('link_sends') > 0) values.sends_per_io = more('link_sends') / requests;
  return values;
}

/** Nanoseconds that a thread has waited for a processor although it could run, from its schedstat. */
export function waitedNs(schedstat: string): number {
  return Number(schedstat.split(' ')[1]);
}

/** Nanoseconds that the threads of a process have run, or those that have such a name. */
export function threadsRanNs(pid: number, name?: RegExp): number {
  return total(ofThreads(pid, 'schedstat', name).map((text) => Number(text.split(' ')[0])));
}

/** Of the threads of a process that have such a name; null: there are none, or it has ended. */
export function threadsWaitedNs(pid: number, name: RegExp): number | null {
  const waited = ofThreads(pid, 'schedstat', name).map(waitedNs);
  return waited.length === 0 ? null : total(waited);
}

/** The share of its processors that the machine has spent since `before`. */
export function busyShare(before: string, after: string): number {
  const [from, to] = [machineTicks(before), machineTicks(after)];
  return to.all === from.all ? 0 : (to.busy - from.busy) / (to.all - from.all);
}
