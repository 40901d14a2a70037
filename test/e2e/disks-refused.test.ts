import { diskScenarios } from '../scenarios/disks-refused.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('disks', diskScenarios(nbdPlace));
