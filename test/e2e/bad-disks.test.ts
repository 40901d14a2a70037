import { badDiskScenarios, fileLimits, fullFilesystemScenarios } from '../scenarios/bad-disks.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { runAsTests } from '../scenarios/uvu.ts';

runAsTests('bad disks', [
  ...badDiskScenarios(nbdPlace, fileLimits),
  ...fullFilesystemScenarios(nbdPlace),
]);
