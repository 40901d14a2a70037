import { nbdPlace } from '../scenarios/place.ts';
import { policyScenarios } from '../scenarios/policy.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('policy', policyScenarios(nbdPlace));
