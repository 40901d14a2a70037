/** What applications do with a device: requests of every kind, size and place, as many at once as the theme says. */

import { SECTOR_BYTES } from './lineage.ts';
import type { SimRequest } from './machine.ts';
import type { Plan } from './plan.ts';
import type { Random } from './random.ts';

const MIB = 1 << 20;

export interface WorkloadMood {
  /** Requests of one device at once. */
  depth: number;
  /** Mean virtual microseconds between two requests of a device. */
  thinkUs: number;
  mix: { read: number; write: number; flush: number; discard: number; 'write-zeroes': number };
  fuaOneIn: number;
  /** Where: one extent after the other, a few places again and again, anywhere, one after the other. */
  place: 'thrash' | 'hot' | 'anywhere' | 'sequential';
  /** Multiples of what requests start and end at. */
  alignBytes: number;
  bytesMax: number;
}

export function makeMood(plan: Plan, random: Random): WorkloadMood {
  const mood: WorkloadMood = {
    depth: random.pick([1, 4, 16]),
    thinkUs: random.pick([0, 300, 3000]),
    mix: { read: 3, write: 10, flush: 1, discard: 0.5, 'write-zeroes': 0.5 },
    fuaOneIn: random.pick([0, 8, 30]),
    place: random.pick(['thrash', 'hot', 'anywhere', 'sequential'] as const),
    alignBytes: Math.max(plan.blockBytes, random.pick([512, 4096])),
    bytesMax: random.pick([4096, 16384, 65536]),
  };
  switch (plan.theme) {
    case 'log-thrash':
      Object.assign(mood, { place: 'thrash', depth: 16, thinkUs: 0, bytesMax: 16384 });
      break;
    case 'flush-storm':
      Object.assign(mood, { fuaOneIn: 3, depth: 16, thinkUs: 0, bytesMax: 4096 });
      mood.mix.flush = 6;
      break;
    case 'zeroes':
      Object.assign(mood, { bytesMax: 2 * MIB, alignBytes: random.pick([512, 4096]) });
      Object.assign(mood.mix, { discard: 6, 'write-zeroes': 6 });
      break;
    case 'unaligned':
      Object.assign(mood, { alignBytes: 512, bytesMax: 20 * 512, depth: 16, place: 'hot' });
      break;
    case 'errors-in-resync':
      // Quiet in between, so that a link that broke is there again before anything is written apart.
      mood.thinkUs = random.pick([300, 1000, 100_000]);
      break;
    case 'resync-under-writes':
      Object.assign(mood, { thinkUs: 500, depth: 8 });
      break;
    default:
      break;
  }
  return mood;
}

export class Workload {
  mood: WorkloadMood;
  readonly #random: Random;
  readonly #plan: Plan;
  #lastStamp = 0;
  #at = 0;
  readonly #hot: number[];

  constructor(plan: Plan, random: Random) {
    this.#plan = plan;
    this.#random = random;
    this.mood = makeMood(plan, random);
    this.#hot = Array.from({ length: 6 }, () => random.below(plan.volumeBytes / SECTOR_BYTES));
  }

  next(): SimRequest {
    const { mood } = this;
    const random = this.#random;
    const op = random.weighted(mood.mix);
    if (op === 'flush') return { op, offset: 0, length: 0 };
    const zeroes = op === 'discard' || op === 'write-zeroes';
    // Most are small, so that seeds stay cheap; some are large.
    const large = random.oneIn(plainOdds(zeroes)) ? mood.bytesMax : Math.min(mood.bytesMax, 8192);
    const unit = mood.alignBytes;
    const size = this.#plan.volumeBytes;
    const length = Math.min(size, unit * random.between(1, Math.max(1, Math.floor(large / unit))));
    const offset = this.#place(size - length, unit);
    const request: SimRequest = { op, offset, length };
    if (op === 'read') return request;
    if (random.oneIn(mood.fuaOneIn)) request.fua = true;
    if (op === 'write-zeroes' && random.oneIn(2)) request.noUnmap = true;
    if (op === 'write') {
      this.#lastStamp += 1;
      request.stamp = this.#lastStamp;
    }
    return request;
  }

  /** A multiple of `unit`, at most `last`. */
  #place(last: number, unit: number): number {
    const random = this.#random;
    const down = (bytes: number) => Math.floor(Math.min(bytes, last) / unit) * unit;
    const { place } = this.mood;
    if (place === 'thrash') {
      this.#at = (this.#at + this.#plan.extentBytes) % (last + 1);
      return down(this.#at + random.below(8) * unit);
    }
    if (place === 'hot' && !random.oneIn(10)) {
      return down((random.pick(this.#hot) + random.below(24)) * SECTOR_BYTES);
    }
    if (place === 'sequential') {
      this.#at = (this.#at + random.between(0, 4) * unit) % (last + 1);
      return down(this.#at);
    }
    return down(random.below(last + 1));
  }
}

const plainOdds = (zeroes: boolean) => (zeroes ? 2 : 6);
