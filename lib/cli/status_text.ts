/** Status for people: DRBD's words, and a resync as /proc/mdstat shows one. */

import Table from 'cli-table3';
import { formatBytes } from '../config/units.ts';
import type { PeerJson, ResyncJson, StatusJson, VolumeJson } from '../control/status.ts';

const BAR_CELLS = 20;

/** '12.6min', '48s', 'unknown' */
export function formatEta(ms: number | null): string {
  if (ms === null) return 'unknown';
  if (ms < 90_000) return `${Math.ceil(ms / 1000)}s`;
  if (ms < 90 * 60_000) return `${(ms / 60_000).toFixed(1)}min`;
  return `${(ms / 3_600_000).toFixed(1)}h`;
}

/** '[=====>..............]  27.5% (11.0 MiB/40 MiB) finish=3s speed=9.8 MiB/s' */
export function progressBar(resync: ResyncJson): string {
  const part = resync.bytes_total === 0 ? 1 : resync.bytes_done / resync.bytes_total;
  const filled = Math.min(BAR_CELLS, Math.floor(part * BAR_CELLS));
  const bar =
    filled === BAR_CELLS
      ? '='.repeat(BAR_CELLS)
      : `${'='.repeat(filled)}>${'.'.repeat(BAR_CELLS - filled - 1)}`;
  // Rounded down: 100 % is said only when all is done.
  const percent = (Math.floor(part * 1000) / 10).toFixed(1).padStart(5);
  const amount = `${formatBytes(resync.bytes_done)}/${formatBytes(resync.bytes_total)}`;
  const speed = `${formatBytes(resync.rate_bytes_per_s)}/s`;
  return `[${bar}] ${percent}% (${amount}) finish=${formatEta(resync.eta_ms)} speed=${speed}`;
}

/** 'r0: Primary UpToDate, 512 MiB, on /dev/ublkb0; beta Connected' */
export function volumeLine(volume: VolumeJson): string {
  const device = volume.device === null ? '' : `, on ${volume.device}`;
  const peers = volume.peers.map((peer) => `${peer.name} ${peer.connection}`).join(', ');
  const suspended = volume.suspended ? `; I/O SUSPENDED: ${volume.suspend_reason}` : '';
  return `${volume.name}: ${volume.role} ${volume.disk}, ${formatBytes(volume.size_bytes)}${device}; ${peers || 'no peers'}${suspended}`;
}

function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

function peerTable(peers: readonly PeerJson[]): string {
  const table = new Table({
    head: ['peer', 'connection', 'role', 'disk', 'out of sync', 'in flight'],
    style: { head: [], border: [], compact: true },
  });
  for (const peer of peers) {
    const dirty =
      peer.dirty_chunks === 0
        ? '-'
        : `${formatBytes(peer.dirty_bytes)} (${plural(peer.dirty_chunks, 'chunk')})`;
    const inFlight = peer.in_flight_writes === 0 ? '-' : plural(peer.in_flight_writes, 'write');
    table.push([peer.name, peer.connection, peer.role, peer.disk, dirty, inFlight]);
  }
  return table.toString();
}

function volumeText(volume: VolumeJson): string {
  const lines = [
    `${volume.name} on ${volume.node}: ${volume.role}, ${volume.disk}, ${formatBytes(volume.size_bytes)}, ${volume.device ?? 'not served'}`,
    `  protocol ${volume.protocol}, chunk ${formatBytes(volume.chunk_bytes)}, activity log ${volume.activity_log.hot}/${volume.activity_log.extents} hot`,
  ];
  if (volume.suspended) lines.push(`  I/O SUSPENDED: ${volume.suspend_reason}`);
  if (volume.disk_reason !== '') {
    lines.push(`  disk failed: ${volume.disk_reason}`);
    lines.push(
      '  repair or replace it, then start this daemon again; it is resynced from the peer',
    );
  }
  for (const [policy, failure] of Object.entries(volume.policy.failures)) {
    lines.push(`  policy ${policy}: ${failure}`);
  }
  if (volume.peers.length > 0) {
    lines.push(
      ...peerTable(volume.peers)
        .split('\n')
        .map((line) => `  ${line}`),
    );
  }
  for (const peer of volume.peers) {
    if (peer.reason !== '') lines.push(`  ${peer.name}: ${peer.reason}`);
    if (peer.resync !== null) {
      const way = peer.resync.side === 'source' ? 'to' : 'from';
      lines.push(`  resync ${way} ${peer.name}: ${progressBar(peer.resync)}`);
      const unread = peer.resync.unreadable_chunks;
      if (unread > 0) {
        lines.push(
          `  ${plural(unread, 'chunk')} cannot be read here and ${unread === 1 ? 'stays' : 'stay'} out of sync: tried again from time to time; writing there mends it, or else replace this disk`,
        );
      }
    }
  }
  return lines.join('\n');
}

/** Ends with a newline. */
export function statusText(status: StatusJson): string {
  const { problem } = status.replication;
  const head = problem === '' ? '' : `PROBLEM: ${problem}\n`;
  if (status.volumes.length === 0) return `${head}no volume is open yet\n`;
  return `${head}${status.volumes.map(volumeText).join('\n\n')}\n`;
}

/** Any JSON value as an indented outline, for metadata dumps and features. Ends with a newline. */
export function outline(value: unknown, depth = 0): string {
  const indent = '  '.repeat(depth);
  if (typeof value !== 'object' || value === null) return `${indent}${scalar(value)}\n`;
  const entries: Array<[string, unknown]> = Array.isArray(value)
    ? value.map((item, index) => [`[${index}]`, item])
    : Object.entries(value);
  let text = '';
  for (const [key, item] of entries) {
    const name = key.startsWith('[') ? key : key.replaceAll('_', ' ');
    if (isShort(item)) text += `${indent}${name}: ${short(item)}\n`;
    else text += `${indent}${name}:\n${outline(item, depth + 1)}`;
  }
  return text;
}

function scalar(value: unknown): string {
  if (value === true) return 'yes';
  if (value === false) return 'no';
  if (value === null) return '-';
  return String(value);
}

/** Fits behind its name: a scalar, or a list of them. */
function isShort(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (!Array.isArray(value)) return Object.keys(value).length === 0;
  return value.every((item) => typeof item !== 'object' || item === null);
}

function short(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.map(scalar).join(' ');
  return typeof value === 'object' && value !== null ? 'none' : scalar(value);
}
