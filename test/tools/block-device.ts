// Direct I/O on files and block devices from TypeScript: what is read is what the disk has, whatever the
// kernel's page cache believes.
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

const PAGE_BYTES = 64 * 1024;
const BLOCK_BYTES = 4096;

// Without the types of a browser this global has none.
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: { Memory: new (pages: { initial: number }) => { buffer: ArrayBuffer } };
};

/** Memory that begins on a page, as direct I/O needs it: only WebAssembly promises that. */
export function alignedBuffer(bytes: number): Buffer {
  const memory = new WebAssembly.Memory({ initial: Math.max(1, Math.ceil(bytes / PAGE_BYTES)) });
  return Buffer.from(memory.buffer, 0, bytes);
}

/** Opens with O_DIRECT where the filesystem can. */
export async function openDirect(path: string, flags: number): Promise<FileHandle> {
  try {
    return await open(path, flags | constants.O_DIRECT);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    return open(path, flags);
  }
}

/** The bytes of a range, which need not be aligned, in parts of at most 1 MiB. Ends early at the end of the file. */
export async function* readRange(
  path: string,
  offset: number,
  bytes: number,
): AsyncGenerator<Buffer> {
  const buffer = alignedBuffer(1 << 20);
  const file = await openDirect(path, constants.O_RDONLY);
  try {
    let at = offset;
    while (at < offset + bytes) {
      const begin = at - (at % BLOCK_BYTES);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, begin);
      if (begin + bytesRead <= at) return;
      const part = buffer.subarray(at - begin, Math.min(bytesRead, offset + bytes - begin));
      at += part.length;
      yield part;
    }
  } finally {
    await file.close();
  }
}

const SLOT_BYTES = 256 * 1024;
const SLOTS = 32;

/** A block device as the scenarios use it: whole 4 KiB blocks, past the page cache. */
export class BlockDevice {
  readonly sizeBytes: number;
  private readonly file: FileHandle;
  private readonly free: Buffer[] = [];
  private readonly waiting: Array<(slot: Buffer) => void> = [];

  private constructor(file: FileHandle, sizeBytes: number) {
    this.file = file;
    this.sizeBytes = sizeBytes;
    const memory = alignedBuffer(SLOTS * SLOT_BYTES);
    for (let slot = 0; slot < SLOTS; slot += 1) {
      this.free.push(memory.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES));
    }
  }

  /** `flags`: more of open()'s, such as O_DSYNC. */
  static async open(path: string, sizeBytes: number, flags = 0): Promise<BlockDevice> {
    return new BlockDevice(await openDirect(path, constants.O_RDWR | flags), sizeBytes);
  }

  read(offset: number, bytes: number): Promise<Buffer> {
    return this.withSlot(bytes, async (slot) => {
      const { bytesRead } = await this.file.read(slot, 0, bytes, offset);
      return Buffer.from(slot.subarray(0, bytesRead));
    });
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.withSlot(data.length, async (slot) => {
      slot.set(data);
      const { bytesWritten } = await this.file.write(slot, 0, data.length, offset);
      if (bytesWritten !== data.length) throw new Error(`wrote ${bytesWritten} of ${data.length}`);
    });
  }

  async flush(): Promise<void> {
    await this.file.datasync();
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private async withSlot<T>(bytes: number, action: (slot: Buffer) => Promise<T>): Promise<T> {
    if (bytes > SLOT_BYTES) throw new RangeError(`${bytes} bytes: out of range (..${SLOT_BYTES})`);
    const slot = this.free.pop() ?? (await new Promise<Buffer>((give) => this.waiting.push(give)));
    try {
      return await action(slot);
    } finally {
      const next = this.waiting.shift();
      if (next !== undefined) next(slot);
      else this.free.push(slot);
    }
  }
}
