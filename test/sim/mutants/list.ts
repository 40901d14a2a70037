/** All mutants, by the part of DESIGN's rules that they break. */
import { APART } from './apart.ts';
import { DECIDING } from './deciding.ts';
import { DURABILITY } from './durability.ts';
import { FAILING } from './failing.ts';
import type { Mutant } from './mutant.ts';
import { RESYNC } from './resync.ts';
import { ROLES } from './roles.ts';
import { STARTING } from './starting.ts';
import { WRITING } from './writing.ts';

export const MUTANTS: readonly Mutant[] = [
  ...WRITING,
  ...APART,
  ...RESYNC,
  ...DURABILITY,
  ...STARTING,
  ...ROLES,
  ...DECIDING,
  ...FAILING,
];

/**
 * Mutants that a few seeds of their theme catch, and the check that does: every run of the tests shows that those checks work. A change of the
 * simulator may move a mutant to another check: then the list follows.
 */
export const QUICK: ReadonlyMap<string, string> = new Map([
  ['data-before-log', 'uncovered'],
  ['replay-skipped', 'uncovered-after-crash'],
  ['suspended-requests-go-on', 'recovery'],
  ['no-generation-apart', 'apart'],
  ['idle-before-writes-end', 'old-link'],
  ['inconsistent-source', 'in-step'],
  ['fua-not-durable', 'promise'],
  ['target-map-ignored', 'settle'],
  ['overlapping-writes-together', 'exception'],
  ['steps-down-without-generation', 'overwritten'],
  ['completion-lost', 'late'],
  ['window-ignored', 'bounds'],
  ['discard-leaves-its-edges', 'read'],
  ['suspend-passes-errors-on', 'suspended'],
  ['epoch-acked-before-writes', 'end'],
  ['demote-without-draining', 'demotion'],
  ['role-change-leaves-bits-in-ram', 'stop'],
  ['attach-without-locks', 'content'],
  ['crashed-primary-forgotten', 'last-primary'],
  ['outdated-not-recorded', 'outdated'],
]);
