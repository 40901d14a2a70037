// Clients that nobody here wrote, on a device whose size is no multiple of anything.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PATIENCE } from '../tools/patience.ts';
import { runFio, type Scenario, type ScenarioContext, scenario } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { nbdPlace } from './place.ts';

const MIB = 1 << 20;
/** No multiple of a chunk or an extent. */
const VOLUME_BYTES = 33 * MIB + 7 * 512;
const PATIENT = { timeoutMs: 60_000 * PATIENCE };

async function serve(t: ScenarioContext): Promise<{ cluster: Cluster; uri: string }> {
  // With external metadata all of the disk is data.
  const cluster = await Cluster.form(t, nbdPlace, {
    backingBytes: VOLUME_BYTES,
    metadata: 'external',
  });
  const { device, size_bytes } = await cluster.alpha.status();
  assert.equal(size_bytes, VOLUME_BYTES);
  return { cluster, uri: `nbd+unix:///r0?socket=${device}` };
}

async function end(cluster: Cluster): Promise<void> {
  await cluster.synced();
  await cluster.assertSameData();
  await cluster.down();
  await cluster.assertSameData();
}

function randomFile(cluster: Cluster, name: string): string {
  const path = join(cluster.directory, name);
  writeFileSync(path, randomBytes(VOLUME_BYTES));
  return path;
}

export function nbdClientScenarios(): Scenario[] {
  return [
    scenario('NBD: nbdinfo shows the export and all that it can do', async (t) => {
      const { cluster, uri } = await serve(t);
      const { stdout } = await t.run(['nbdinfo', '--json', uri]);
      const info = JSON.parse(stdout) as { exports: Array<Record<string, unknown>> };
      const [exported] = info.exports;
      assert.equal(exported!['export-name'], 'r0');
      assert.equal(exported!['export-size'], VOLUME_BYTES);
      for (const ability of ['flush', 'fua', 'trim', 'zero', 'fast_zero', 'multi_conn']) {
        const can = exported![`can_${ability}`];
        assert.equal(can, true, `can_${ability} is ${String(can)}`);
      }
      assert.equal(exported!.is_read_only, false);
      const minimum = Number(exported!.block_size_minimum);
      assert.ok(minimum === 1 || minimum === 512, `minimum block size ${minimum}`);
      assert.equal(Number(exported!.block_size_preferred), 4096);
      const listed = await t.run(['nbdinfo', '--list', '--json', uri]);
      const names = (JSON.parse(listed.stdout) as typeof info).exports.map(
        (each) => each['export-name'],
      );
      assert.deepEqual(names, ['r0']);
      const unknown = await t.run(['nbdinfo', uri.replace('/r0', '/r9')], { anyStatus: true });
      assert.notEqual(unknown.status, 0);
      await end(cluster);
    }),

    scenario('NBD: nbdcopy over four connections, in and out', async (t) => {
      const { cluster, uri } = await serve(t);
      const file = randomFile(cluster, 'image');
      const copy = join(cluster.directory, 'copy');
      const many = ['--connections=4', '--requests=16', '--flush'];
      await t.run(['nbdcopy', ...many, file, uri], PATIENT);
      await t.run(['nbdcopy', '--connections=4', uri, copy], PATIENT);
      await t.run(['cmp', file, copy]);
      const { link, thread } = await cluster.alpha.status();
      assert.ok(link.sent_bytes >= VOLUME_BYTES, 'not all was replicated');
      for (const [what, count] of Object.entries(thread)) {
        assert.ok(count > 0, `status counted no ${what}`);
      }
      await end(cluster);
      await t.run(['cmp', file, cluster.beta.paths.backing]);
    }),

    scenario('NBD: qemu-img converts, compares and measures', async (t) => {
      const { cluster, uri } = await serve(t);
      const file = randomFile(cluster, 'image');
      await t.run(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', file, uri], PATIENT);
      await t.run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', file, uri], PATIENT);
      const { stdout } = await t.run(['qemu-img', 'info', '--output=json', '-f', 'raw', uri]);
      assert.equal(
        (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'],
        VOLUME_BYTES,
      );
      await end(cluster);
      await t.run(['cmp', file, cluster.beta.paths.backing]);
    }),

    scenario(
      'NBD: qemu-io writes, zeroes, discards and flushes, down to the last sector',
      async (t) => {
        const { cluster, uri } = await serve(t);
        const last = VOLUME_BYTES - 512;
        const commands = [
          'write -P 0x11 0 8M',
          'write -f -P 0x22 1M 64k',
          'write -z 2M 1M',
          'write -z -u 3M 1M',
          'discard 4M 1M',
          'write -P 0x33 4195328 512',
          'write -P 0x44 5243000 3000',
          `write -P 0x55 ${last} 512`,
          'flush',
          'read -P 0x11 0 1M',
          'read -P 0x22 1M 64k',
          'read -P 0x00 2M 2M',
          'read -P 0x00 4M 1024',
          'read -P 0x33 4195328 512',
          'read -P 0x00 4195840 1047040',
          'read -P 0x44 5243000 3000',
          'read -P 0x11 5242880 120',
          `read -P 0x55 ${last} 512`,
          `read -P 0x00 ${last - 4096} 4096`,
        ];
        const words = commands.flatMap((command) => ['-c', command]);
        const { stdout } = await t.run(['qemu-io', '-f', 'raw', ...words, uri], PATIENT);
        assert.doesNotMatch(stdout, /failed|error/i, stdout);
        const beyond = await t.run(['qemu-io', '-f', 'raw', '-c', `write ${last} 1024`, uri], {
          anyStatus: true,
        });
        assert.match(`${beyond.stdout}${beyond.stderr}`, /error|Invalid|beyond|No space/i);
        await end(cluster);
      },
    ),

    scenario('NBD: fio verifies writes of all sizes, 512 bytes and more, and trims', async (t) => {
      const { cluster, uri } = await serve(t);
      await runFio(t, 'verify', {
        ...{ ioengine: 'nbd', uri, rw: 'randwrite', bsrange: '512-256k', blockalign: 512 },
        ...{ size: 24 * MIB, iodepth: 16, verify: 'crc32c', verify_fatal: 1, bs_unaligned: 1 },
        ...{ fsync: 32 },
      });
      await runFio(t, 'trim', {
        ...{ ioengine: 'nbd', uri, rw: 'randtrimwrite', bs: '16k', size: 8 * MIB, iodepth: 8 },
      });
      await end(cluster);
    }),

    scenario('NBD: the odd tail is dirty and resynced as a whole chunk', async (t) => {
      const { cluster, uri } = await serve(t);
      const { alpha, link } = cluster;
      link.cut();
      await alpha.unlinked();
      const last = VOLUME_BYTES - 512;
      await t.run(['qemu-io', '-f', 'raw', '-c', `write -P 0x77 ${last} 512`, '-c', 'flush', uri]);
      const { dirty_chunks, dirty_bytes } = (await alpha.status()).peers[0]!;
      assert.equal(dirty_chunks, 1);
      assert.equal(dirty_bytes, VOLUME_BYTES % 4096);
      link.join();
      await end(cluster);
    }),
  ];
}
