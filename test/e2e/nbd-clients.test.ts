import { nbdClientScenarios } from '../scenarios/nbd-clients.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('nbd clients', nbdClientScenarios());
