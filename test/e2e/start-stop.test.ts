import { nbdPlace } from '../scenarios/place.ts';
import { startStopScenarios } from '../scenarios/start-stop.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('start and stop', startStopScenarios(nbdPlace));
