// Rounds of kills as a scenario.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { describeTotals, missedResync, unproved } from './kill-totals.ts';
import { Kills } from './kills.ts';
import type { Place } from './place.ts';

export interface KillRounds {
  /** At least so many processes are killed, in at least so many rounds. */
  kills: number;
  rounds: number;
  seed: number;
  long?: boolean;
}

/** Of rounds that are many enough, one in seven tries to hit a resync: five tries at most. */
const ROUNDS_FOR_RESYNC = 35;

/** After each round all is checked; the first one that fails ends it. */
export function killScenario(place: Place, options: KillRounds): Scenario {
  const { kills: wanted, rounds, seed, long = false } = options;
  return scenario(
    `${place.kind}: daemons are killed ${wanted} times under fio and a ledger: nothing acknowledged is lost`,
    async (t) => {
      t.log(`seed ${seed}`);
      const kills = await Kills.form(t, place, { seed });
      const goesOn = (round: number) =>
        round < rounds ||
        kills.totals.kills < wanted ||
        (missedResync(kills.totals) && round < ROUNDS_FOR_RESYNC);
      for (let round = 0; goesOn(round); round += 1) {
        try {
          t.log(`round ${round}: ${await kills.round(round)}`);
        } catch (error) {
          throw new Error(`seed ${seed}, round ${round}: ${(error as Error).message}`, {
            cause: error,
          });
        }
      }
      t.log(describeTotals(kills.totals));
      await kills.end();
      assert.deepEqual(unproved(kills.totals), [], `seed ${seed}`);
    },
    { timeoutMs: (wanted + 2) * place.scenarioMs, long },
  );
}
