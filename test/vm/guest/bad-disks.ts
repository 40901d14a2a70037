// Disks that fail under a volume: the primary's, the secondary's, the one with the metadata, a filesystem that is full. The
// long ones have their like in test/scenarios/bad-disks.ts, on files.
import { strict as assert } from 'node:assert';
import { existsSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Cluster, type ClusterOptions } from '../../scenarios/cluster.js';
import { Ledger } from '../../scenarios/ledger.js';
import { type Place, ublkPlace } from '../../scenarios/place.js';
import {
  FaultyDisk,
  loopDisk,
  makeExt4,
  modprobe,
  mount,
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
  const load = ledger.load(device, { depth: 8, flushEvery: 16 });
  await load.more(WRITES);
  return { device, ledger, load };
}

async function endEqual({ cluster }: Faulty): Promise<void> {
  await cluster.synced();
  await cluster.down();
  await cluster.assertSameData();
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
      });
      const { writes } = (await alpha.status()).io;
      await alpha.until('writes', ({ io }) => io.writes > writes + 20);
      await disks[0]!.fail('all');
      const diskless = await alpha.until('without a disk', ({ disk }) => disk === 'Diskless');
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
      const again = ledger.load(device, { depth: 8, flushEvery: 16 });
      await again.more(WRITES);
      assert.equal(await again.stop(), null);
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
      const more = ledger.load(device, { depth: 8, flushEvery: 16 });
      await more.more(WRITES);
      assert.equal(await more.stop(), null);
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
      await load.more(WRITES);
      assert.equal(await load.stop(), null);
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
      const { alpha } = cluster;
      const { device, ledger, load } = await startLoad(cluster);
      await disks[2]!.fail('writes');
      await alpha.until('without a disk', ({ disk }) => disk === 'Diskless');
      await load.more(WRITES);
      assert.equal(await load.stop(), null);
      await ledger.verify(device, 'the device without its disk');
      await device.close();
      await alpha.stop();
      await disks[2]!.heal();
      await alpha.up();
      await endEqual(faulty);
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
      const diskless = await alpha.until('without a disk', ({ disk }) => disk === 'Diskless');
      assert.match(diskless.disk_reason, /No space left/);
      await second.more(WRITES);
      assert.equal(await second.stop(), null);
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

/** A small ext4 that can be full to its last block. */
class FullFilesystem {
  readonly directory: string;
  private readonly t: ScenarioContext;

  private constructor(t: ScenarioContext, directory: string) {
    this.t = t;
    this.directory = directory;
  }

  static async create(t: ScenarioContext): Promise<FullFilesystem> {
    const disk = await loopDisk(t, 'filesystem', 8 * MIB);
    await makeExt4(t, disk);
    return new FullFilesystem(t, await mount(t, disk));
  }

  private get ballast(): string {
    return join(this.directory, 'ballast');
  }

  async fill(): Promise<void> {
    for (const block of ['64k', '4k']) {
      const dd = await this.t.run(
        [
          ...(['dd', 'if=/dev/zero', `of=${this.ballast}`, `bs=${block}`] as const),
          ...['oflag=append,direct', 'conv=notrunc,fsync'],
        ],
        { anyStatus: true },
      );
      assert.match(dd.stderr, /No space left/);
    }
  }

  async empty(): Promise<void> {
    rmSync(this.ballast);
    await this.t.run(['sync', '--file-system', this.directory]);
  }
}
