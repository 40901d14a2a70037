/** The targets that hold for any place and are no ratios: memory and time of the core alone, and of large volumes. */

import { LIMIT_PARTS, type Limit } from './checks.ts';
import { LIMITED as LIMITED_PARTS, measureMicro, microLimits } from './micro.ts';
import { reasonOf } from './reason.ts';
import { isWanted, type Missing } from './rounds.ts';
import { DEFAULTS, measureScale, scaleLimits } from './scale.ts';

const MICRO_SECONDS = 0.1;

const PARTS = {
  /** Only what has a target. */
  micro: () => microLimits(measureMicro(LIMITED_PARTS, MICRO_SECONDS)),
  scale: async () => scaleLimits(await measureScale(DEFAULTS), DEFAULTS.shape),
};

/** Without figures: all have failed. */
const UNMEASURED = {
  micro: microLimits([]),
  scale: scaleLimits([], DEFAULTS.shape),
};

/** @param only as for the sections; the names are any/micro and any/scale */
export async function measureLimits(
  only: readonly string[],
  note: (text: string) => void,
): Promise<{ limits: Limit[]; missing: Missing[] }> {
  const limits: Limit[] = [];
  const missing: Missing[] = [];
  for (const part of LIMIT_PARTS) {
    if (!isWanted(only, `any/${part}`)) continue;
    note(`any: ${part}`);
    try {
      limits.push(...(await PARTS[part]()));
    } catch (error) {
      const reason = reasonOf(error);
      note(`${part} is missing: ${reason}`);
      missing.push({ subject: part, work: null, reason });
      limits.push(...UNMEASURED[part]);
    }
  }
  return { limits, missing };
}
