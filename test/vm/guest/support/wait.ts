// Waits for something to become true, by asking again until a deadline.
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE } from '../../../tools/patience.ts';
import { messageOf, type ScenarioContext } from './scenario.js';

export interface WaitOptions {
  timeoutMs?: number;
  intervalMs?: number;
}

const defaultTimeoutMs = 30_000 * PATIENCE;
const defaultIntervalMs = 50;

/**
 * Returns the first value that is neither undefined, null nor false. An exception of `probe` counts as 'not
 * yet' and is told when time runs out.
 */
export async function waitFor<T>(
  t: ScenarioContext,
  what: string,
  probe: () => Promise<T> | T,
  options: WaitOptions = {},
): Promise<NonNullable<T>> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  const deadline = performance.now() + timeoutMs;
  let last = '';
  do {
    try {
      const value = await probe();
      if (value !== undefined && value !== null && value !== false) return value;
      last = String(value);
    } catch (error) {
      last = messageOf(error);
    }
    if (t.signal.aborted) throw new Error(`waiting for ${what}: scenario ended`);
    await sleep(options.intervalMs ?? defaultIntervalMs);
  } while (performance.now() < deadline);
  throw new Error(`waited ${timeoutMs} ms for ${what}; last answer: ${last}`);
}
