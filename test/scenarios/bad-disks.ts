// Disks that fail under a running daemon, by faults of the kernel's own: writes past a limit (prlimit), a file that was truncated, a
// filesystem that is full.
import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { copyFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Scenario, type ScenarioContext, scenario } from '../vm/guest/support.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

const MIB = 1 << 20;

/** How a node's disk is broken, and mended. A daemon that is started anew finds it whole. */
export interface DiskFaults {
  /** From now on nothing can be written behind this byte of the disk. */
  failWrites(t: ScenarioContext, node: ClusterNode, fromByte: number): Promise<void>;
  mend(t: ScenarioContext, node: ClusterNode): Promise<void>;
}

/** EFBIG of the kernel, for files. */
export const fileLimits: DiskFaults = {
  async failWrites(t, node, fromByte) {
    await t.run(['prlimit', `--pid=${node.daemon!.pid}`, `--fsize=${fromByte}:unlimited`]);
  },
  async mend(t, node) {
    await t.run(['prlimit', `--pid=${node.daemon!.pid}`, '--fsize=unlimited:unlimited']);
  },
};

/** The metadata lie in front, so that the data fail and they do not. */
const DATA_BEHIND: ClusterOptions = { metadata: 'internal-start' };

async function formed(
  t: ScenarioContext,
  place: Place,
  onIoError: string,
  options: ClusterOptions = DATA_BEHIND,
) {
  const cluster = await Cluster.form(t, place, {
    ...options,
    volume: { onIoError, flushInterval: '200ms', ...options.volume },
  });
  const device = await cluster.alpha.open();
  const ledger = new Ledger(device.sizeBytes);
  await ledger.scatter(device, 0, ledger.blocks, place.blocks);
  await device.flush();
  return { cluster, device, ledger };
}

/** First byte of the second half of the data. */
const half = (node: ClusterNode) => node.dataArea.offset + Math.floor(node.dataArea.bytes / 2);

async function isDiskless(alpha: ClusterNode): Promise<void> {
  const { disk_reason, device, role } = await alpha.until(
    'without its disk, at its peer',
    ({ disk, suspended }, { connection }) =>
      disk === 'Diskless' && !suspended && connection === 'Connected',
  );
  assert.match(disk_reason, /failed/);
  assert.equal(role, 'Primary');
  assert.notEqual(device, null);
}

/** The daemon of a diskless primary is started anew: its disk is the target, by map. */
async function comesBack(
  cluster: Cluster,
  ledger: Ledger,
  before: { rest?: () => Promise<void>; whole?: boolean } = {},
): Promise<void> {
  const { alpha, beta } = cluster;
  const { dirty_bytes: dirty } = (await beta.status()).peers[0]!;
  assert.ok(dirty > 0, 'the peer has marked what the lost disk lacks');
  await alpha.kill();
  await before.rest?.();
  await alpha.up();
  await cluster.synced();
  const { link, size_bytes } = await alpha.status();
  const copied = link.resync_received_bytes;
  if (before.whole) assert.ok(copied >= size_bytes * 0.99, `${copied} bytes: not all was copied`);
  else assert.ok(copied >= dirty && copied < size_bytes, `${copied} bytes were copied by map`);
  await cluster.assertSameData();
  await alpha.cli(['primary']);
  await ledger.verify(await alpha.open(), 'the device, from its own disk again');
}

