// What is on the nodes' disks, read past Tidemark.
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { readRange } from '../tools/block-device.ts';

/** Where a volume's data lies on a node's disk. */
export interface DataArea {
  path: string;
  offset: number;
  bytes: number;
}

/** Throws, naming the first byte that differs, unless both areas have the same content. */
export async function assertSameData(one: DataArea, other: DataArea): Promise<void> {
  if (one.bytes !== other.bytes) {
    throw new Error(`${one.path} has ${one.bytes} bytes of data, ${other.path} ${other.bytes}`);
  }
  const second = readRange(other.path, other.offset, other.bytes);
  try {
    await compare(readRange(one.path, one.offset, one.bytes), second, `${one.path}, ${other.path}`);
  } finally {
    await second.return(undefined);
  }
}

async function compare(
  one: AsyncGenerator<Buffer>,
  other: AsyncGenerator<Buffer>,
  names: string,
): Promise<void> {
  let right: Buffer = Buffer.alloc(0);
  let at = 0;
  for await (const left of one) {
    for (let done = 0; done < left.length; ) {
      if (right.length === 0) right = (await other.next()).value ?? Buffer.alloc(0);
      const length = Math.min(left.length - done, right.length);
      if (length === 0) throw new Error(`${names}: the second ends at byte ${at} of its data`);
      const a = left.subarray(done, done + length);
      const b = right.subarray(0, length);
      if (!a.equals(b)) {
        const index = a.findIndex((byte, place) => byte !== b[place]);
        throw new Error(`${names} differ at byte ${at + index} of the data`);
      }
      right = right.subarray(length);
      done += length;
      at += length;
    }
  }
  const { done } = await other.next();
  if (!done || right.length > 0) throw new Error(`${names}: the first ends at byte ${at}`);
}

export async function hashArea(area: DataArea): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of readRange(area.path, area.offset, area.bytes)) hash.update(part);
  return hash.digest('hex');
}

export async function hashFile(path: string): Promise<string> {
  return hashArea({ path, offset: 0, bytes: (await stat(path)).size });
}

/** One 4 KiB block of the data. */
export async function readBlock(area: DataArea, block: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of readRange(area.path, area.offset + block * 4096, 4096)) {
    parts.push(Buffer.from(part));
  }
  return Buffer.concat(parts);
}
