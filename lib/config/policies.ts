/**
 * The policies that a config script sets: each a value, or a function of measured facts. Functions run in a worker
 * of their own, have a deadline (`policyDeadline`), may be async, and touch no I/O: while one is slow, wrong or
 * broken, its last good answer stays in use (before the first, the default).
 */

import type { Duration, Size } from './types.ts';

/** Facts common to all policies of a volume. */
export interface VolumeFacts {
  /** The volume's name. */
  volume: string;
  /** This node's name. */
  node: string;
  role: 'Primary' | 'Secondary';
}

export interface AsyncWindowFacts extends VolumeFacts {
  /** The peer that the link leads to; null without a link. */
  peer: string | null;
  protocol: 'A' | 'C';
  /** Writes sent and not yet known durable on the peer, now. */
  inFlightWrites: number;
  /** Their bytes. */
  inFlightBytes: number;
  /** The window in use. */
  windowWrites: number;
  windowBytes: number;
  /** Application writes a second, over the last sample. */
  writesPerS: number;
  /** Bytes sent to the peer a second, over the last sample: writes and resync. */
  throughputBytesPerS: number;
  /**
   * How long a write takes to be acknowledged: mean writes in flight divided by writes a second (Little's law), over
   * the last sample. null while nothing is written.
   */
  ackLatencyMs: number | null;
  /** A resync is under way. */
  resyncing: boolean;
}

export interface FlushIntervalFacts extends VolumeFacts {
  /** Extents in the activity log now. */
  hotExtents: number;
  /** Extents that it can hold. */
  extents: number;
  extentBytes: number;
  /** Chunks that differ, of the peer with the most. */
  dirtyChunks: number;
  dirtyBytes: number;
  /** Time since the last application write that was seen. */
  idleMs: number;
  writesPerS: number;
  writtenBytesPerS: number;
  /** The interval in use. */
  flushIntervalMs: number;
}

export interface PeerFacts {
  name: string;
  /** The link to it is up. */
  connected: boolean;
  /** Its disk, as it said last: 'UpToDate', 'Inconsistent'...; 'DUnknown' while not connected. */
  disk: string;
  /** What it lacks; the whole volume while it was never met. */
  dirtyBytes: number;
  /** Time since it was last connected; null: not since this daemon started. */
  lastSeenMs: number | null;
  /** It answers: true or false, after the last attempt; null while none was made. */
  reachable: boolean | null;
}

export interface SelectPeersFacts extends VolumeFacts {
  /** Every configured peer, in the config's order. */
  peers: PeerFacts[];
  /** The peer that the link leads to; null without a link. */
  current: string | null;
}

/** How far the peer may lag under protocol A. What is left out keeps its default. */
export interface AsyncWindow {
  writes?: number;
  bytes?: Size;
}

type Answer<T> = T | Promise<T>;

/** The three policies of a volume. */
export interface Policies {
  /**
   * Protocol A: how many writes, and how many bytes, may be on their way to the peer. At the bound a write waits.
   * A function is asked every second while its facts change, and every 10 seconds otherwise.
   */
  asyncWindow?: AsyncWindow | ((facts: AsyncWindowFacts) => Answer<AsyncWindow>);
  /**
   * How often cleared bits are written to disk and idle extents leave the activity log. Shorter: less to resync
   * after a crash; longer: fewer metadata writes. A function is asked every second while its facts change, and every 10 seconds otherwise.
   */
  flushInterval?: Duration | ((facts: FlushIntervalFacts) => Answer<Duration>);
  /**
   * Which of the peers to use, the preferred first; one link at a time is made. Default: all, in the config's order.
   * A function is asked when a peer comes or goes, and every 10 seconds otherwise.
   */
  selectPeers?: string | string[] | ((facts: SelectPeersFacts) => Answer<string | string[]>);
  /** Deadline of one call of a policy function. */
  policyDeadline?: Duration;
}
