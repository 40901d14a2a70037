// JavaScript that is blocked or dies, over real devices: a process takes its own device over when its replication worker,
// which had it, died, and 30 s without an event loop pass under I/O. The rest makes no difference to the device.
import { ublkPlace } from '../../scenarios/place.js';
import { stuckScenarios } from '../../scenarios/stuck.js';

const blockMs = 30_000;

export default [
  ...stuckScenarios(ublkPlace, { blockMs, long: false }).filter(({ name }) =>
    name.includes("the primary's replication worker dies"),
  ),
  ...stuckScenarios(ublkPlace, { blockMs, long: true })
    .filter(({ name }) => /the secondary's .* dies|under protocol C|main thread is/.test(name))
    .map((each) => ({ ...each, long: true })),
];
