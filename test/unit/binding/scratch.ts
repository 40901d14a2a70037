// Small volumes on files for the tests of the binding, in a folder that goes away with the process.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadAddon } from '../../../lib/binding/addon.ts';
import type { NativeCallbacks, NativeStatus, NativeVolume } from '../../../lib/binding/native.ts';

export const BACKING_BYTES = 16 * 1024 * 1024;

let folder: string | undefined;

/** A folder of this process, removed at its exit. */
export function scratchFolder(): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'tidemark-binding-'));
    process.on('exit', () => remove(made, 5));
    folder = made;
  }
  return folder;
}

/** A thread that is still ending may make a file in a folder that was looked through already: tried again. */
function remove(path: string, tries: number): void {
  try {
    rmSync(path, { recursive: true, force: true, maxRetries: 20 });
  } catch (error) {
    if (tries === 1) throw error;
    remove(path, tries - 1);
  }
}

let files = 0;

/** A sparse file of zeroes. */
export function makeBackingFile(bytes = BACKING_BYTES): string {
  const path = join(scratchFolder(), `disk-${process.pid}-${files++}`);
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

/** A backing file with fresh metadata. */
export async function makeBacking(name = 'scratch'): Promise<string> {
  const backing = makeBackingFile();
  await loadAddon().create({ backing, name });
  return backing;
}

export const NO_CALLBACKS: NativeCallbacks = { events() {}, outgoing() {}, room() {} };

/** Opens a fresh volume; what is not said of its callbacks does nothing. */
export async function openScratch(
  callbacks: Partial<NativeCallbacks> = {},
  name = 'scratch',
): Promise<NativeVolume> {
  const backing = await makeBacking(name);
  return loadAddon().open({ name, backing }, { ...NO_CALLBACKS, ...callbacks });
}

/** The clock of the volume's thread. */
export const monotonicUs = () => Number(process.hrtime.bigint() / 1000n);

/** Of no earlier than this call, however long the machine stands still. */
export function statusOfNow(volume: NativeVolume): NativeStatus {
  const askedUs = monotonicUs();
  for (;;) {
    const status = volume.status();
    if (status.nowUs >= askedUs) return status;
    if (monotonicUs() > askedUs + 60_000_000) throw new Error('the thread of the volume is stuck');
  }
}
