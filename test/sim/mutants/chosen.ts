/**
 * The mutant that the TypeScript of this process runs with. The simulator's copies of lib/ import this module; the native side has a choice
 * of its own (`setMutant` of test/sim/machine.ts).
 */
import { MUTANTS } from './list.ts';

let chosen = '';

/** '' for none. @throws RangeError for a name that is not in the list. */
export function chooseMutant(name: string): void {
  if (name !== '' && !MUTANTS.some((each) => each.name === name)) {
    throw new RangeError(`no mutant '${name}': see test/sim/mutants/list.ts`);
  }
  chosen = name;
}

export function isMutant(name: string): boolean {
  return chosen === name;
}
