// A writer that knows of every 4 KiB block which versions it may have: the last that was acknowledged, or a later one
// that was under way. Content names its block and version, so that any reader can judge it.
import type { Device } from './place.ts';

export const BLOCK_BYTES = 4096;

const MAGIC = 0x74696465;
const ZEROES = Buffer.alloc(BLOCK_BYTES);

export interface LoadOptions {
  /** Blocks that are written, from `first`, at random. */
  first?: number;
  count?: number;
  /** Of these only every so many-th; default all. */
  stride?: number;
  /** Writes under way at once. */
  depth?: number;
  /** Writes between two flushes; without it none. */
  flushEvery?: number;
}

/** A load that runs until it is told to stop, or its device goes away. */
export interface Load {
  /** Resolves with what ended it: null when it was told to. */
  readonly ended: Promise<Error | null>;
  stop(): Promise<Error | null>;
  /** Resolves after so many more acknowledged writes; rejects if the load ends before. */
  more(writes: number): Promise<void>;
}

export class Ledger {
  readonly blocks: number;
  /** Versions by block; 0: never written, all zeroes. */
  private readonly issued: Uint32Array;
  private readonly acked: Uint32Array;
  /** Versions that were given out; never used twice. */
  private readonly versions: Uint32Array;
  /** Sequence number of the last write to each block that was begun. */
  private readonly issuedAt: Uint32Array;
  /** Writes that were begun. */
  sequence = 0;
  private random: number;

  constructor(sizeBytes: number, seed = 0x2545f491) {
    this.blocks = Math.floor(sizeBytes / BLOCK_BYTES);
    this.issued = new Uint32Array(this.blocks);
    this.acked = new Uint32Array(this.blocks);
    this.versions = new Uint32Array(this.blocks);
    this.issuedAt = new Uint32Array(this.blocks);
    this.random = seed;
  }

  /** The content of one version of a block: sixteen bytes that name both, over and over. */
  static content(block: number, version: number): Buffer {
    if (version === 0) return ZEROES;
    const words = new Uint32Array(BLOCK_BYTES / 4);
    for (let at = 0; at < words.length; at += 4) {
      words[at] = MAGIC;
      words[at + 1] = block;
      words[at + 2] = version;
      words[at + 3] = Math.imul(block + at, 2654435761) ^ version;
    }
    return Buffer.from(words.buffer);
  }

  /** Writes `count` blocks, one write each, and returns when all are acknowledged. */
  async write(device: Device, block: number, count = 1): Promise<void> {
    for (let from = block; from < block + count; from += 16) {
      const part = Array.from({ length: Math.min(16, block + count - from) }, (_, i) => from + i);
      await Promise.all(part.map((each) => this.writeOne(device, each)));
    }
  }

  /** Writes `count` different blocks of [first, first + span), chosen at random, and returns which. */
  async scatter(device: Device, first: number, span: number, count: number): Promise<number[]> {
    const chosen = new Set<number>();
    while (chosen.size < count) chosen.add(first + this.below(span));
    const list = [...chosen];
    for (let at = 0; at < list.length; at += 16) {
      await Promise.all(list.slice(at, at + 16).map((block) => this.writeOne(device, block)));
    }
    return list;
  }

  load(device: Device, options: LoadOptions = {}): Load {
    const { first = 0, count = this.blocks, stride = 1, depth = 8, flushEvery } = options;
    const draw = () => first + this.below(Math.ceil(count / stride)) * stride;
    let stopped = false;
    let failure: Error | null = null;
    let acknowledged = 0;
    const waiters: Array<{ at: number; resolve: () => void; reject: (error: Error) => void }> = [];
    const settle = () => {
      for (let i = waiters.length - 1; i >= 0; i -= 1) {
        const waiter = waiters[i]!;
        if (acknowledged >= waiter.at) waiter.resolve();
        else if (failure !== null || stopped) waiter.reject(failure ?? new Error('load stopped'));
        else continue;
        waiters.splice(i, 1);
      }
    };
    const busy = new Set<number>();
    const lane = async () => {
      while (!stopped && failure === null) {
        let block = draw();
        // Two writes of one block under way at once would have no order that we know.
        while (busy.has(block)) block = draw();
        busy.add(block);
        try {
          await this.writeOne(device, block);
          acknowledged += 1;
          if (flushEvery !== undefined && acknowledged % flushEvery === 0) await device.flush();
        } catch (error) {
          failure ??= error as Error;
        }
        busy.delete(block);
        settle();
      }
    };
    const ended = Promise.all(Array.from({ length: depth }, lane)).then(() => failure);
    return {
      ended,
      stop: () => {
        stopped = true;
        settle();
        return ended;
      },
      more: (writes) =>
        new Promise((resolve, reject) => {
          waiters.push({ at: acknowledged + writes, resolve, reject });
          settle();
        }),
    };
  }

  /** Different blocks of which a write was begun at or after that sequence number. */
  touchedSince(sequence: number): number {
    let count = 0;
    for (const at of this.issuedAt) if (at > sequence) count += 1;
    return count;
  }

  /** Blocks that were ever written. */
  get written(): number[] {
    const list: number[] = [];
    for (let block = 0; block < this.blocks; block += 1) {
      if (this.versions[block]! > 0) list.push(block);
    }
    return list;
  }

  /** As verify(), of the blocks that were ever written alone. */
  async verifyWritten(device: Pick<Device, 'read'>, what: string): Promise<void> {
    const { written } = this;
    for (let at = 0; at < written.length; at += 16) {
      const some = written.slice(at, at + 16);
      const read = (block: number) => device.read(block * BLOCK_BYTES, BLOCK_BYTES);
      const parts = await Promise.all(some.map(read));
      for (const [index, block] of some.entries()) this.judge(block, parts[index]!, what);
    }
  }

  /** Throws unless every block (from `first` on) has a version that it may have; learns which of them it has. */
  async verify(device: Pick<Device, 'read'>, what: string, first = 0): Promise<void> {
    const step = 32;
    for (let from = first; from < this.blocks; from += step) {
      const count = Math.min(step, this.blocks - from);
      const data = await device.read(from * BLOCK_BYTES, count * BLOCK_BYTES);
      for (let i = 0; i < count; i += 1) {
        const block = from + i;
        const part = data.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
        this.judge(block, part, what);
      }
    }
  }

  private judge(block: number, data: Buffer, what: string): void {
    const version = data.readUInt32LE(8);
    const [low, high] = [this.acked[block]!, this.issued[block]!];
    if (version >= low && version <= high && data.equals(Ledger.content(block, version))) {
      // What was read once may not be another version later.
      this.acked[block] = version;
      this.issued[block] = version;
      return;
    }
    const owner = data.readUInt32LE(0) === MAGIC ? `block ${data.readUInt32LE(4)}, ` : '';
    throw new Error(
      `${what}: block ${block} has ${owner}version ${version}; expected ${low}..${high}`,
    );
  }

  private async writeOne(device: Device, block: number): Promise<void> {
    const version = this.versions[block]! + 1;
    this.versions[block] = version;
    this.issued[block] = version;
    this.sequence += 1;
    this.issuedAt[block] = this.sequence;
    await device.write(block * BLOCK_BYTES, Ledger.content(block, version));
    this.acked[block] = version;
  }

  private below(limit: number): number {
    let x = this.random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.random = x;
    return (x >>> 0) % limit;
  }
}
