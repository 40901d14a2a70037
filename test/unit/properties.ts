/** How property tests run: the same inputs every time, or as TIDEMARK_SEED and TIDEMARK_RUNS say; a failure tells how to repeat it. */
import fc from 'fast-check';

const SEED = Number(process.env.TIDEMARK_SEED ?? 20261121);
/** Multiplies the runs of every property. */
const RUNS_FACTOR = Number(process.env.TIDEMARK_RUNS ?? 1);

export function options(runs: number): fc.Parameters<unknown> {
  return { seed: SEED, numRuns: runs * RUNS_FACTOR };
}

/** Whatever a script or a program can hand over: sparse lists, dates, maps, symbols, objects without a prototype ... */
export const anything = (depth = 3) =>
  fc.anything({
    maxDepth: depth,
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withSet: true,
    withSparseArray: true,
    withTypedArray: true,
    withUnicodeString: true,
  });
