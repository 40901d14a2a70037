/** From samples of a volume's status to the facts that policy functions get. No clock: times come with the samples. */

import type {
  AsyncWindowFacts,
  FlushIntervalFacts,
  SelectPeersFacts,
  VolumeFacts,
} from '../config/policies.ts';
import type { PolicyValues, ReplicationStatus } from '../replication/api.ts';
import { peerView } from './peer_view.ts';

interface Rates {
  writesPerS: number;
  writtenBytesPerS: number;
  sentBytesPerS: number;
  ackLatencyMs: number | null;
}

const NO_RATES: Rates = {
  writesPerS: 0,
  writtenBytesPerS: 0,
  sentBytesPerS: 0,
  ackLatencyMs: null,
};

export class Facts {
  private readonly volume: string;
  private readonly node: string;
  private last: { nowMs: number; status: ReplicationStatus } | null = null;
  private rates = NO_RATES;
  private lastWriteMs = 0;
  private readonly lastSeenMs = new Map<string, number>();

  constructor(volume: string, node: string) {
    this.volume = volume;
    this.node = node;
  }

  /** `nowMs` never goes back. */
  learn(nowMs: number, status: ReplicationStatus): void {
    const before = this.last;
    const { native } = status;
    if (before === null) this.lastWriteMs = nowMs;
    else {
      const was = before.status.native;
      if (native.writes !== was.writes) this.lastWriteMs = nowMs;
      const seconds = (native.nowUs - was.nowUs) / 1e6;
      // Two samples of one native snapshot say nothing about time.
      if (seconds > 0) this.rates = rates(was, native, seconds);
    }
    for (const link of status.links) {
      if (peerView(link, native).connected) this.lastSeenMs.set(link.name, nowMs);
    }
    this.last = { nowMs, status };
  }

  private common(): VolumeFacts {
    const role = this.last?.status.native.role === 'primary' ? 'Primary' : 'Secondary';
    return { volume: this.volume, node: this.node, role };
  }

  private currentPeer(): string | null {
    if (this.last === null) return null;
    const { links, native } = this.last.status;
    return links.find((link) => peerView(link, native).connected)?.name ?? null;
  }

  /** null before the first sample. */
  asyncWindow(protocol: 'A' | 'C', values: PolicyValues): AsyncWindowFacts | null {
    if (this.last === null) return null;
    const { native } = this.last.status;
    return {
      ...this.common(),
      peer: this.currentPeer(),
      protocol,
      inFlightWrites: native.inFlightWrites,
      inFlightBytes: native.inFlightBytes,
      windowWrites: values.windowWrites,
      windowBytes: values.windowBytes,
      writesPerS: this.rates.writesPerS,
      throughputBytesPerS: this.rates.sentBytesPerS,
      ackLatencyMs: this.rates.ackLatencyMs,
      resyncing: native.resync !== null,
    };
  }

  flushInterval(values: PolicyValues): FlushIntervalFacts | null {
    if (this.last === null) return null;
    const { nowMs, status } = this.last;
    const { native } = status;
    const most = native.peers.reduce((max, peer) => Math.max(max, peer.dirtyChunks), 0);
    return {
      ...this.common(),
      hotExtents: native.logHot,
      extents: native.logExtents,
      extentBytes: native.extentBytes,
      dirtyChunks: most,
      dirtyBytes: native.peers.reduce((max, peer) => Math.max(max, peer.dirtyBytes), 0),
      idleMs: Math.round(nowMs - this.lastWriteMs),
      writesPerS: this.rates.writesPerS,
      writtenBytesPerS: this.rates.writtenBytesPerS,
      flushIntervalMs: values.flushIntervalMs,
    };
  }

  selectPeers(): SelectPeersFacts | null {
    if (this.last === null) return null;
    const { nowMs, status } = this.last;
    return {
      ...this.common(),
      current: this.currentPeer(),
      peers: status.links.map((link) => {
        const view = peerView(link, status.native);
        const seen = this.lastSeenMs.get(link.name);
        return {
          name: view.name,
          connected: view.connected,
          disk: view.disk,
          dirtyBytes: view.dirtyBytes,
          lastSeenMs: seen === undefined ? null : Math.round(nowMs - seen),
          reachable: view.reachable,
        };
      }),
    };
  }
}

function rates(
  was: ReplicationStatus['native'],
  is: ReplicationStatus['native'],
  seconds: number,
): Rates {
  const writesPerS = Math.max(0, is.writes - was.writes) / seconds;
  const inFlight = (is.inFlightWrites + was.inFlightWrites) / 2;
  return {
    writesPerS,
    writtenBytesPerS: Math.max(0, is.writtenBytes - was.writtenBytes) / seconds,
    sentBytesPerS: Math.max(0, is.sentBytes - was.sentBytes) / seconds,
    ackLatencyMs: writesPerS > 0 ? (inFlight / writesPerS) * 1000 : null,
  };
}
