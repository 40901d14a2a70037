// Disks that fail under a volume: the primary's, the secondary's, the one with the metadata, a filesystem that is full. The
// long ones have their like in test/scenarios/bad-disks.ts, on files.
import { strict as assert } from 'node:assert';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { VolumeJson } from '../../../lib/control/status.ts';
import { Cluster, type ClusterOptions } from '../../scenarios/cluster.js';
import { Ledger, type Load } from '../../scenarios/ledger.js';
import { type Device, type Place, ublkPlace } from '../../scenarios/place.js';
import {
  FaultyDisk,
  FullFilesystem,
  modprobe,
  type ScenarioContext,
  scenario,
  startFio,
} from './support.js';

const MIB = 1 << 20;
const DISK_BYTES = 16 * MIB;
/** Writes between two events. */
const WRITES = 60;

interface Faulty {
  cluster: Cluster;
  /** Data of alpha and of beta, then their metadata. */
  disks: FaultyDisk[];
}

/** A formed cluster on disks that can fail. */
async function form(t: ScenarioContext, options: ClusterOptions): Promise<Faulty> {
  await modprobe(t, 'ublk_drv');
  const disks: FaultyDisk[] = [];
  for (const name of ['alpha', 'beta', 'alpha-metadata', 'beta-metadata']) {
    if (name.endsWith('metadata') && options.metadata !== 'external') continue;
    disks.push(await FaultyDisk.create(t, name, DISK_BYTES));
  }
  const place: Place = {
    ...ublkPlace,
    disks: async (_t, directory, count, bytes) => {
      await ublkPlace.disks(t, directory, count, bytes);
      return disks.map(({ path }) => path);
    },
  };
  return { cluster: await Cluster.form(t, place, options), disks };
}

/** A load that is going on. */
async function startLoad({ alpha }: Cluster) {
  const device = await alpha.open();
  const ledger = new Ledger(device.sizeBytes);
  return { device, ledger, load: await beginLoad(ledger, device) };
}

async function beginLoad(ledger: Ledger, device: Device): Promise<Load> {
  const load = ledger.load(device, { depth: 8, flushEvery: 16 });
  await load.more(WRITES);
  return load;
}

/** Ends a load of which nothing failed, after some more of it. */
async function endLoad(load: Load): Promise<void> {
  await load.more(WRITES);
  assert.equal(await load.stop(), null);
}

/** A whole load, of which nothing fails. */
async function writeSome(ledger: Ledger, device: Device): Promise<void> {
  await endLoad(await beginLoad(ledger, device));
}

/** A cluster of which all that was written is flushed, and nothing is flushed from now on unless it is asked for: a sweep would. */
async function formFlushed(t: ScenarioContext, onIoError: 'detach' | 'suspend') {
  const volume = { onIoError, flushInterval: '1h' };
  const faulty = await form(t, { metadata: 'external', volume });
  const { device, ledger, load } = await startLoad(faulty.cluster);
  await endLoad(load);
  await device.flush();
  return { faulty, device, ledger };
}

/** What is written is lost, and the disk's next flush says so. */
async function forgetWrites(disk: FaultyDisk, write: () => Promise<void>): Promise<void> {
  await disk.fail('forgets');
  await write();
  await disk.fail('writes');
}

async function isDiskless({ alpha }: Cluster): Promise<VolumeJson> {
  return alpha.until('without a disk', ({ disk }) => disk === 'Diskless');
}

/** The daemon of a primary that lost its disk is started anew with it. */
async function comeBack({ cluster }: Faulty, device: Device, disk: FaultyDisk): Promise<void> {
  await device.close();
  await cluster.alpha.stop();
  await disk.heal();
  await cluster.alpha.up();
}

async function endEqual({ cluster }: Faulty): Promise<void> {
  await cluster.synced();
  await cluster.down();
  await cluster.assertSameData();
}

/** The same after all that was acknowledged was found on alpha's own disk. */
async function endWhole(faulty: Faulty, ledger: Ledger): Promise<void> {
  const { alpha } = faulty.cluster;
  await faulty.cluster.synced();
  await alpha.call('primary');
  const device = await alpha.open();
  await ledger.verify(device, 'the device, from its own disk again');
  await device.close();
  await endEqual(faulty);
}

