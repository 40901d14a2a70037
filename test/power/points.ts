// Where in a log the power is cut.
import { type LogEntry, LogFlag } from './log_writes.ts';
import { Random } from './numbers.ts';

/** A cut behind entry `after`. `seed` decides what of the caches is left: 0 nothing. */
export interface Point {
  after: number;
  seed: number;
}

export function pointText({ after, seed }: Point): string {
  return `${after}:${seed}`;
}

export function parsePoint(text: string): Point {
  const match = /^(\d+):(\d+)$/.exec(text);
  if (match === null) throw new Error(`'${text}' is no point: expected ENTRY:SEED`);
  return { after: Number(match[1]), seed: Number(match[2]) };
}

/**
 * Behind each flush and each write with FUA from entry `first` on, right before each flush, and at one entry at random
 * between every two of them; of all these `max`, chosen by the seed. In order.
 */
export function choosePoints(
  entries: readonly LogEntry[],
  first: number,
  max: number,
  seed: number,
): Point[] {
  const random = new Random(seed);
  const points: Point[] = [];
  let from = first;
  for (const { index, flags } of entries) {
    if (index < first || (flags & (LogFlag.flush | LogFlag.fua)) === 0) continue;
    const between = index - from;
    if (between > 1) points.push({ after: from + random.below(between), seed: seedOf(random) });
    if (between > 0) points.push({ after: index - 1, seed: seedOf(random) });
    points.push({ after: index, seed: 0 });
    from = index;
  }
  const last = entries.length - 1;
  while (points.length > max) {
    // The end stays.
    points.splice(random.below(points.length), 1);
  }
  return [...points.filter(({ after }) => after !== last), { after: last, seed: 0 }];
}

function seedOf(random: Random): number {
  return 1 + random.below(0x7fffffff);
}
