/** Ends of things that hang together: each is tried, whatever became of the others. */

/** @throws the first error, when all were tried. */
export async function endAll(ends: ReadonlyArray<() => unknown>): Promise<void> {
  const errors: unknown[] = [];
  for (const end of ends) {
    try {
      await end();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}
