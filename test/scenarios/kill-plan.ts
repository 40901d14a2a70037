// What one round of the kills does, drawn from a seed: the same seed and round always give the same plan.
import type { Place } from './place.ts';

/** In which work the daemons are killed; all but 'role change' under load. */
export const MOMENTS = [
  'load',
  'apart',
  'resync',
  'start-up',
  'clean stop',
  'role change',
  'failover',
] as const;
export type Moment = (typeof MOMENTS)[number];
export type Victim = 'primary' | 'secondary' | 'both';

export interface KillPlan {
  round: number;
  moment: Moment;
  victim: Victim;
  /** Which part of the moment's usual length goes by before the kill: 0..1. */
  at: number;
  /** Writes that are acknowledged before. */
  writes: number;
  /** Starts that are killed, too, before one is left alone, each with its part of a usual start: 0..1. */
  starts: number[];
  /** A killed start was told to promote. */
  promotes: boolean;
  first: 'primary' | 'secondary';
}

/** Numbers that only depend on the seed (mulberry32). */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** 0 <= value < 1 */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let x = this.state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** `failover` needs protocol C: under A the secondary may lack what was acknowledged. */
export function planRound(seed: number, round: number, place: Place, failover: boolean): KillPlan {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ Math.imul(round + 1, 0x85ebca6b));
  // Every seven rounds have each moment once, wherever they begin.
  const drawn = MOMENTS[(round + seed) % MOMENTS.length]!;
  const moment = drawn === 'failover' && !failover ? 'load' : drawn;
  const victim = random.pick(['primary', 'primary', 'secondary', 'both'] as const);
  const starts = moment === 'start-up' ? 1 + random.below(3) : random.below(4) === 0 ? 1 : 0;
  return {
    round,
    moment,
    victim: moment === 'failover' ? 'primary' : victim,
    at: random.next(),
    writes: 1 + random.below(place.blocks),
    starts: Array.from({ length: starts }, () => random.next()),
    promotes: random.below(2) === 0,
    first: random.pick(['primary', 'secondary'] as const),
  };
}

export function describePlan({ moment, victim, at, starts, first }: KillPlan): string {
  const who = victim === 'both' ? `both, the ${first} back first` : `the ${victim}`;
  const again = starts.length === 0 ? '' : `, and at ${starts.length} of its starts`;
  return `${moment} (at ${at.toFixed(2)}): killed ${who}${again}`;
}
