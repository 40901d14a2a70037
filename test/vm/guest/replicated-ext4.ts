// A filesystem on a replicated device: the link is cut while it is written, and joined again.
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertBetween, assertStatusShape } from '../../scenarios/checks.js';
import { Cluster } from '../../scenarios/cluster.js';
import type { ClusterNode } from '../../scenarios/node.js';
import { ublkPlace } from '../../scenarios/place.js';
import {
  checkExt4,
  makeExt4,
  mount,
  type ScenarioContext,
  scenario,
  startFio,
  unmount,
} from './support.js';

const mib = 1 << 20;

function writeFiles(directory: string, round: number): void {
  for (let index = 0; index < 20; index += 1) {
    writeFileSync(join(directory, `file-${round}-${index}`), `${round} ${index} `.repeat(3_000));
  }
}

function hashFiles(directory: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!/file-/.test(name)) continue;
    hash.update(name).update(readFileSync(join(directory, name)));
  }
  return hash.digest('hex');
}

/** The disk's filesystem, through a read-only loop over its data. */
async function checkCopy(
  t: ScenarioContext,
  area: { path: string; offset: number; bytes: number },
): Promise<void> {
  await t.run(['/sbin/modprobe', 'loop']);
  const { stdout } = await t.run([
    ...(['losetup', '--find', '--show', '--read-only'] as const),
    ...['--offset', String(area.offset), '--sizelimit', String(area.bytes), area.path],
  ]);
  const device = stdout.trim();
  try {
    await checkExt4(t, device);
  } finally {
    await t.run(['losetup', '--detach', device]);
  }
}

/** A new filesystem on the node's device, mounted, with files on it. */
async function mounted(
  t: ScenarioContext,
  node: ClusterNode,
): Promise<{ device: string; directory: string }> {
  const device = (await node.status()).device!;
  await makeExt4(t, device);
  const directory = await mount(t, device);
  writeFiles(directory, 0);
  return { device, directory };
}

export default [
  scenario(
    'ublk: a forced stop of a mounted device first writes out what the filesystem on it holds',
    async (t) => {
      const cluster = await Cluster.form(t, ublkPlace);
      const { alpha } = cluster;
      const { directory } = await mounted(t, alpha);
      const written = hashFiles(directory);
      // Told to stop by a signal, it does so by force at last.
      assert.equal((await alpha.stop()).status, 0);
      await unmount(t, directory);
      await alpha.up('--primary');
      const again = await mount(t, (await alpha.status()).device!);
      assert.equal(hashFiles(again), written);
      await unmount(t, again);
      await cluster.synced();
      await cluster.assertSameData();
      await cluster.down();
    },
    { timeoutMs: ublkPlace.scenarioMs },
  ),

  scenario(
    'ublk: ext4 is written while the link is cut and joined; both disks end equal, and e2fsck finds them clean',
    async (t) => {
      const cluster = await Cluster.form(t, ublkPlace, { metadata: 'internal-start' });
      const { alpha, beta, link } = cluster;
      const { directory } = await mounted(t, alpha);
      await t.run(['sync', '--file-system', directory]);

      const fio = startFio(t, 'files', {
        ...{ directory, rw: 'randwrite', bsrange: '4k-32k', size: 6 * mib, fsync: 8 },
        ...{ iodepth: 4, ioengine: 'libaio', verify: 'crc32c', do_verify: 1 },
      });
      const { writes } = (await alpha.status()).io;
      await alpha.until('writes', ({ io }) => io.writes > writes + 20);
      link.cut();
      await alpha.unlinked();
      writeFiles(directory, 1);
      await fio.finish(120_000);
      await t.run(['sync', '--file-system', directory]);
      const { stdout: printed } = await alpha.cli(['status', '--json']);
      assertStatusShape(JSON.parse(printed));
      const apart = await alpha.status();
      const dirty = apart.peers[0]!.dirty_bytes;
      assertBetween(dirty, 20 * 4096, apart.size_bytes / 2, 'dirty bytes');

      link.join();
      await alpha.until('resynced', (_, peer) => {
        return peer.connection === 'Connected' && peer.dirty_chunks === 0;
      });
      const copied = (await alpha.status()).link.resync_sent_bytes - apart.link.resync_sent_bytes;
      // ext4 may have written its journal's superblock meanwhile, and nothing else.
      assertBetween(copied, dirty, dirty + 64 * 4096, 'bytes that were resynced');
      const files = hashFiles(directory);
      await unmount(t, directory);
      await cluster.synced();
      await cluster.down();
      await cluster.assertSameData();
      for (const node of [alpha, beta]) await checkCopy(t, node.dataArea);

      // The other copy serves the same files.
      await beta.up('--primary', '--force');
      const other = await mount(t, (await beta.status()).device!);
      assert.equal(hashFiles(other), files);
      await unmount(t, other);
      await beta.stop();
    },
    { timeoutMs: 360_000 },
  ),

  scenario(
    'ublk: ext4 stays mounted while the daemon of its device is killed and comes back',
    async (t) => {
      const cluster = await Cluster.form(t, ublkPlace);
      const { alpha } = cluster;
      const { device, directory } = await mounted(t, alpha);
      await alpha.kill();
      const syncing = t.run(['sync', '--file-system', directory], { timeoutMs: 120_000 });
      await alpha.up();
      await syncing;
      writeFiles(directory, 1);
      const files = hashFiles(directory);
      // While it is mounted the device is not taken away.
      const refused = await alpha.cli(['down'], { anyStatus: true });
      assert.equal(refused.status, 1, refused.stderr);
      assert.match(refused.stderr, /mount|use/i);
      await unmount(t, directory);
      const again = await mount(t, device);
      assert.equal(hashFiles(again), files);
      await unmount(t, again);
      await cluster.synced();
      await cluster.down();
      await cluster.assertSameData();
      for (const node of cluster.nodes) await checkCopy(t, node.dataArea);
    },
    { timeoutMs: 300_000 },
  ),
];
