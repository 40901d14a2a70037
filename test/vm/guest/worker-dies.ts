// A process takes its own device over: its replication worker, which had it, died.
import { ublkPlace } from '../../scenarios/place.js';
import { stuckScenarios } from '../../scenarios/stuck.js';

export default stuckScenarios(ublkPlace, { blockMs: 0, long: false }).filter(({ name }) =>
  name.includes("the primary's replication worker dies"),
);
