import { nbdPlace } from '../scenarios/place.ts';
import { roleScenarios } from '../scenarios/roles.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('roles', roleScenarios(nbdPlace));
