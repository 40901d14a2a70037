/** Status that is of no earlier than the question: a daemon tells what it knew last of a thread that does not answer. */
import { setTimeout as delay } from 'node:timers/promises';
import { TidemarkError } from '../binding/errors.ts';
import type { StatusJson } from './status.ts';

const AGAIN_MS = 20;

/**
 * Asks until every volume's status is of no earlier than this call.
 * @throws TidemarkError TIMEOUT when it stays older for longer than `patienceMs`.
 */
export async function statusOfNow(
  ask: () => Promise<StatusJson>,
  patienceMs: number,
): Promise<StatusJson> {
  const beganMs = performance.now();
  for (;;) {
    const waitedMs = performance.now() - beganMs;
    const status = await ask();
    const ageMs = Math.max(0, ...status.volumes.map((volume) => volume.status_age_ms));
    if (ageMs <= waitedMs) return status;
    if (waitedMs > patienceMs) {
      throw new TidemarkError(
        'TIMEOUT',
        `${status.node} tells no status newer than ${ageMs} ms, after ${patienceMs} ms`,
      );
    }
    await delay(AGAIN_MS);
  }
}
