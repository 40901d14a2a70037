/** A small seeded generator (mulberry32), so that a failing test can be run again from the seed that it prints. */
export interface Random {
  readonly seed: number;
  /** 0 <= value < 1 */
  next(): number;
  below(limit: number): number;
  pick<T>(values: readonly T[]): T;
}

export function seededRandom(seed = (Date.now() ^ (process.pid << 16)) >>> 0): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number) => Math.floor(next() * limit);
  return { seed, next, below, pick: (values) => values[below(values.length)]! };
}
