import { linkCutScenarios } from '../scenarios/link-cut.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('link cut', linkCutScenarios(nbdPlace));
