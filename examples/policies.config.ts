// Policies as functions of what is measured: docs/CONFIG.md lists the facts.
import { defineVolume, type PeerFacts } from 'tidemark';

const MIB = 1024 * 1024;

/** Reachable ones first, among them the one that lacks the least. */
function byReadiness(a: PeerFacts, b: PeerFacts): number {
  const away = Number(a.reachable === false) - Number(b.reachable === false);
  return away !== 0 ? away : a.dirtyBytes - b.dirtyBytes;
}

export default defineVolume({
  name: 'r0',
  protocol: 'A',
  secret: { file: '/etc/tidemark/r0.secret' },
  nodes: {
    alpha: { backing: '/dev/vg/r0', address: '10.0.0.1:7790', frontend: { kind: 'ublk', id: 0 } },
    beta: { backing: '/dev/vg/r0', address: '10.0.0.2:7790', frontend: { kind: 'ublk', id: 0 } },
    remote: { backing: '/dev/vg/r0', address: '192.0.2.7:7790' },
  },

  // On a slow link let less be lost with it: half a second's worth of what it carries, within 4..256 MiB.
  asyncWindow: ({ throughputBytesPerS, ackLatencyMs }) => {
    if (ackLatencyMs === null || ackLatencyMs < 20) return { bytes: 64 * MIB };
    const bytes = Math.round(throughputBytesPerS / 2);
    return { writes: 1024, bytes: Math.min(256 * MIB, Math.max(4 * MIB, bytes)) };
  },

  // Quiet: leave nothing to resync after a crash. Busy: spare the disk.
  flushInterval: ({ idleMs, hotExtents, extents }) => {
    if (idleMs > 10_000) return '500ms';
    return hotExtents > extents / 2 ? '2s' : '10s';
  },

  // Keep a link that works; otherwise take the peer that needs the least.
  selectPeers: ({ peers, current }) => {
    const order = [...peers].sort(byReadiness).map((peer) => peer.name);
    return current === null ? order : [current, ...order.filter((name) => name !== current)];
  },
});
