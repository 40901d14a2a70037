// `npm run test:stuck`: test/e2e/stuck.test.ts with threads that are blocked for 30 s, and more of the same.
import { nbdPlace } from '../scenarios/place.ts';
import { stuckScenarios } from '../scenarios/stuck.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('stuck JavaScript', stuckScenarios(nbdPlace, { blockMs: 30_000, long: true }));
