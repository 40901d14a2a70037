// Daemons are killed under fio over real devices, which their successors take over.
import { killScenario } from '../../scenarios/kill-rounds.js';
import { ublkPlace } from '../../scenarios/place.js';

export default killScenario(ublkPlace, { kills: 30, rounds: 7, seed: 3687, long: true });
