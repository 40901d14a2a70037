/** Where the sparse volumes of `npm run bench:scale` lie: a folder that is gone at the end, and programs that end with it. */

import { type ChildProcess, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadAddon } from '../lib/binding/addon.ts';

export const VOLUME = 'scale';
export const MIB = 2 ** 20;
export const BLOCK_BYTES = 4096;

const SCALE = fileURLToPath(new URL('../build/bench/tidemark-scale', import.meta.url));
/** An attach of 1 PiB, or the daemons of all steps. */
const CHILD_MS_MAX = 15 * 60_000;
// ext4 takes no file of 16 TiB; tmpfs does.
const FOLDERS = [tmpdir(), '/dev/shm'];

export interface Shape {
  bytes: number;
  chunkBytes: number;
  /** Of the activity log; absent: the default. */
  logExtents?: number;
}

/** One node's copy: a sparse file, and metadata beside it on a disk. */
export interface Copy {
  backing: string;
  metadata: string;
}

export class ScalePlace {
  /** For metadata, sockets and configs. */
  readonly folder = mkdtempSync(join(tmpdir(), 'ts-'));
  private readonly folders = [this.folder];
  private readonly children = new Set<ChildProcess>();

  /** Ends with the place, if it did not end before; at the latest after some time, so that whoever waits for it goes on. */
  adopt(child: ChildProcess): void {
    const late = setTimeout(() => child.kill('SIGKILL'), CHILD_MS_MAX);
    this.children.add(child);
    child.once('exit', () => {
      clearTimeout(late);
      this.children.delete(child);
    });
  }

  async remove(): Promise<void> {
    for (const child of this.children) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
    for (const folder of this.folders) rmSync(folder, { recursive: true, force: true });
  }

  private sparse(name: string, bytes: number): string {
    let problem: unknown;
    for (const parent of FOLDERS) {
      const folder = mkdtempSync(join(parent, 'ts-'));
      this.folders.push(folder);
      const path = join(folder, name);
      const fd = openSync(path, 'w');
      try {
        ftruncateSync(fd, bytes);
        return path;
      } catch (error) {
        problem = error;
        rmSync(folder, { recursive: true });
      } finally {
        closeSync(fd);
      }
    }
    throw new Error(`no file of ${bytes} bytes can be made in ${FOLDERS.join(' or ')}`, {
      cause: problem,
    });
  }

  /** Makes a copy and its metadata; returns how long the metadata took, in seconds. */
  async create(name: string, shape: Shape): Promise<[Copy, number]> {
    const { bytes, ...geometry } = shape;
    const copy: Copy = {
      backing: this.sparse(`${name}.img`, bytes),
      metadata: join(this.folder, `${name}.md`),
    };
    const begin = performance.now();
    await loadAddon().create({ ...copy, ...geometry, placement: 'external', name: VOLUME });
    return [copy, (performance.now() - begin) / 1000];
  }

  removeCopy(copy: Copy): void {
    rmSync(copy.backing);
    rmSync(copy.metadata);
  }
}

/** Offsets of blocks, evenly over a volume. */
export function spread(bytes: number, count: number): number[] {
  const distance = Math.floor(bytes / count / BLOCK_BYTES) * BLOCK_BYTES;
  return Array.from({ length: count }, (_, index) => index * distance);
}

/** Runs tidemark-scale (bench/native/scale.cc). */
export function prepare(...words: string[]): void {
  const { status, stderr, error } = spawnSync(SCALE, words, {
    encoding: 'utf8',
    timeout: CHILD_MS_MAX,
  });
  if (error) throw error;
  if (status !== 0) throw new Error(stderr.trim());
}
