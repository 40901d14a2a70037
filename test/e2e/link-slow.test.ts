import { slowLinkScenarios } from '../scenarios/link-slow.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('link slow', slowLinkScenarios(nbdPlace));
