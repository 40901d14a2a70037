// The scenarios that also run over NBD outside, here on real devices and RAM disks.
import { crashScenarios } from '../../scenarios/crash.js';
import { diskScenarios } from '../../scenarios/disks-refused.js';
import { linkCutScenarios } from '../../scenarios/link-cut.js';
import { slowLinkScenarios } from '../../scenarios/link-slow.js';
import { ublkPlace } from '../../scenarios/place.js';
import { roleScenarios } from '../../scenarios/roles.js';
import { startStopScenarios } from '../../scenarios/start-stop.js';

/** What is below or beside the device, and the same over NBD: each would cost the machine most of a minute. */
const outsideOnly =
  /while its resync runs|resync that is cut off|chunks of 64 KiB|fio writes and|idle link|protocol [AC]|invalidated|disconnected peer|of a running daemon|carries something|'internal-start'|'offset'|milestone|--detach|while the link is cut:|stops under load|secondary first/;

export default [
  ...linkCutScenarios(ublkPlace),
  ...slowLinkScenarios(ublkPlace),
  ...crashScenarios(ublkPlace),
  ...roleScenarios(ublkPlace),
  ...diskScenarios(ublkPlace),
  ...startStopScenarios(ublkPlace),
].filter(({ name }) => !outsideOnly.test(name));
