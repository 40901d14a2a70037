/** Figures against their targets. One that was not measured has failed. */

/** A target that is no ratio: a figure of its own that may not be larger. */
export interface Limit {
  what: string;
  /** null: not measured. */
  value: number | null;
  at_most: number;
}

/** What measures them. */
export const LIMIT_PARTS = ['micro', 'scale'] as const;

/** One target, judged. */
export interface Check {
  what: string;
  passed: boolean;
  /** For people. */
  found: string;
  wanted: string;
}

export function checkLimit({ what, value, at_most }: Limit): Check {
  return {
    what,
    passed: value !== null && value <= at_most,
    found: value === null ? 'not measured' : String(Number(value.toFixed(3))),
    wanted: `at most ${at_most}`,
  };
}

/** One line each, and 'N passed, N failed' last. */
export function checkLines(checks: readonly Check[]): string[] {
  const lines = checks.map(
    ({ what, passed, found, wanted }) => `${passed ? 'ok  ' : 'FAIL'} ${what}: ${found}, ${wanted}`,
  );
  const passed = checks.filter((check) => check.passed).length;
  return [...lines, `${passed} passed, ${checks.length - passed} failed`];
}

/** Prints the lines; false when there is nothing, or something has failed. */
export function tellChecks(checks: readonly Check[]): boolean {
  for (const line of checkLines(checks)) console.log(line);
  return checks.length > 0 && checks.every(({ passed }) => passed);
}
