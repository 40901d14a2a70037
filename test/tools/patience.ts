/**
 * How many times longer than usual things may take: 1, or what TIDEMARK_TEST_PATIENCE says. Under a sanitizer every
 * program is slower; what a test waits for must be the same.
 */
export const PATIENCE = patience(process.env.TIDEMARK_TEST_PATIENCE ?? '1');

/** How many times more memory than usual a process may take: under the thread sanitizer a byte has more than three beside it. */
export const SHADOWS = PATIENCE === 1 ? 1 : 4;

function patience(text: string): number {
  const value = Number(text);
  if (text !== '' && value >= 1 && value <= 100) return value;
  throw new Error(`TIDEMARK_TEST_PATIENCE is '${text}': expected a number from 1 to 100`);
}