export default [
  scenario(
    'ublk: a primary whose disk fails goes on at its peer, unnoticed by fio with verification; a new disk is resynced',
    async (t) => {
      const faulty = await form(t, { volume: { onIoError: 'detach' } });
      const { cluster, disks } = faulty;
      const { alpha, beta } = cluster;
      const fio = startFio(t, 'load', {
        ...(await alpha.fio()),
        ...{ rw: 'randwrite', bsrange: '4k-32k', size: 3 * MIB, iodepth: 8, fsync: 16 },
        ...{ verify: 'crc32c', verify_fatal: 1, do_verify: 1, randseed: 5 },
        // It still writes when the disk has failed, however long that takes.
        ...{ rate_iops: ',12' },
      });
      const { writes } = (await alpha.status()).io;
      await alpha.until('writes', ({ io }) => io.writes > writes + 20);
      await disks[0]!.fail('all');
      const diskless = await isDiskless(cluster);
      assert.notEqual(diskless.disk_reason, '');
      assert.equal(diskless.role, 'Primary');
      assert.equal(diskless.suspended, false);
      await fio.finish(120_000);
      const after = await alpha.status();
      assert.ok(after.io.remote_reads > 0, 'fio verified without a read at the peer');
      assert.ok((await beta.status()).peers[0]!.dirty_chunks > 0, 'beta has no marks for alpha');

      await alpha.stop();
      await disks[0]!.swap();
      await alpha.create();
      await alpha.up();
      await endEqual(faulty);
    },
    { timeoutMs: 360_000 },
  ),

  scenario(
    'ublk: errors of the data that are passed on reach the writer; what failed is marked, and resynced when the disk is well again',
    async (t) => {
      const faulty = await form(t, { volume: { onIoError: 'pass-on' } });
      const { cluster, disks } = faulty;
      const { alpha } = cluster;
      const { device, ledger, load } = await startLoad(cluster);
      // Behind the data lies the metadata. Flushes succeed: they have nothing to say of what was refused.
      await disks[0]!.fail('all', alpha.dataArea.bytes);
      const error = await load.ended;
      assert.equal((error as NodeJS.ErrnoException | null)?.code, 'EIO', String(error));
      const failed = await alpha.status();
      assert.ok(failed.io.disk_errors > 0, 'no error was counted');
      await disks[0]!.heal();
      // What was answered is there; what failed has one of its two contents.
      await ledger.verify(device, 'the device when its disk is well');
      await writeSome(ledger, device);
      await cluster.synced();
      await ledger.verify(device, 'the device after the resync');
      await device.close();
      await endEqual(faulty);
    },
    { timeoutMs: 240_000, long: true },
  ),

  scenario(
    'ublk: an error of a read that suspends I/O fails nothing, and after resume it is read',
    async (t) => {
      const faulty = await form(t, { volume: { onIoError: 'suspend' } });
      const { cluster, disks } = faulty;
      const { alpha } = cluster;
      const { device, ledger, load } = await startLoad(cluster);
      assert.equal(await load.stop(), null);
      await disks[0]!.fail('reads', alpha.dataArea.bytes);
      let ended = false;
      const verified = ledger.verify(device, 'the device').finally(() => {
        ended = true;
      });
      const waiting = await alpha.until('suspended', ({ suspended }) => suspended);
      assert.match(JSON.stringify(waiting), /error|failed/i);
      assert.equal(ended, false, 'a read ended');
      await disks[0]!.heal();
      await alpha.call('resume', { volume: alpha.volume });
      await verified;
      await writeSome(ledger, device);
      await device.close();
      await endEqual(faulty);
    },
    { timeoutMs: 240_000, long: true },
  ),

  scenario(
    'ublk: a secondary whose disk fails does not stop the primary; it comes back by resync',
    async (t) => {
      const faulty = await form(t, {});
      const { cluster, disks } = faulty;
      const { alpha, beta } = cluster;
      const { device, ledger, load } = await startLoad(cluster);
      await disks[1]!.fail('all');
      await beta.until('failed', ({ disk }) => disk === 'Failed');
      await alpha.unlinked();
      await load.more(WRITES);
      const apart = await alpha.status();
      assert.equal(apart.disk, 'UpToDate');
      assert.ok(apart.peers[0]!.dirty_chunks > 0, 'alpha has no marks for beta');
      await beta.kill();
      await disks[1]!.heal();
      await beta.up();
      await endLoad(load);
      await cluster.synced();
      await ledger.verify(device, 'the device');
      await device.close();
      await endEqual(faulty);
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk: errors of the metadata alone let go of the disk: the primary goes on at its peer, and is resynced when it is back',
    async (t) => {
      // With more extents in the volume than in the log, the metadata are written all the time.
      const volume = { onIoError: 'detach', activityLogExtents: 7 };
      const faulty = await form(t, { metadata: 'external', volume });
      const { cluster, disks } = faulty;
      const { device, ledger, load } = await startLoad(cluster);
      await disks[2]!.fail('writes');
      await isDiskless(cluster);
      await endLoad(load);
      await ledger.verify(device, 'the device without its disk');
      await comeBack(faulty, device, disks[2]!);
      await endEqual(faulty);
    },
    { timeoutMs: 240_000, long: true },
  ),

  scenario(
    'ublk: a primary whose disk fails a flush of the data goes on at its peer, and what the flush was for is not lost',
    async (t) => {
      const { faulty, device, ledger } = await formFlushed(t, 'detach');
      const { cluster, disks } = faulty;
      await forgetWrites(disks[0]!, () => ledger.write(device, 0, 32));
      // It is answered: the peer has what was lost here (R11).
      await device.flush();
      const { disk_reason, suspended, role } = await isDiskless(cluster);
      assert.match(disk_reason, /flush of the backing disk failed/);
      assert.deepEqual([suspended, role], [false, 'Primary']);
      await ledger.verify(device, 'the device without its disk');
      await writeSome(ledger, device);
      await comeBack(faulty, device, disks[0]!);
      await endWhole(faulty, ledger);
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk: with suspend, a write that fails is tried again at each resume; a flush that failed is not, and costs the disk',
    async (t) => {
      const { faulty, device, ledger } = await formFlushed(t, 'suspend');
      const { cluster, disks } = faulty;
      const { alpha } = cluster;

      await disks[0]!.fail('writes');
      let ended = false;
      const writing = ledger.write(device, 0).finally(() => {
        ended = true;
      });
      const { io } = await alpha.until('suspended', ({ suspended }) => suspended);
      await alpha.call('resume', { volume: alpha.volume });
      await alpha.until('suspended again', (now) => {
        return now.suspended && now.io.disk_errors > io.disk_errors;
      });
      assert.equal(ended, false, 'a write ended');
      await disks[0]!.heal();
      await alpha.call('resume', { volume: alpha.volume });
      await writing;
      await device.flush();
      await ledger.verify(device, 'the device when its disk is well');

      await forgetWrites(disks[0]!, () => ledger.write(device, 40, 32));
      const flushed = device.flush().then(
        () => 'answered',
        () => 'failed',
      );
      const failed = await alpha.until('suspended', (now) => now.suspended);
      assert.equal(failed.disk, 'Failed');
      await disks[0]!.heal();
      await alpha.call('resume', { volume: alpha.volume });
      assert.equal(await flushed, 'failed', 'the flush');
      // R11: the disk is well, and what it lost does not come back by another flush.
      await assert.rejects(device.flush(), /EIO/);
      await assert.rejects(ledger.write(device, 0), /EIO/);
      await comeBack(faulty, device, disks[0]!);
      await endWhole(faulty, ledger);
    },
    { timeoutMs: 240_000, long: true },
  ),

  scenario(
    'ublk: a full filesystem under the metadata is refused by create, does no harm later, and a sparse copy on it costs the disk alone',
    async (t) => {
      await modprobe(t, 'ublk_drv');
      const full = await FullFilesystem.create(t);
      const file = join(full.directory, 'alpha.metadata');
      const place: Place = {
        ...ublkPlace,
        disks: async (_t, directory, count, bytes) => {
          const [one, other, , third] = await ublkPlace.disks(t, directory, count, bytes);
          return [one!, other!, file, third!];
        },
      };
      const cluster = await Cluster.prepare(t, place, {
        metadata: 'external',
        backingBytes: DISK_BYTES,
        volume: { onIoError: 'detach' },
      });
      const { alpha, beta } = cluster;
      await full.fill();
      const refused = await alpha.cli(['create'], { anyStatus: true });
      assert.notEqual(refused.status, 0, 'create on a full filesystem succeeded');
      assert.match(refused.stderr, /alpha\.metadata.*No space left on device/s);
      assert.ok(!existsSync(file), 'create left a part of a file');

      await full.empty();
      for (const node of cluster.nodes) await node.create();
      // The file has all its space by now.
      await full.fill();
      await Promise.all([alpha.up('--primary', '--force'), beta.up()]);
      await cluster.synced();
      const { device, ledger, load } = await startLoad(cluster);
      assert.equal(await load.stop(), null);
      const well = await alpha.status();
      assert.deepEqual([well.disk, well.io.disk_errors], ['UpToDate', 0]);
      await device.close();
      await cluster.synced();
      await alpha.stop();

      // What a sparse copy makes of it: between the superblocks there is nothing, and nothing is allocated.
      await t.run([
        ...(['fallocate', '--punch-hole', '--offset', '4096'] as const),
        ...['--length', String(statSync(file).size - 8192), file],
      ]);
      await full.fill();
      await alpha.up('--primary');
      await cluster.synced();
      const again = await alpha.open();
      const second = ledger.load(again, { depth: 8, flushEvery: 16 });
      assert.match((await isDiskless(cluster)).disk_reason, /No space left/);
      await endLoad(second);
      await ledger.verify(again, 'the device without its disk');
      await again.close();
      await alpha.stop();
      await full.empty();
      await alpha.up();
      await cluster.synced();
      await cluster.down();
      await cluster.assertSameData();
    },
    { timeoutMs: 360_000, long: true },
  ),
];
