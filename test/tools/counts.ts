// Reads how many tests passed and failed from what a test runner printed.

/** The result of one suite, or of one run of a test runner. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Reads one runner's summary from its output; null if there is none (it crashed, or printed nothing). */
export type CountsReader = (output: string) => Counts | null;

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character starts a colour
const COLOURS = /\x1b\[[0-9;]*m/g;

function lastMatch(output: string, pattern: RegExp): RegExpMatchArray | null {
  let last: RegExpMatchArray | null = null;
  for (const match of output.replace(COLOURS, '').matchAll(pattern)) last = match;
  return last;
}

/** uvu: the lines Total, Passed and Skipped at the end. What is neither passed nor skipped failed. */
export const readUvuCounts: CountsReader = (output) => {
  const match = lastMatch(output, /^ *Total: +(\d+)\n *Passed: +(\d+)\n *Skipped: +(\d+)$/gm);
  if (!match) return null;
  const [total, passed, skipped] = match.slice(1).map(Number) as [number, number, number];
  // uvu's total leaves out the skipped ones.
  return { passed, failed: total - passed, skipped };
};

/** doctest: its summary of test cases, not the one of assertions. */
export const readDoctestCounts: CountsReader = (output) => {
  const match = lastMatch(
    output,
    /^\[doctest\] test cases: +\d+ \| +(\d+) passed \| +(\d+) failed \|(?: +(\d+) skipped)?/gm,
  );
  if (!match) return null;
  return { passed: Number(match[1]), failed: Number(match[2]), skipped: Number(match[3] ?? 0) };
};

/** Our own runners: the line 'N passed, N failed', the last one of several. */
export const readPlainCounts: CountsReader = (output) => {
  const match = lastMatch(output, /^(\d+) passed, (\d+) failed$/gm);
  if (!match) return null;
  return { passed: Number(match[1]), failed: Number(match[2]), skipped: 0 };
};
