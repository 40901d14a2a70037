/** A configured peer as the native status and the link's state show it together. */

import type { NativeStatus } from '../binding/native.ts';
import type { PeerLinkStatus } from '../replication/api.ts';

const LINKED = new Set<PeerLinkStatus['connection']>([
  'ExchangingMaps',
  'SyncSource',
  'SyncTarget',
  'Connected',
]);

export interface PeerView {
  name: string;
  connection: PeerLinkStatus['connection'];
  /** Frames flow. */
  connected: boolean;
  /** True or false after an attempt, null before. */
  reachable: boolean | null;
  /** 'Unknown' while not connected, as DRBD says. */
  role: 'Primary' | 'Secondary' | 'Unknown';
  /** 'DUnknown' while not connected. */
  disk: string;
  dirtyChunks: number;
  dirtyBytes: number;
}

export function isLinked(connection: PeerLinkStatus['connection']): boolean {
  return LINKED.has(connection);
}

export function peerView(link: PeerLinkStatus, native: NativeStatus): PeerView {
  const slot = native.peers.find((peer) => peer.slot === link.slot);
  const connected = isLinked(link.connection);
  const volumeChunks = Math.ceil(native.volumeBytes / native.chunkBytes);
  return {
    name: link.name,
    connection: link.connection,
    connected,
    reachable: link.reachable,
    role: connected ? (native.peerRole === 'primary' ? 'Primary' : 'Secondary') : 'Unknown',
    disk: connected ? native.peerDisk : 'DUnknown',
    // A peer that was never met has nothing of the volume (R8: a slot never used is 'all dirty').
    dirtyChunks: slot?.dirtyChunks ?? volumeChunks,
    dirtyBytes: slot?.dirtyBytes ?? native.volumeBytes,
  };
}
