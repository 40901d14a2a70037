// The beginning of the long run, test/long/kills.ts.
import { killScenario } from '../scenarios/kill-rounds.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('kills', [killScenario(nbdPlace, { kills: 6, rounds: 5, seed: 1 })]);
