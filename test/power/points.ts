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

/** An entry of the log that says what is durable from then on. */
export function isMark({ flags }: LogEntry): boolean {
  return (flags & (LogFlag.flush | LogFlag.fua)) !== 0;
}

/**
 * Behind every mark from entry `first` on, and at the end of the log. And between them at most `betweenMax`, chosen by the
 * seed out of: right before each mark, and one entry at random between every two of them. In order.
 */
export function choosePoints(
  entries: readonly LogEntry[],
  first: number,
  betweenMax: number,
  seed: number,
): Point[] {
  const random = new Random(seed);
  const points: Point[] = [];
  const between: Point[] = [];
  let from = first;
  for (const entry of entries) {
    const { index } = entry;
    if (index < first || !isMark(entry)) continue;
    const apart = index - from;
    if (apart > 1) between.push({ after: from + random.below(apart), seed: seedOf(random) });
    if (apart > 0) between.push({ after: index - 1, seed: seedOf(random) });
    points.push({ after: index, seed: 0 });
    from = index;
  }
  const last = entries.length - 1;
  if (points.at(-1)?.after !== last) points.push({ after: last, seed: 0 });
  points.push(...drawn(between, betweenMax, random));
  return points.sort((one, other) => one.after - other.after || other.seed - one.seed);
}

/** So many of a list, by chance. */
function drawn<T>(list: readonly T[], count: number, random: Random): T[] {
  const left = [...list];
  for (let at = 0; at < Math.min(count, left.length); at += 1) {
    const other = at + random.below(left.length - at);
    [left[at], left[other]] = [left[other]!, left[at]!];
  }
  return left.slice(0, count);
}

function seedOf(random: Random): number {
  return 1 + random.below(0x7fffffff);
}
