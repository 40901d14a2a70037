/** What a run cost besides time: processor seconds, and bytes on the wire. Read from /proc. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import type { Values } from './figures.ts';

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
}

/** @param pids the processes that serve; null: all that the machine does, as kernel threads belong to nobody */
export function read(pids: readonly number[] | null): Reading {
  const busy =
    pids === null
      ? machineTicks(readFileSync('/proc/stat', 'utf8')).busy
      : pids.reduce((sum, pid) => sum + processTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')), 0);
  return {
    cpu_s: busy / ticks(),
    wire_bytes: loopbackBytes(readFileSync('/proc/net/dev', 'utf8')),
  };
}

/** What lies between two readings, for the bytes that were moved meanwhile. */
export function costs(before: Reading, after: Reading, bytes: number): Values {
  return {
    cpu_s_per_gib: ((after.cpu_s - before.cpu_s) * GIB) / bytes,
    wire_bytes_per_byte: (after.wire_bytes - before.wire_bytes) / bytes,
  };
}

/** Nanoseconds that a thread has waited for a processor although it could run, from its schedstat. */
export function waitedNs(schedstat: string): number {
  return Number(schedstat.split(' ')[1]);
}

/** Of all threads of a process, those that have ended left out; null: it has ended. */
export function processWaitedNs(pid: number): number | null {
  const folder = `/proc/${pid}/task`;
  try {
    return readdirSync(folder)
      .map((thread) => waitedNs(readFileSync(`${folder}/${thread}/schedstat`, 'utf8')))
      .reduce((sum, ns) => sum + ns, 0);
  } catch {
    return null;
  }
}

/** The share of its processors that the machine has spent since `before`. */
export function busyShare(before: string, after: string): number {
  const [from, to] = [machineTicks(before), machineTicks(after)];
  return to.all === from.all ? 0 : (to.busy - from.busy) / (to.all - from.all);
}
