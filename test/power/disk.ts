// One node's disk while a log is replayed: what a power cut leaves of it for certain, what was only in its cache, and an
// image file of it for the real attach.
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { readSector, SECTOR_BYTES } from './chronicle.ts';
import type { LogEntry } from './log_writes.ts';
import { findMetadata, type Metadata, type Place, readMetadata } from './metadata.ts';
import type { Random } from './numbers.ts';

/** Writes of data by the number of the write, sector by sector. */
export type Numbers = Uint32Array;

/** A part of an entry that a cut left on the disk. */
interface Piece {
  entry: LogEntry;
  /** Bytes of the entry. */
  begin: number;
  end: number;
}

export class ReplayDisk {
  readonly name: string;
  readonly imagePath: string;
  /** Which write each sector of the data is from, without what is only in the cache. */
  readonly durableNumbers: Numbers;
  /** The same of the image. */
  readonly numbers: Numbers;
  /** Completed and not flushed, oldest first. */
  cached: LogEntry[] = [];
  private readonly begin: number;
  private readonly durable: Buffer;
  private readonly image: number;
  private readonly place: Place;
  private readonly data: { offset: number; bytes: number };
  /** Writes with FUA since the last flush: what the log says of older writes to the same place would be wrong. */
  private forced: LogEntry[] = [];
  private touched: Array<[number, number]> = [];

  /** `content`: the disk as it is when the judging begins. */
  constructor(name: string, begin: number, content: Buffer, imagePath: string) {
    this.name = name;
    this.begin = begin;
    this.durable = Buffer.from(content);
    this.imagePath = imagePath;
    this.place = findMetadata(this.durable);
    const { dataOffset, volumeBytes } = this.durableMetadata();
    this.data = { offset: dataOffset, bytes: volumeBytes };
    this.durableNumbers = new Uint32Array(Math.floor(volumeBytes / SECTOR_BYTES));
    this.number(this.durableNumbers, dataOffset, this.durable.subarray(dataOffset));
    this.numbers = Uint32Array.from(this.durableNumbers);
    this.image = openSync(imagePath, 'w+');
    ftruncateSync(this.image, content.length);
    writeSync(this.image, content, 0, content.length, 0);
  }

  close(): void {
    closeSync(this.image);
  }

  /** A write that a cut may lose. */
  cache(entry: LogEntry): void {
    const overtaken = this.forced.find((forced) => overlap(forced, entry));
    if (overtaken !== undefined) {
      throw new Error(
        `${this.name}: entries ${overtaken.index} (FUA) and ${entry.index} overlap with no flush between: the log does not tell their order`,
      );
    }
    this.cached.push(entry);
  }

  /** A write with FUA, in the order of its completion. */
  force(entry: LogEntry): void {
    this.forced.push(entry);
    this.keep(entry);
  }

  /** A write to a disk without a cache. */
  keep(entry: LogEntry): void {
    this.apply({ entry, begin: 0, end: entry.bytes }, true);
  }

  flush(): void {
    for (const entry of this.cached) this.keep(entry);
    this.cached = [];
    this.forced = [];
  }

  /** Puts some of what is in the cache on the image, chosen by `random`; nothing without it. */
  cut(random: Random | null): void {
    if (random === null) return;
    for (const piece of chosen(this.cached, random)) this.apply(piece, false);
  }

  /** The metadata on the image, as an attach left them. */
  imageMetadata(): Metadata {
    const area = Buffer.alloc(this.place.areaBytes);
    readSync(this.image, area, 0, area.length, this.place.areaOffset);
    return readMetadata(area);
  }

  /** Whose data the image has, whatever was done to it. */
  imageNumbers(): Numbers {
    const data = Buffer.alloc(this.data.bytes);
    readSync(this.image, data, 0, data.length, this.data.offset);
    const found = new Uint32Array(this.numbers.length);
    this.number(found, this.data.offset, data);
    return found;
  }

  /** Throws if the data on the image is not what was put there. */
  assertDataUntouched(): void {
    const found = this.imageNumbers();
    const at = found.findIndex((number, sector) => number !== this.numbers[sector]);
    if (at >= 0) throw new Error(`${this.name}: the attach changed sector ${at} of the data`);
  }

  get placement(): 'start' | 'end' {
    return this.place.areaOffset === 0 ? 'start' : 'end';
  }

  /** Makes the image what is durable, and nothing else, again. */
  restore(): void {
    const { areaOffset, areaBytes } = this.place;
    for (const [begin, end] of [...this.touched, [areaOffset, areaOffset + areaBytes] as const]) {
      writeSync(this.image, this.durable, begin, end - begin, begin);
      const first = Math.floor((begin - this.data.offset) / SECTOR_BYTES);
      const last = Math.floor((end - this.data.offset) / SECTOR_BYTES);
      for (let at = Math.max(0, first); at < Math.min(last, this.numbers.length); at += 1) {
        this.numbers[at] = this.durableNumbers[at]!;
      }
    }
    this.touched = [];
  }

  /** The same after others wrote to the image. */
  restoreAll(): void {
    this.touched = [[0, this.durable.length]];
    this.restore();
  }

  private durableMetadata(): Metadata {
    const { areaOffset, areaBytes } = this.place;
    return readMetadata(this.durable.subarray(areaOffset, areaOffset + areaBytes));
  }

  private apply({ entry, begin, end }: Piece, durable: boolean): void {
    const discard = entry.data.length === 0;
    const part = discard ? Buffer.alloc(end - begin) : entry.data.subarray(begin, end);
    const at = entry.offset - this.begin + begin;
    writeSync(this.image, part, 0, part.length, at);
    this.number(this.numbers, at, part);
    if (durable) {
      part.copy(this.durable, at);
      this.number(this.durableNumbers, at, part);
    } else this.touched.push([at, at + part.length]);
  }

  /** Notes whose data a piece of the disk now has; throws if it is nobody's. */
  private number(numbers: Numbers, at: number, part: Buffer): void {
    const { offset, bytes } = this.data;
    const first = Math.max(at, offset);
    const last = Math.min(at + part.length, offset + bytes);
    for (let from = first; from < last; from += SECTOR_BYTES) {
      const sector = (from - offset) / SECTOR_BYTES;
      numbers[sector] = readSector(part, from - at, sector).write;
    }
  }
}

function overlap(one: LogEntry, other: LogEntry): boolean {
  return one.offset < other.offset + other.bytes && other.offset < one.offset + one.bytes;
}

/** What is left of a cache: each sector of each write in it may be on the medium. */
function chosen(cached: readonly LogEntry[], random: Random): Piece[] {
  const whole = (entry: LogEntry): Piece => ({ entry, begin: 0, end: entry.bytes });
  const torn = (entry: LogEntry): Piece[] => {
    const pieces: Piece[] = [];
    for (let begin = 0; begin < entry.bytes; begin += SECTOR_BYTES) {
      if (random.below(2) === 0) pieces.push({ entry, begin, end: begin + SECTOR_BYTES });
    }
    return pieces;
  };
  const kind = random.below(5);
  const one = random.below(Math.max(1, cached.length));
  if (kind === 0) return cached.filter(() => random.below(2) === 0).map(whole);
  if (kind === 1) return cached.flatMap(torn);
  if (kind === 2) return cached.filter((_, index) => index !== one).map(whole);
  if (kind === 3) return cached.slice(one, one + 1).map(whole);
  // The last one was being written when the power went.
  return [...cached.slice(0, -1).map(whole), ...cached.slice(-1).flatMap(torn)];
}
