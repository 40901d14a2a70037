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

/** One for each check, of those that the first seeds of their theme catch: that the checks work is shown by every run of the tests. */
export const QUICK: readonly string[] = [
  'data-before-log',
  'replay-skipped',
  'suspended-requests-go-on',
  'no-generation-apart',
  'idle-before-writes-end',
  'inconsistent-source',
  'fua-not-durable',
  'target-map-ignored',
  'overlapping-writes-together',
  'split-brain-as-resync',
  'completion-lost',
  'promote-without-force',
  'steps-down-without-generation',
  'window-ignored',
];
