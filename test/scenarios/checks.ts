// Checks that many scenarios make.
import { strict as assert } from 'node:assert';
import type { StatusJson, VolumeJson } from '../../lib/control/status.ts';
import type { ClusterNode } from './node.ts';

const VOLUME_TYPES = {
  name: 'string',
  role: 'string',
  disk: 'string',
  size_bytes: 'number',
  chunk_bytes: 'number',
} as const;
const PEER_TYPES = {
  name: 'string',
  connection: 'string',
  disk: 'string',
  dirty_chunks: 'number',
  dirty_bytes: 'number',
  in_flight_writes: 'number',
} as const;

function assertTypes(value: object, types: Readonly<Record<string, string>>, where: string): void {
  for (const [key, type] of Object.entries(types)) {
    assert.equal(typeof (value as Record<string, unknown>)[key], type, `${where}.${key}`);
  }
}

/** What `tidemark status --json` promises to every reader. */
export function assertStatusShape(status: StatusJson): void {
  assert.equal(typeof status.version, 'string');
  assert.ok(Array.isArray(status.volumes) && status.volumes.length > 0, 'volumes');
  for (const volume of status.volumes) {
    assertTypes(volume, VOLUME_TYPES, 'volume');
    assert.ok(volume.device === null || typeof volume.device === 'string', 'volume.device');
    assertTypes(volume.activity_log, { extents: 'number', hot: 'number' }, 'activity_log');
    for (const peer of volume.peers) {
      assertTypes(peer, PEER_TYPES, 'peer');
      assert.ok('resync' in peer, 'peer.resync');
      if (peer.resync !== null) {
        const numbers = {
          bytes_done: 'number',
          bytes_total: 'number',
          rate_bytes_per_s: 'number',
          unreadable_chunks: 'number',
        };
        assertTypes(peer.resync, numbers, 'resync');
        const { eta_ms } = peer.resync;
        assert.ok(eta_ms === null || typeof eta_ms === 'number', 'resync.eta_ms');
      }
    }
  }
}

/** The command line tells the same as the control socket, in the promised shape. The numbers are of now. */
export async function assertStatusJson(node: ClusterNode): Promise<VolumeJson> {
  const status = await node.statusJson();
  assertStatusShape(status);
  const volume = status.volumes.find(({ name }) => name === node.volume);
  assert.ok(volume, `no volume '${node.volume}'`);
  return volume;
}

/** A number that must lie in a range, told with its name when it does not. */
export function assertBetween(value: number, low: number, high: number, what: string): void {
  assert.ok(value >= low && value <= high, `${what} is ${value}; expected ${low}..${high}`);
}

/** How many chunks some blocks of 4 KiB lie in. */
export function chunksOf(blocks: readonly number[], chunkBytes: number): number {
  return new Set(blocks.map((block) => Math.floor((block * 4096) / chunkBytes))).size;
}
