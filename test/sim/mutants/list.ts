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
