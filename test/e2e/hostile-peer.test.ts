import { hostilePeerScenarios } from '../scenarios/hostile-peer.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('hostile-peer', hostilePeerScenarios(nbdPlace));
