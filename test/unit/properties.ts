/**
 * How property tests run: the same inputs every time, or as TIDEMARK_SEED and TIDEMARK_RUNS say, or for TIDEMARK_SECONDS each; a failure
 * tells how to repeat it.
 */
import fc from 'fast-check';

const SEED = Number(process.env.TIDEMARK_SEED ?? 20261121);
/** Multiplies the runs of every property. */
const RUNS_FACTOR = Number(process.env.TIDEMARK_RUNS ?? 1);
/** Of every property; 0: as many runs as it asks for. */
const SECONDS = Number(process.env.TIDEMARK_SECONDS ?? 0);

export function options(runs: number): fc.Parameters<unknown> {
  if (SECONDS === 0) return { seed: SEED, numRuns: runs * RUNS_FACTOR };
  return { seed: SEED, numRuns: 2 ** 31 - 1, interruptAfterTimeLimit: SECONDS * 1000 };
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
