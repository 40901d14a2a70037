import { nonsenseScenarios } from '../scenarios/nonsense.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('nonsense', nonsenseScenarios(nbdPlace));
