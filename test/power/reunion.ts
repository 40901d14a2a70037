// Starts real daemons on what a power cut left of two disks, and lets them find each other.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster } from '../scenarios/cluster.ts';
import { nbdPlace, type Place } from '../scenarios/place.ts';
import { ScenarioContext } from '../vm/guest/support/scenario.ts';
import type { RecordingJson } from './recording.ts';

export interface Reunion {
  /** Bytes that were copied, in whichever direction. */
  copied: number;
}

/** Runs both nodes on the images until they are in step, and stops them. */
export async function reunite(
  { protocol, logExtents, metadata }: RecordingJson,
  images: readonly [string, string],
): Promise<Reunion> {
  const folder = mkdtempSync(join(tmpdir(), 'r-'));
  const abort = new AbortController();
  const t = new ScenarioContext('reunion', folder, abort.signal, join(folder, 'scratch'));
  const place: Place = { ...nbdPlace, disks: async () => [...images] };
  try {
    const cluster = await Cluster.prepare(t, place, {
      metadata,
      volume: { protocol, activityLogExtents: logExtents },
    });
    await Promise.all(cluster.nodes.map((node) => node.up()));
    await cluster.synced();
    const [one, other] = await Promise.all(cluster.nodes.map((node) => node.status()));
    await cluster.down();
    return { copied: one!.link.resync_sent_bytes + other!.link.resync_sent_bytes };
  } finally {
    abort.abort();
    const problems = await t.undoAll();
    rmSync(folder, { recursive: true, force: true });
    // biome-ignore lint/correctness/noUnsafeFinally: what was left behind matters more than why.
    if (problems.length > 0) throw new Error(problems.join('\n'));
  }
}
