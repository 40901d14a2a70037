// Rounds of kills as a scenario.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { Kills } from './kills.ts';
import type { Place } from './place.ts';

/** Daemons are killed in so many rounds, after each of which all is checked; the first that fails ends it. */
export function killScenario(
  place: Place,
  { rounds, seed, long = false }: { rounds: number; seed: number; long?: boolean },
): Scenario {
  return scenario(
    `${place.kind}: daemons are killed in ${rounds} rounds under fio and a ledger: nothing acknowledged is lost`,
    async (t) => {
      t.log(`seed ${seed}`);
      const kills = await Kills.form(t, place, { seed });
      for (let round = 0; round < rounds; round += 1) {
        try {
          t.log(`round ${round}: ${await kills.round(round)}`);
        } catch (error) {
          throw new Error(`seed ${seed}, round ${round}: ${(error as Error).message}`, {
            cause: error,
          });
        }
      }
      t.log(JSON.stringify(kills.totals));
      assert.ok(
        kills.totals.kills >= rounds / 2,
        `only ${kills.totals.kills} processes were killed`,
      );
      assert.ok(kills.totals.fioWritesVerified > 0, 'no write of fio was verified');
      await kills.end();
    },
    { timeoutMs: (rounds + 1) * place.scenarioMs, long },
  );
}
