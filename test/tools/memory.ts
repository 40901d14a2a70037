// What a process has in memory.

import { readFileSync } from 'node:fs';

export interface Memory {
  /** Resident now. */
  nowBytes: number;
  /** Resident at most so far. */
  mostBytes: number;
}

/** @throws Error when there is no such process, or it has ended and has no memory. */
export function memoryOf(pid: number | 'self'): Memory {
  const path = `/proc/${pid}/status`;
  const text = readFileSync(path, 'utf8');
  const field = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1];
    if (kib === undefined) throw new Error(`${path} has no ${name}`);
    return Number(kib) * 1024;
  };
  return { nowBytes: field('VmRSS'), mostBytes: field('VmHWM') };
}
