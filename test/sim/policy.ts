/** The user's policy functions, called in process: they answer, throw, or never answer, as chance has it. */
import { TidemarkError } from '../../lib/binding/errors.ts';
import type { PolicyCaller } from '../../lib/policy/evaluator.ts';
import type { Clock } from '../../lib/replication/clock.ts';
import type { PolicyPlan } from './plan.ts';
import type { Random } from './random.ts';

const WINDOWS = [
  { writes: 1, bytes: 4096 },
  { writes: 3, bytes: 1 << 20 },
  { writes: 64, bytes: 64 << 10 },
  { writes: 2048, bytes: 64 << 20 },
];
const FLUSH_INTERVALS_MS = [10, 30, 100, 1000];

export interface PolicyMood {
  /** Functions answer well from now on, and select everybody. */
  calm: boolean;
}

export function policyCaller(
  plan: PolicyPlan,
  random: Random,
  clock: Clock,
  mood: PolicyMood,
): PolicyCaller {
  const answer = (policy: string, facts: unknown): unknown => {
    if (policy === 'asyncWindow') return random.pick(WINDOWS);
    if (policy === 'flushInterval') return random.pick(FLUSH_INTERVALS_MS);
    const peers = (facts as { peers: Array<{ name: string }> }).peers.map(({ name }) => name);
    return !mood.calm && random.oneIn(plan.nobodyOneIn) ? [] : peers;
  };
  const call = (volume: string, policy: string, facts: unknown, deadlineMs: number) =>
    new Promise((resolve, reject) => {
      const where = `${policy} of ${volume}`;
      if (!mood.calm && random.oneIn(plan.hangsOneIn)) {
        clock.after(deadlineMs, () =>
          reject(new TidemarkError('POLICY_DEADLINE', `${where}: no answer in ${deadlineMs} ms`)),
        );
      } else if (!mood.calm && random.oneIn(plan.throwsOneIn)) {
        clock.after(random.between(0, 5), () =>
          reject(new TidemarkError('POLICY_FAILED', `${where}: threw an exception`)),
        );
      } else {
        const result = answer(policy, facts);
        clock.after(random.between(0, 20), () => resolve(result));
      }
    });
  return call as PolicyCaller;
}
