import { nbdPlace } from '../scenarios/place.ts';
import { stuckScenarios } from '../scenarios/stuck.ts';
import { runAsTests } from '../scenarios/uvu.ts';
import { PATIENCE } from '../tools/patience.ts';

runAsTests(
  'stuck JavaScript',
  stuckScenarios(nbdPlace, { blockMs: 11_000 * PATIENCE, long: false }),
);
