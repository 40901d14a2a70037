/**
 * `npm run demo`: two daemons, a link that is cut under load and joined again, and the proof that only what changed was copied.
 */

import { readFileSync } from 'node:fs';
import { SingleBar } from 'cli-progress';
import { loadAddon } from '../binding/addon.ts';
import { TidemarkError } from '../binding/errors.ts';
import type { VolumeJson } from '../control/status.ts';
import { Cluster, type FrontendKind, NODES, VOLUME } from './cluster.ts';
import { firstDifference } from './compare.ts';
import { openDevice } from './device.ts';
import { Writer } from './writer.ts';

export interface DemoOptions {
  /** The summary as JSON on standard output, and nothing else there. */
  json?: boolean;
  /** Default: ublk where this kernel has it and the user is root, else NBD. */
  frontend?: FrontendKind;
}

export interface DemoSummary {
  ok: boolean;
  frontend: FrontendKind;
  volume_bytes: number;
  dirty_chunks: number;
  resync_chunks: number;
  resync_bytes: number;
  wire_bytes: number;
  identical: boolean;
}

const MIB = 1 << 20;
/** No multiple of a chunk or an extent, on purpose. */
const BACKING_BYTES = 512 * MIB + 5 * 512;
const FILL_BYTES = 64 * MIB;
const LOAD_SPAN_BYTES = 128 * MIB;
const APART_MS = 2500;
/** Frame headers, maps, handshakes and keepalives of the resync may take so much, beside the chunks. */
const WIRE_OVERHEAD = 0.05;
const WIRE_SLACK_BYTES = MIB;

/** Returns the exit status: 0 only if everything that the summary claims was checked. */
export async function runDemo(options: DemoOptions = {}): Promise<number> {
  const tell = (line: string): void => {
    (options.json ? process.stderr : process.stdout).write(`${line}\n`);
  };
  const frontend = options.frontend ?? detectFrontend();
  tell(
    frontend === 'ublk'
      ? 'The kernel has ublk: the volume will be a block device.'
      : 'No ublk here (or not root): the volume will be an NBD export.',
  );
  const cluster = await Cluster.make(frontend, BACKING_BYTES, tell);
  const stop = (): void => {
    void cluster.remove().finally(() => process.exit(130));
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const summary = await play(cluster, tell, options.json === true);
    if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
    else report(summary, tell);
    return summary.ok ? 0 : 1;
  } catch (error) {
    for (const node of NODES) showLog(cluster, node, tell);
    throw error;
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
    await cluster.remove();
  }
}

async function play(
  cluster: Cluster,
  tell: (line: string) => void,
  quiet: boolean,
): Promise<DemoSummary> {
  tell('\n1. Two disks, two daemons');
  for (const node of NODES) await cluster.run(node, ['create']);
  for (const node of NODES) await cluster.up(node);
  await cluster.run('alpha', ['primary', '--force']);
  let volume = await resynced(cluster, 'first full resync', quiet);
  tell(`   both disks UpToDate, the volume is ${volume.device}`);
  const device = volume.device;
  if (device === null) throw new TidemarkError('DEMO', 'the primary offers no device');

  tell(`\n2. Writing ${FILL_BYTES / MIB} MiB, replicated`);
  const opened = await openDevice(device, VOLUME);
  const writer = new Writer(opened, volume.size_bytes);
  await writer.fill(0, FILL_BYTES);
  volume = await cluster.status('alpha');
  expect(peer(volume).dirty_chunks === 0, 'nothing is dirty while the peer is there');
  tell('   flushed on both; 0 dirty chunks');

  tell('\n3. The link is cut under load, and writing goes on');
  let stopped = false;
  const load = writer.load(LOAD_SPAN_BYTES, () => stopped);
  load.catch(() => {});
  const before = writer.writes;
  while (writer.writes < before + 200) await volumeTick(load);
  cluster.cut();
  await cluster.until('alpha', (now) => peer(now).dirty_chunks > 0, 'the link is lost');
  const end = Date.now() + APART_MS;
  let grown = 0;
  while (Date.now() < end) {
    volume = await cluster.status('alpha');
    expect(peer(volume).dirty_chunks >= grown, 'the dirty map grows');
    grown = peer(volume).dirty_chunks;
    tell(`   ${peer(volume).connection}: ${grown} dirty chunks, ${writer.writes} writes done`);
    await delay(300);
  }
  stopped = true;
  await load;
  await opened.flush();
  volume = await cluster.status('alpha');
  const dirtyChunks = peer(volume).dirty_chunks;
  const dirtyBytes = peer(volume).dirty_bytes;
  const sentBefore = volume.link.resync_sent_bytes;
  const wireBefore = cluster.wireBytes;

  tell(`\n4. The link is joined: ${dirtyChunks} chunks (${mib(dirtyBytes)}) are behind`);
  cluster.join();
  volume = await resynced(cluster, 'resync', quiet);
  const resyncBytes = volume.link.resync_sent_bytes - sentBefore;
  const wireBytes = cluster.wireBytes - wireBefore;
  expect(peer(volume).dirty_chunks === 0, 'no chunk is left dirty');

  tell('\n5. Both are stopped, and the disks compared');
  await opened.close();
  await cluster.run('alpha', ['secondary']);
  for (const node of NODES) await cluster.down(node);
  const difference = await firstDifference(
    { path: cluster.backing('alpha'), offset: 0 },
    { path: cluster.backing('beta'), offset: 0 },
    volume.size_bytes,
  );
  if (difference !== null) tell(`   the disks differ at byte ${difference}`);
  const resyncChunks = Math.ceil(resyncBytes / volume.chunk_bytes);
  const wireLimit = dirtyBytes * (1 + WIRE_OVERHEAD) + WIRE_SLACK_BYTES;
  const onlyDirty = resyncChunks <= dirtyChunks && wireBytes <= wireLimit;
  if (!onlyDirty)
    tell(
      `   more was copied than was dirty: ${resyncChunks} chunks, ${wireBytes} bytes on the wire`,
    );
  return {
    ok: difference === null && onlyDirty && dirtyChunks > 0,
    frontend: cluster.frontend,
    volume_bytes: volume.size_bytes,
    dirty_chunks: dirtyChunks,
    resync_chunks: resyncChunks,
    resync_bytes: resyncBytes,
    wire_bytes: wireBytes,
    identical: difference === null,
  };
}

