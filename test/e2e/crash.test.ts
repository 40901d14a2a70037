import { crashScenarios } from '../scenarios/crash.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('crash', crashScenarios(nbdPlace));
