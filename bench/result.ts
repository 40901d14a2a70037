/** A whole run as it is written to and read from JSON. Keys carry their units. */

import { readFileSync } from 'node:fs';
import type { Limit } from './checks.ts';
import type { Sample } from './figures.ts';
import type { Where } from './place.ts';
import type { Missing } from './rounds.ts';

export const RESULT_FORMAT = 1;

export interface Result {
  format: typeof RESULT_FORMAT;
  where: Where;
  /** ISO 8601 */
  began: string;
  elapsed_s: number;
  kernel: string;
  cpus: number;
  node: string;
  rounds: number;
  seconds_each: number;
  /** How busy the machine was, all processors together, in the seconds before: 0..1. */
  busy_before: number;
  /**
   * Of the virtual machine: for how much of the run its processors waited for those of the host, 0..1 of all of them. null: unknown, or
   * measured without it.
   */
  waited: number | null;
  /** perf watched, and took time. Older files do not say so. */
  profiled?: boolean;
  /** Names for people. */
  titles: { subjects: Record<string, string>; works: Record<string, string> };
  samples: Sample[];
  /** Targets that are no ratios; none in the virtual machine, where they would tell of the emulator. */
  limits: Limit[];
  missing: Missing[];
}

/** Beyond this share of its processors at other work, a machine's figures are not to be quoted. */
export const QUIET_SHARE_MAX = 0.05;

export function isQuiet({ busy_before, waited }: Pick<Result, 'busy_before' | 'waited'>): boolean {
  return busy_before <= QUIET_SHARE_MAX && (waited ?? 0) <= QUIET_SHARE_MAX;
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** Why figures of a machine so busy are not for a document; null: they are. */
export function tooBusy(busy: number, waited: number | null = null): string | null {
  const max = `at most ${percent(QUIET_SHARE_MAX)} are allowed`;
  if (busy > QUIET_SHARE_MAX) {
    return `the machine was ${percent(busy)} busy with other things before the run; ${max}`;
  }
  if (waited === null || waited <= QUIET_SHARE_MAX) return null;
  return `the virtual machine waited for processors for ${percent(waited)} of the run; ${max}`;
}

/** @throws Error when the file is not such a result. */
export function readResult(path: string): Result {
  const result = JSON.parse(readFileSync(path, 'utf8')) as Partial<Result>;
  if (
    result.format !== RESULT_FORMAT ||
    !Array.isArray(result.samples) ||
    !Array.isArray(result.limits)
  ) {
    throw new Error(
      `${path}: not a result of the benchmark in format ${RESULT_FORMAT} (format: ${result.format})`,
    );
  }
  return result as Result;
}
