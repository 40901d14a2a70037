/**
 * What an application was promised, and what each copy must therefore hold.
 *
 * A lineage is what one primary made of the volume: the content it began with and its writes, in the order in which they were submitted
 * (which is the order of their effect where they overlap, R5). Every promotion begins a new one, from what is then on that disk. A copy
 * follows the lineage of the primary that it was in step with last.
 *
 * What a copy holds is read from its disk and compared: the content of a sector is looked up in the lineage, and nothing that is
 * newer there may have been promised.
 */
import { Violation } from './violation.ts';

export const NEVER = Number.POSITIVE_INFINITY;
export const SECTOR_BYTES = 512;

export interface WriteRecord {
  readonly lineage: Lineage;
  /** Unique, of all that is written; 0 for zeroes. */
  readonly stamp: number;
  readonly first: number;
  readonly count: number;
  readonly fua: boolean;
  readonly submitted: number;
  completed: number;
  failed: boolean;
  /** When it became certain that it survives a power cut, by node. */
  readonly durable: number[];
  /** When it became certain that it is on that disk, in its cache at least; by node. */
  readonly there: number[];
  /** Nodes that the primary was linked with when it completed: what they lack may still be on its way (protocol A). */
  linked: number;
}

/** A write as one sector sees it. */
type History = WriteRecord[];

export class Lineage {
  readonly owner: number;
  readonly number: number;
  readonly parent: Lineage | null;
  readonly base: Float64Array;
  readonly writes: WriteRecord[] = [];
  readonly #history: Array<History | undefined>;
  readonly #disputed = new Set<number>();
  /** An Inconsistent copy was declared to be the truth: what it differs in was given up. */
  readonly declared: boolean;
  /** It began with what a copy that is no primary's had, also in its cache only: a power cut there may leave what the parent allows. */
  cached = false;

  constructor(
    number: number,
    owner: number,
    parent: Lineage | null,
    base: Float64Array,
    declared: boolean,
  ) {
    this.number = number;
    this.owner = owner;
    this.parent = parent;
    this.base = base;
    this.declared = declared;
    this.#history = new Array<History | undefined>(base.length);
  }

  get name(): string {
    return `L${this.number}`;
  }

  /** The write failed here, and may have reached other copies: theirs may differ, marked, until the next resync. */
  dispute({ first, count }: WriteRecord): void {
    for (let sector = first; sector < first + count; sector++) this.#disputed.add(sector);
  }

  disputed(sector: number): boolean {
    return this.#disputed.has(sector) || (this.parent?.disputed(sector) ?? false);
  }

  add(stamp: number, first: number, count: number, fua: boolean, submitted: number): WriteRecord {
    const write: WriteRecord = {
      lineage: this,
      stamp,
      first,
      count,
      fua,
      submitted,
      completed: NEVER,
      failed: false,
      durable: [],
      there: [],
      linked: 0,
    };
    this.writes.push(write);
    for (let sector = first; sector < first + count; sector++) {
      const history = this.#history[sector];
      if (history === undefined) this.#history[sector] = [write];
      else history.push(write);
    }
    return write;
  }

  historyOf(sector: number): readonly WriteRecord[] {
    return this.#history[sector] ?? NO_HISTORY;
  }

  /** Place of a content in the sector's history, the newest that fits: 0 is the base, -1 unknown. */
  place(sector: number, stamp: number): number {
    const history = this.#history[sector];
    if (history !== undefined) {
      for (let at = history.length - 1; at >= 0; at--) {
        if (history[at]!.stamp === stamp) return at + 1;
      }
    }
    return this.base[sector] === stamp ? 0 : -1;
  }

  /** The newest write to the sector that has completed well, as a place; 0: none. */
  floor(sector: number): number {
    const history = this.#history[sector];
    if (history === undefined) return 0;
    for (let at = history.length - 1; at >= 0; at--) {
      const write = history[at]!;
      if (write.completed !== NEVER && !write.failed) return at + 1;
    }
    return 0;
  }

  /** Sectors that were written. */
  *written(): Iterable<number> {
    for (let sector = 0; sector < this.#history.length; sector++) {
      if (this.#history[sector] !== undefined) yield sector;
    }
  }

  /** Whether a copy of this lineage with this content of the sector has the write, or something newer. */
  includes(sector: number, stamp: number, write: WriteRecord): boolean {
    if (write.lineage === this) {
      return this.place(sector, stamp) >= this.historyOf(sector).indexOf(write) + 1;
    }
    const { parent } = this;
    return parent?.includes(sector, this.base[sector]!, write) ?? false;
  }
}

const NO_HISTORY: History = [];

/** Which promises count. */
export type Demand = 'there' | 'durable';

/**
 * The copy of `node`, which follows `lineage`, holds everything that it was promised to hold.
 * @param stamps what is on its disk
 */
export function checkCopy(
  when: string,
  node: number,
  name: string,
  lineage: Lineage,
  stamps: Float64Array,
  demand: Demand,
): void {
  let newest: WriteRecord | null = null;
  const places = new Map<number, number>();
  for (let sector = 0; sector < stamps.length; sector++) {
    const stamp = stamps[sector]!;
    const history = lineage.historyOf(sector);
    if (history.length === 0 && stamp === lineage.base[sector]) continue;
    const place = lineage.place(sector, stamp);
    if (place < 0 && lineage.disputed(sector)) continue;
    if (place < 0) {
      throw new Violation(
        'content',
        `${when}: sector ${sector} of ${name} has ${stampText(stamp)}, which was never written there in lineage ${lineage.name} ` +
          `(base ${stampText(lineage.base[sector]!)}, writes ${history.map((each) => stampText(each.stamp)).join(' ')})`,
      );
    }
    places.set(sector, place);
    // Zeroes do not say whose they are.
    const write = place > 0 && stamp !== 0 ? history[place - 1]! : null;
    if (write !== null && (newest === null || write.submitted > newest.submitted)) newest = write;
  }
  for (const [sector, place] of places) {
    const history = lineage.historyOf(sector);
    for (let at = history.length; at > place; at--) {
      const write = history[at - 1]!;
      if (write.failed) continue;
      const why = reason(write, node, demand, newest);
      if (why === null) continue;
      throw new Violation(
        'promise',
        `${when}: sector ${sector} of ${name} has ${stampText(stamps[sector]!)} (place ${place} of ${history.length} in lineage ` +
          `${lineage.name}), but the newer ${stampText(write.stamp)} at place ${at} ${why} (submitted ${write.submitted}, completed ${write.completed})`,
      );
    }
  }
}

/** Why the copy must have the write; null: it need not. */
function reason(
  write: WriteRecord,
  node: number,
  demand: Demand,
  newest: WriteRecord | null,
): string | null {
  if (write.durable[node] !== undefined) return `was promised to be durable there`;
  if (demand === 'there' && write.there[node] !== undefined) return `was promised to be there`;
  // R10: what was submitted after a flush was answered is never there without what the flush was for.
  const owner = write.durable[write.lineage.owner];
  if (newest !== null && owner !== undefined && owner < newest.submitted) {
    return `was flushed (at ${owner}) before ${stampText(newest.stamp)}, which is there, was submitted (at ${newest.submitted})`;
  }
  return null;
}

export function stampText(stamp: number): string {
  return stamp === 0 ? 'zeroes' : stamp < 0 ? 'foreign or torn content' : `#${stamp}`;
}
