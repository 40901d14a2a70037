/** Are two copies equal, byte for byte? */

import { open } from 'node:fs/promises';

const STEP_BYTES = 1 << 20;

export interface Place {
  path: string;
  /** Byte where the copy begins. */
  offset: number;
}

/** The first byte that differs among `bytes`, or null. */
export async function firstDifference(a: Place, b: Place, bytes: number): Promise<number | null> {
  const files = [await open(a.path, 'r'), await open(b.path, 'r')] as const;
  const buffers = [Buffer.alloc(STEP_BYTES), Buffer.alloc(STEP_BYTES)] as const;
  try {
    for (let at = 0; at < bytes; at += STEP_BYTES) {
      const length = Math.min(STEP_BYTES, bytes - at);
      const read = await Promise.all([
        files[0].read(buffers[0], 0, length, a.offset + at),
        files[1].read(buffers[1], 0, length, b.offset + at),
      ]);
      if (read.some(({ bytesRead }) => bytesRead !== length)) return at;
      if (buffers[0].compare(buffers[1], 0, length, 0, length) === 0) continue;
      for (let i = 0; i < length; ++i) if (buffers[0][i] !== buffers[1][i]) return at + i;
    }
    return null;
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}