/** Waits until both sides are UpToDate, with a progress bar. */
async function resynced(cluster: Cluster, what: string, quiet: boolean): Promise<VolumeJson> {
  const bar = new SingleBar({
    format: `   ${what} [{bar}] {percentage}% {done} of {all}, {speed}`,
    hideCursor: true,
    clearOnComplete: false,
    stopOnComplete: false,
    noTTYOutput: true,
    notTTYSchedule: 1000,
    barsize: 30,
    barCompleteChar: '=',
    barIncompleteChar: '.',
  });
  let started = false;
  const volume = await cluster.until(
    'alpha',
    (now) => peer(now).connection === 'Connected' && peer(now).disk === 'UpToDate',
    `${what} is over`,
    (now) => {
      const { resync } = peer(now);
      if (resync === null || quiet) return;
      const facts = {
        done: mib(resync.bytes_done),
        all: mib(resync.bytes_total),
        speed: `${mib(resync.rate_bytes_per_s)}/s`,
      };
      if (!started) bar.start(resync.bytes_total, resync.bytes_done, facts);
      else bar.update(resync.bytes_done, facts);
      started = true;
    },
  );
  if (started) {
    bar.update(bar.getTotal());
    bar.stop();
  }
  await cluster.until(
    'beta',
    (now) => now.disk === 'UpToDate' && peer(now).dirty_chunks === 0,
    'beta is UpToDate',
  );
  return volume;
}

function peer(volume: VolumeJson): VolumeJson['peers'][number] {
  const only = volume.peers[0];
  if (only === undefined) throw new TidemarkError('DEMO', 'the volume has no peer');
  return only;
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new TidemarkError('DEMO', `this should hold and does not: ${what}`);
}

function detectFrontend(): FrontendKind {
  try {
    const features = JSON.parse(loadAddon().features()) as { ublk?: { usable?: boolean } };
    return features.ublk?.usable === true ? 'ublk' : 'nbd';
  } catch {
    return 'nbd';
  }
}

async function volumeTick(load: Promise<void>): Promise<void> {
  await Promise.race([delay(5), load]);
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

function showLog(cluster: Cluster, node: string, tell: (line: string) => void): void {
  try {
    const lines = readFileSync(`${cluster.directory}/${node}.log`, 'utf8').trimEnd().split('\n');
    for (const line of lines.slice(-15)) tell(`   ${node}: ${line}`);
  } catch {
    // It never started.
  }
}

function report(summary: DemoSummary, tell: (line: string) => void): void {
  tell('\nSummary');
  tell(`   volume            ${mib(summary.volume_bytes)} over ${summary.frontend}`);
  tell(`   changed apart     ${summary.dirty_chunks} chunks`);
  tell(`   copied            ${summary.resync_chunks} chunks, ${mib(summary.resync_bytes)}`);
  tell(`   on the wire       ${mib(summary.wire_bytes)}`);
  tell(`   disks             ${summary.identical ? 'identical, byte for byte' : 'DIFFERENT'}`);
  tell(summary.ok ? '\nOK' : '\nFAILED');
}
