// Made-up samples of a volume's status.
import type { NativeStatus } from '../../../lib/binding/native.ts';
import type { PeerLinkStatus, ReplicationStatus } from '../../../lib/replication/api.ts';

export const BETA_ID = 'b'.repeat(32);

export function nativeStatus(more: Partial<NativeStatus> = {}): NativeStatus {
  return {
    nowUs: 0,
    ageUs: 0,
    role: 'secondary',
    disk: 'UpToDate',
    connection: 'StandAlone',
    linkSlot: -1,
    peerRole: 'secondary',
    peerDisk: 'UpToDate',
    protocol: 'C',
    volumeBytes: 64 << 20,
    chunkBytes: 4096,
    extentBytes: 4 << 20,
    logExtents: 1237,
    logHot: 0,
    logTransactions: 0,
    current: '0000000000000001',
    flags: 0,
    staleMapBlocks: 0,
    suspended: false,
    suspendReason: '',
    diskReason: '',
    diskErrors: 0,
    remoteReads: 0,
    requestsInFlight: 0,
    inFlightWrites: 0,
    inFlightBytes: 0,
    reads: 0,
    writes: 0,
    flushes: 0,
    discards: 0,
    readBytes: 0,
    writtenBytes: 0,
    sentBytes: 0,
    receivedBytes: 0,
    resyncSentBytes: 0,
    resyncReceivedBytes: 0,
    resyncWireBytes: 0,
    markedByReplayChunks: 0,
    peers: [],
    resync: null,
    thread: { wakeups: 0, requestBatches: 0, linkSends: 0, linkReceives: 0 },
    device: '',
    ...more,
  };
}

export function peerLink(more: Partial<PeerLinkStatus> = {}): PeerLinkStatus {
  return {
    name: 'beta',
    connection: 'Unconnected',
    reason: '',
    nodeId: '',
    slot: -1,
    attempts: 0,
    reachable: null,
    ...more,
  };
}

/** Connected to beta, in slot 0. */
export function connectedStatus(more: Partial<NativeStatus> = {}): ReplicationStatus {
  return {
    native: nativeStatus({
      connection: 'Connected',
      linkSlot: 0,
      peers: [
        {
          slot: 0,
          nodeId: BETA_ID,
          name: 'beta',
          flags: 1,
          bitmapGeneration: '0000000000000000',
          dirtyChunks: 0,
          dirtyBytes: 0,
        },
      ],
      ...more,
    }),
    links: [peerLink({ connection: 'Connected', nodeId: BETA_ID, slot: 0, reachable: true })],
  };
}

export function apartStatus(more: Partial<NativeStatus> = {}): ReplicationStatus {
  return { native: nativeStatus(more), links: [peerLink({ attempts: 1, reachable: false })] };
}
