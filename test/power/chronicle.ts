// A writer whose every sector tells which write it is from, and how many promises had been made to the writer when that
// write was begun. So whoever finds a sector, in a log or on a disk, knows what had been promised by then, without any
// clock. A promise is the answer to a flush, or to a write with FUA.
import { Random } from './numbers.ts';

export const SECTOR_BYTES = 512;
const MAGIC = 0x50435754;
const GROUP_WORDS = 4;
const GROUP_BYTES = 4 * GROUP_WORDS;
/** A write that has this many sectors or more is 32 KiB. */
const SECTORS_MAX = 64;

/** What the writer notes down; a host that judges the disks reads it. */
export interface ChronicleJson {
  sectors: number;
  /** First sector and sectors of write number i + 1. */
  writes: Array<[number, number]>;
  /** Numbers of writes in the order of their answers. */
  answered: number[];
  promises: Promised[];
}

/** `answered`: the first so many answers were there when the flush was begun. `write`: the one with FUA. */
export type Promised = { answered: number } | { write: number };

/** What the sectors are written to. */
export interface ChronicleDevice {
  readonly sizeBytes: number;
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Returns when the data is durable, by FUA. */
  writeDurably(offset: number, data: Uint8Array): Promise<void>;
  flush(): Promise<void>;
}

export interface ChronicleOptions {
  seed: number;
  /** Writes under way at once. */
  depth: number;
  /** Answers between two flushes. */
  flushEvery: number;
  /** One sector area in so many is written with FUA, and only so; 0: none. */
  fuaEvery: number;
}

/** Areas of this size are written with FUA, or never: the kernel's log puts a write with FUA before older ones without. */
const FUA_AREA_SECTORS = 256;

export class Chronicle {
  private readonly sectors: number;
  private readonly writes: Array<[number, number]> = [];
  private readonly answered: number[] = [];
  private readonly promises: Promised[] = [];
  private readonly busy = new Set<number>();
  private readonly random: Random;
  private readonly device: ChronicleDevice;
  private readonly options: ChronicleOptions;
  private waiters: Array<{ at: number; resolve: () => void }> = [];
  private failure: Error | null = null;
  private stopped = false;
  private lanes: Promise<unknown> = Promise.resolve();

  constructor(device: ChronicleDevice, options: ChronicleOptions) {
    this.device = device;
    this.options = options;
    this.sectors = Math.floor(device.sizeBytes / SECTOR_BYTES);
    this.random = new Random(options.seed);
  }

  start(): void {
    this.lanes = Promise.all(Array.from({ length: this.options.depth }, () => this.lane()));
  }

  /** Resolves after so many more answers. */
  async more(count: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.waiters.push({ at: this.answered.length + count, resolve });
      this.settle();
    });
    if (this.failure !== null) throw this.failure;
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.lanes;
    if (this.failure !== null) throw this.failure;
    await this.flush();
  }

  toJSON(): ChronicleJson {
    const { sectors, writes, answered, promises } = this;
    return { sectors, writes, answered, promises };
  }

  private async lane(): Promise<void> {
    while (!this.stopped && this.failure === null) {
      const [first, count] = this.choose();
      const places = placesOf(first, count);
      for (const place of places) this.busy.add(place);
      try {
        await this.writeOne(first, count);
        if (this.answered.length % this.options.flushEvery === 0) await this.flush();
      } catch (error) {
        this.failure ??= error as Error;
      }
      for (const place of places) this.busy.delete(place);
      this.settle();
    }
  }

  /** Sectors that no write under way touches: two at once would have no order that we know. */
  private choose(): [number, number] {
    for (;;) {
      const kind = this.random.below(8);
      // Mostly single blocks, some unaligned scraps, some large ones.
      const count = kind < 4 ? 8 : kind < 6 ? 1 + this.random.below(12) : SECTORS_MAX;
      let first = this.random.below(this.sectors - SECTORS_MAX);
      if (kind < 4) first -= first % 8;
      const last = first + count - 1;
      if (Math.floor(first / FUA_AREA_SECTORS) !== Math.floor(last / FUA_AREA_SECTORS)) continue;
      if (placesOf(first, count).every((place) => !this.busy.has(place))) return [first, count];
    }
  }

  private async writeOne(first: number, count: number): Promise<void> {
    const number = this.writes.push([first, count]);
    const content = contentOf(first, count, number, this.promises.length);
    const { fuaEvery } = this.options;
    const fua = fuaEvery > 0 && Math.floor(first / FUA_AREA_SECTORS) % fuaEvery === 0;
    const offset = first * SECTOR_BYTES;
    if (fua) await this.device.writeDurably(offset, content);
    else await this.device.write(offset, content);
    this.answered.push(number);
    if (fua) this.promises.push({ write: number });
  }

  private async flush(): Promise<void> {
    const answered = this.answered.length;
    await this.device.flush();
    this.promises.push({ answered });
  }

  private settle(): void {
    this.waiters = this.waiters.filter(({ at, resolve }) => {
      const over = this.answered.length >= at || this.failure !== null || this.stopped;
      if (over) resolve();
      return !over;
    });
  }
}

