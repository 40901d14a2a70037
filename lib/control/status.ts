/** `tidemark status --json`: one shape for the CLI, tests and whatever else reads it. Keys carry their units. */

import { formatAddress } from '../config/address.ts';
import type { VolumeConfig } from '../config/resolved.ts';
import type { PolicyName } from '../policy/messages.ts';
import { isLinked, peerView } from '../policy/peer_view.ts';
import type { PeerLinkStatus, PolicyValues, ReplicationStatus } from '../replication/api.ts';
import type { ResyncMeter } from './resync_meter.ts';

export interface ResyncJson {
  /** This node is: 'source' or 'target'. */
  side: 'source' | 'target';
  bytes_done: number;
  bytes_total: number;
  rate_bytes_per_s: number;
  /** null while nothing moves. */
  eta_ms: number | null;
  /** Source: chunks of the rest that cannot be read here. */
  unreadable_chunks: number;
}

export interface PeerJson {
  name: string;
  address: string;
  connection: PeerLinkStatus['connection'];
  /** Why it is not connected; '' when it is. */
  reason: string;
  role: 'Primary' | 'Secondary' | 'Unknown';
  disk: string;
  dirty_chunks: number;
  dirty_bytes: number;
  resync: ResyncJson | null;
  in_flight_writes: number;
  in_flight_bytes: number;
  attempts: number;
  /** 32 hex digits; null while never met. */
  node_id: string | null;
}

export interface VolumeJson {
  name: string;
  node: string;
  role: 'Primary' | 'Secondary';
  disk: string;
  /** The error that the disk failed with; '' unless it did. */
  disk_reason: string;
  /** Path of the block device or NBD socket that is served now; null: none. */
  device: string | null;
  protocol: 'A' | 'C';
  /** What an error of the disk does. */
  on_io_error: 'detach' | 'pass-on' | 'suspend';
  size_bytes: number;
  chunk_bytes: number;
  /** I/O waits, and why. */
  suspended: boolean;
  suspend_reason: string;
  /** How old all this is: not 0 only while the replication worker, or the volume's own thread, does not answer. */
  status_age_ms: number;
  generations: { current: string };
  activity_log: { extents: number; hot: number; extent_bytes: number; transactions: number };
  io: {
    reads: number;
    writes: number;
    flushes: number;
    discards: number;
    read_bytes: number;
    written_bytes: number;
    /** I/O on the disk or its metadata that failed, since the start. */
    disk_errors: number;
    /** Reads that the peer answered, for want of a disk here. */
    remote_reads: number;
    requests_in_flight: number;
  };
  link: {
    sent_bytes: number;
    received_bytes: number;
    resync_sent_bytes: number;
    resync_received_bytes: number;
    resync_wire_bytes: number;
  };
  /** How the volume's thread has worked since the volume was opened; requests, or bytes of the link, divided by these are the sizes of its batches. */
  thread: {
    /** How often it slept and was woken. */
    wakeups: number;
    /** Turns of its loop that took requests of the device. */
    request_batches: number;
    /** Sends and receives that moved bytes of the link; 0 while JavaScript moves them, for want of a file descriptor. */
    link_sends: number;
    link_receives: number;
  };
  /** What the last start marked because it was in the activity log when the daemon before it died. */
  replay_marked_chunks: number;
  /** Map blocks whose clears are not yet on disk. */
  stale_map_blocks: number;
  policy: {
    window_writes: number;
    window_bytes: number;
    flush_interval_ms: number;
    selected_peers: string[];
    /** The last failure of a policy function, by policy. */
    failures: Partial<Record<PolicyName, string>>;
  };
  peers: PeerJson[];
}

export interface StatusJson {
  /** Of tidemark. */
  version: string;
  node: string;
  pid: number;
  replication: ReplicationJson;
  volumes: VolumeJson[];
}

/** The worker that has the links. */
export interface ReplicationJson {
  /** What is wrong with it, for people; '' when nothing is. */
  problem: string;
  /** How often it died and was started again since the daemon started, and of what the last time. */
  restarts: number;
  last_death: string;
}

