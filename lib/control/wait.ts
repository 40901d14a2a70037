/** Waiting for a volume to reach a state, from outside the daemon. */

import { setTimeout as delay } from 'node:timers/promises';
import { TidemarkError } from '../binding/errors.ts';
import { isLinked } from '../policy/peer_view.ts';
import type { ControlClient } from './client.ts';
import type { StatusJson, VolumeJson } from './status.ts';

export const WAIT_GOALS = ['connected', 'synced', 'uptodate'] as const;
export type WaitGoal = (typeof WAIT_GOALS)[number];

/** Events come at once; between them the state is looked at so often. */
const POLL_MS = 200;

/** The meaning of each goal, for the help text. */
export const WAIT_MEANINGS: Record<WaitGoal, string> = {
  connected: 'the link to a peer is up, with or without a resync',
  synced: 'the link to a peer is up and no resync is left to do',
  uptodate: "this node's disk is UpToDate",
};

export function reached(volume: VolumeJson, goal: WaitGoal): boolean {
  if (goal === 'uptodate') return volume.disk === 'UpToDate';
  if (goal === 'connected') return volume.peers.some((peer) => isLinked(peer.connection));
  // Chunks of a write that failed stay marked, and are copied when the link is made the next time.
  return volume.peers.some(
    ({ connection, resync, dirty_chunks }) =>
      connection === 'Connected' && resync === null && dirty_chunks === 0,
  );
}

function describe(volume: VolumeJson): string {
  const peers = volume.peers.map((peer) => {
    const reason = peer.reason === '' ? '' : ` (${peer.reason})`;
    const behind = peer.dirty_chunks === 0 ? '' : `, ${peer.dirty_chunks} chunks out of sync`;
    return `${peer.name} ${peer.connection}${reason}${behind}`;
  });
  return `${volume.name} is ${volume.disk}, ${peers.join(', ') || 'no peers'}`;
}

/**
 * Resolves when every volume of the status has reached the goal, at this call or later: what a stuck daemon told before does not count.
 * @param volume only this one; without it, all of the daemon.
 * @param timeoutMs null: for ever.
 * @throws TidemarkError WAIT_TIMEOUT with the state at the end.
 */
export async function waitForGoal(
  client: ControlClient,
  goal: WaitGoal,
  volume: string | undefined,
  timeoutMs: number | null,
): Promise<void> {
  const beganMs = performance.now();
  const deadline = beganMs + (timeoutMs ?? Number.POSITIVE_INFINITY);
  let wake: () => void = () => undefined;
  await client.subscribe(() => wake());
  for (;;) {
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const params = volume === undefined ? {} : { volume };
    const waitedMs = performance.now() - beganMs;
    const { volumes } = await client.call<StatusJson>('status', params);
    const missing = volumes.filter(
      (entry) => entry.status_age_ms > waitedMs || !reached(entry, goal),
    );
    if (volumes.length > 0 && missing.length === 0) return;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) {
      const state = missing.map(describe).join('; ') || 'no volume is open';
      throw new TidemarkError('WAIT_TIMEOUT', `not ${goal} within ${timeoutMs} ms: ${state}`);
    }
    const ended = new AbortController();
    const { signal } = ended;
    const pause = delay(Math.min(POLL_MS, leftMs), undefined, { signal }).catch(() => undefined);
    await Promise.race([woken, pause]);
    ended.abort();
  }
}
