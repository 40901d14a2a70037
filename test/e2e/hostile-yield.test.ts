import { hostileYieldScenarios } from '../scenarios/hostile-yield.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('yielding', hostileYieldScenarios(nbdPlace));