export interface StatusSource {
  config: VolumeConfig;
  status: ReplicationStatus;
  ageMs: number;
  values: PolicyValues;
  failures: Partial<Record<PolicyName, string>>;
  meter: ResyncMeter;
  /** Why recovery has not let I/O go on; '' when it has. */
  recovery: string;
}

function resyncJson(source: StatusSource): ResyncJson | null {
  const { resync } = source.status.native;
  if (resync === null) return null;
  const rate = source.meter.rateBytesPerS;
  const left = Math.max(0, resync.bytesTotal - resync.bytesDone);
  return {
    side: resync.target ? 'target' : 'source',
    bytes_done: resync.bytesDone,
    bytes_total: resync.bytesTotal,
    rate_bytes_per_s: Math.round(rate),
    eta_ms: rate > 0 ? Math.round((left / rate) * 1000) : null,
    unreadable_chunks: resync.unreadableChunks,
  };
}

function peerJson(source: StatusSource, link: PeerLinkStatus): PeerJson {
  const { native } = source.status;
  const view = peerView(link, native);
  const linked = isLinked(link.connection);
  const configured = source.config.peers.find((peer) => peer.name === link.name);
  return {
    name: link.name,
    address: configured ? formatAddress(configured.address) : '',
    connection: link.connection,
    reason: link.reason,
    role: view.role,
    disk: view.disk,
    dirty_chunks: view.dirtyChunks,
    dirty_bytes: view.dirtyBytes,
    resync: linked ? resyncJson(source) : null,
    in_flight_writes: linked ? native.inFlightWrites : 0,
    in_flight_bytes: linked ? native.inFlightBytes : 0,
    attempts: link.attempts,
    node_id: link.nodeId === '' ? null : link.nodeId,
  };
}

export function volumeJson(source: StatusSource): VolumeJson {
  const { config, status, values } = source;
  const { native } = status;
  return {
    name: config.name,
    node: config.local.name,
    role: native.role === 'primary' ? 'Primary' : 'Secondary',
    disk: native.disk,
    disk_reason: native.diskReason,
    device: native.device === '' ? null : native.device,
    protocol: config.protocol,
    on_io_error: config.onIoError,
    size_bytes: native.volumeBytes,
    chunk_bytes: native.chunkBytes,
    suspended: native.suspended,
    suspend_reason: native.suspended ? source.recovery || native.suspendReason : '',
    status_age_ms: source.ageMs,
    generations: { current: native.current },
    activity_log: {
      extents: native.logExtents,
      hot: native.logHot,
      extent_bytes: native.extentBytes,
      transactions: native.logTransactions,
    },
    io: {
      reads: native.reads,
      writes: native.writes,
      flushes: native.flushes,
      discards: native.discards,
      read_bytes: native.readBytes,
      written_bytes: native.writtenBytes,
      disk_errors: native.diskErrors,
      remote_reads: native.remoteReads,
      requests_in_flight: native.requestsInFlight,
    },
    link: {
      sent_bytes: native.sentBytes,
      received_bytes: native.receivedBytes,
      resync_sent_bytes: native.resyncSentBytes,
      resync_received_bytes: native.resyncReceivedBytes,
      resync_wire_bytes: native.resyncWireBytes,
    },
    thread: {
      wakeups: native.thread.wakeups,
      request_batches: native.thread.requestBatches,
      link_sends: native.thread.linkSends,
      link_receives: native.thread.linkReceives,
    },
    replay_marked_chunks: native.markedByReplayChunks,
    stale_map_blocks: native.staleMapBlocks,
    policy: {
      window_writes: values.windowWrites,
      window_bytes: values.windowBytes,
      flush_interval_ms: values.flushIntervalMs,
      selected_peers: values.selectedPeers,
      failures: source.failures,
    },
    peers: status.links.map((link) => peerJson(source, link)),
  };
}
