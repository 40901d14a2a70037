/** Options of the command lines of all benchmarks. */

/** @throws Error unless `text` is an integer from 1 to `max`. */
export function integer(text: string, name: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new Error(`--${name}: '${text}' is not an integer from 1 to ${max}`);
  }
  return value;
}