/** Blocks of 4 KiB, which is what the backing may write at the least. */
function placesOf(first: number, count: number): number[] {
  const places: number[] = [];
  for (let place = first >> 3; place <= (first + count - 1) >> 3; place += 1) places.push(place);
  return places;
}

export function contentOf(first: number, count: number, write: number, promises: number): Buffer {
  const words = new Uint32Array((count * SECTOR_BYTES) / 4);
  for (let at = 0; at < words.length; at += GROUP_WORDS) {
    words[at] = MAGIC;
    words[at + 1] = first + Math.floor((at * 4) / SECTOR_BYTES);
    words[at + 2] = write;
    words[at + 3] = promises;
  }
  return Buffer.from(words.buffer);
}

export interface Sector {
  /** Number of the write; 0: never written, all zeroes. */
  write: number;
  promises: number;
}

/** What a sector says; throws unless it is one whole sector of a write to that very place. */
export function readSector(data: Buffer, at: number, sector: number): Sector {
  const magic = data.readUInt32LE(at);
  const write = data.readUInt32LE(at + 8);
  const promises = data.readUInt32LE(at + 12);
  const zero = magic === 0 && write === 0 && promises === 0 && data.readUInt32LE(at + 4) === 0;
  const named = zero || (magic === MAGIC && data.readUInt32LE(at + 4) === sector);
  // The same group over and over is a sector that equals itself, moved by one group.
  const end = at + SECTOR_BYTES;
  if (!named || data.compare(data, at + GROUP_BYTES, end, at, end - GROUP_BYTES) !== 0) {
    let word = 0;
    while (
      named &&
      data.compare(data, at + word, at + word + GROUP_BYTES, at, at + GROUP_BYTES) === 0
    ) {
      word += GROUP_BYTES;
    }
    const found = data.toString('hex', at + word, at + word + GROUP_BYTES);
    throw new Error(`sector ${sector} has ${found} at byte ${word}; expected write ${write}`);
  }
  return zero ? { write: 0, promises: 0 } : { write, promises };
}

/** What has been promised, sector by sector, after the first so many promises. */
export class Promises {
  /** Number of the write that each sector must have, or a later one's. */
  readonly floor: Uint32Array;
  private readonly record: ChronicleJson;
  private made = 0;
  private answered = 0;

  constructor(record: ChronicleJson) {
    this.record = record;
    this.floor = new Uint32Array(record.sectors);
  }

  /** Takes the first `count` promises into account, and no others. */
  set(count: number): void {
    if (count > this.record.promises.length) {
      throw new RangeError(`${count} promises; only ${this.record.promises.length} were made`);
    }
    if (count < this.made) {
      this.floor.fill(0);
      this.made = 0;
      this.answered = 0;
    }
    for (; this.made < count; this.made += 1) {
      const promised = this.record.promises[this.made]!;
      if ('write' in promised) {
        this.raise(promised.write);
        continue;
      }
      for (; this.answered < promised.answered; this.answered += 1) {
        this.raise(this.record.answered[this.answered]!);
      }
    }
  }

  private raise(write: number): void {
    const [first, count] = this.record.writes[write - 1]!;
    for (let sector = first; sector < first + count; sector += 1) {
      if (this.floor[sector]! < write) this.floor[sector] = write;
    }
  }
}
