import { nbdPlace } from '../scenarios/place.ts';
import { secretScenarios } from '../scenarios/secret.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('secret', secretScenarios(nbdPlace));