export function badDiskScenarios(place: Place, faults: DiskFaults): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: detach: under load a primary goes on at its peer, waits for it, and gets its disk back by map`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'detach');
        const { alpha, beta, link } = cluster;
        const load = ledger.load(device, { flushEvery: 32 });
        await load.more(50);
        await faults.failWrites(t, alpha, half(alpha));
        await load.more(place.blocks);
        await isDiskless(alpha);
        await beta.until('serves', (_, peer) => peer.disk === 'Diskless' && peer.dirty_chunks > 0);

        link.cut();
        const { suspend_reason: why } = await alpha.until('waits', ({ suspended }) => suspended);
        assert.match(why, /peer/);
        const refused = await alpha.cli(['resume'], { anyStatus: true });
        assert.equal(refused.status, 1, refused.stderr);
        assert.match(refused.stderr, /SUSPENDED/);
        link.join();
        await load.more(place.blocks);
        await isDiskless(alpha);

        await beta.kill();
        await alpha.until('waits', ({ suspended }) => suspended);
        await beta.up();
        await load.more(place.blocks);
        assert.equal(await load.stop(), null);
        await device.flush();
        await ledger.verify(device, 'the device, from the peer');
        const { io } = await alpha.status();
        assert.ok(io.remote_reads > 0, 'reads were answered by the peer');
        await device.close();
        await comesBack(cluster, ledger);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: detach: an error of the metadata is one of the disk`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'detach', {});
        const { alpha } = cluster;
        // The data come first here; what is written behind them is metadata.
        await faults.failWrites(t, alpha, alpha.dataArea.offset + alpha.dataArea.bytes);
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.flush();
        await isDiskless(alpha);
        await ledger.verify(device, 'the device');
        await device.close();
        await comesBack(cluster, ledger);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: detach: what cannot be read any more is read at the peer`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'detach', {
          metadata: 'external',
        });
        const { alpha } = cluster;
        const { path, bytes } = alpha.dataArea;
        await truncate(path, bytes / 2);
        await ledger.verify(device, 'the device');
        await isDiskless(alpha);
        await ledger.write(device, 0, 20);
        await device.close();
        // Its size has to be what the metadata say: a way out is told.
        await alpha.kill();
        const { stderr } = await alpha.cli(['up'], { anyStatus: true });
        assert.match(stderr, new RegExp(`${bytes / 2} bytes; it had ${bytes}`));
        assert.match(stderr, /create --force/);
        await truncate(path, bytes);
        await alpha.up();
        await cluster.synced();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: pass-on: a write that fails here is marked, and copied again when the disk takes it`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'pass-on');
        const { alpha } = cluster;
        await faults.failWrites(t, alpha, half(alpha));
        const last = ledger.blocks - 1;
        await assert.rejects(ledger.write(device, last), /NBD/);
        await ledger.write(device, 0, 5);
        const failed = await alpha.status();
        assert.equal(failed.disk, 'UpToDate');
        assert.ok(failed.io.disk_errors > 0);
        await faults.mend(t, alpha);
        await cluster.synced();
        await ledger.write(device, last);
        await device.flush();
        await ledger.verify(device, 'the device');
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: suspend: what failed waits for 'tidemark resume'`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'suspend');
        const { alpha } = cluster;
        await faults.failWrites(t, alpha, half(alpha));
        const writing = ledger.write(device, ledger.blocks - 16, 16);
        const { suspend_reason: why } = await alpha.until('waits', ({ suspended }) => suspended);
        assert.match(why, /failed.*resume/);
        const { stdout } = await alpha.cli(['status']);
        assert.match(stdout, /SUSPENDED/);
        const refused = await alpha.cli(['secondary'], { anyStatus: true });
        assert.match(refused.stderr, /SUSPENDED|IN_USE/);
        await faults.mend(t, alpha);
        await alpha.cli(['resume']);
        await writing;
        await device.flush();
        await ledger.verify(device, 'the device');
        const again = await alpha.cli(['resume'], { anyStatus: true });
        assert.match(again.stderr, /NOT_SUSPENDED/);
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a secondary whose disk fails is absent until its daemon is started anew`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'detach');
        const { alpha, beta } = cluster;
        const load = ledger.load(device, { flushEvery: 32 });
        await load.more(50);
        await faults.failWrites(t, beta, half(beta));
        await load.more(place.blocks);
        const failed = await beta.until('failed', ({ disk }) => disk === 'Failed');
        assert.match(failed.disk_reason, /write of the peer/);
        const { disk } = await alpha.until(
          'told so',
          (_, peer) => peer.connection === 'Refused' && /Failed at the peer/.test(peer.reason),
        );
        assert.equal(disk, 'UpToDate');
        await load.more(50);
        assert.equal(await load.stop(), null);
        const promoted = await beta.cli(['primary'], { anyStatus: true });
        assert.match(promoted.stderr, /has failed/);
        await beta.kill();
        await beta.up();
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a blank disk in the place of a lost one is copied whole, whichever node lost it; the old one is not taken back`,
      async (t) => {
        const { cluster, device, ledger } = await formed(t, place, 'detach');
        const { alpha, beta } = cluster;
        const old = `${beta.paths.backing}.old`;
        await beta.kill();
        await copyFile(beta.paths.backing, old);
        await blank(beta);
        await ledger.write(device, 0, 20);
        await beta.up();
        await cluster.synced();
        await device.flush();
        await cluster.assertSameData();
        await device.close();
        await alpha.kill();
        await blank(alpha);
        await alpha.up();
        await cluster.synced();
        await cluster.assertSameData();
        await alpha.cli(['primary']);
        await ledger.verify(await alpha.open(), 'the device, from the new disk');

        await beta.stop();
        await copyFile(old, beta.paths.backing);
        await beta.up();
        const refused = await alpha.until('refused', (_, peer) => peer.connection === 'Refused');
        assert.match(refused.peers[0]!.reason, /'beta' had identity .* before/);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}

/** A new disk, made ready. */
async function blank(node: ClusterNode): Promise<void> {
  const { size } = await stat(node.paths.backing);
  await writeFile(node.paths.backing, '');
  await truncate(node.paths.backing, size);
  await node.create();
}

/** Filesystems of a few megabytes, which are filled up; for root. */
export function fullFilesystemScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: a full filesystem under the data: a primary goes on at its peer`,
      async (t) => {
        const cluster = await onSmallFilesystem(t, place, 'backing', 12 * MIB);
        const { alpha, beta, fill } = cluster;
        await beta.up();
        await cluster.synced();
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 0, 50);
        await fill();
        await ledger.scatter(device, 100, ledger.blocks - 100, place.blocks);
        await device.flush();
        await isDiskless(alpha);
        assert.match((await alpha.status()).disk_reason, /No space left/);
        await ledger.verify(device, 'the device');
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a full filesystem under the metadata: no write completes any more, and nothing is lost`,
      async (t) => {
        const cluster = await onSmallFilesystem(t, place, 'metadata', 2 * MIB);
        const { alpha, beta, fill, empty } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 0, 50);
        await device.flush();
        await fill();
        await beta.up();
        const { disk_reason: why } = await alpha.until('failed', ({ disk }) => disk === 'Failed');
        assert.match(why, /metadata: .*No space left/);
        await assert.rejects(ledger.write(device, 5), /NBD/);
        await assert.rejects(device.flush(), /NBD/);
        await ledger.verify(device, 'the device');
        await device.close();
        await alpha.kill();
        empty();
        await alpha.up();
        await alpha.cli(['primary']);
        await ledger.verify(await alpha.open(), 'the device, after the daemon was started anew');
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}

/** A cluster of which a file of alpha's lies on a filesystem of its own. */
async function onSmallFilesystem(
  t: ScenarioContext,
  place: Place,
  what: 'backing' | 'metadata',
  bytes: number,
) {
  const cluster = await Cluster.prepare(t, place, {
    metadata: 'external',
    volume: { onIoError: 'detach', flushInterval: '100ms', activityLogExtents: 7 },
  });
  const { alpha, beta } = cluster;
  const path = alpha.paths[what]!;
  const folder = join(cluster.directory, 'small');
  mkdirSync(folder);
  await t.run(['mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder]);
  t.undo('unmount the small filesystem', () => t.run(['umount', '-l', folder]));
  rmSync(path);
  const file = join(folder, 'file');
  await writeFile(file, '');
  await truncate(file, place.backingBytes);
  symlinkSync(file, path);
  await Promise.all([alpha.create(), beta.create()]);
  // 'create' has taken all the room that the metadata need; a file that was copied sparsely has not.
  if (what === 'metadata') await t.run(['fallocate', '--dig-holes', file]);
  await alpha.up('--primary', '--force');
  const filling = join(folder, 'filling');
  return {
    alpha,
    beta,
    assertSameData: () => cluster.assertSameData(),
    down: () => cluster.down(),
    synced: () => cluster.synced(),
    fill: async () => {
      await t.run(['dd', 'if=/dev/zero', `of=${filling}`, 'bs=4096'], { anyStatus: true });
      assert.ok(existsSync(filling));
    },
    empty: () => rmSync(filling),
  };
}
