// Roles are exchanged, copies are written apart, and nothing is ever overwritten that nobody gave up.
import { strict as assert } from 'node:assert';
import { existsSync } from 'node:fs';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { assertStatusJson } from './checks.ts';
import { Cluster } from './cluster.ts';
import { hashArea } from './disks.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

export function roleScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: roles are exchanged and exchanged back, with writes in each`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta } = cluster;
        let device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.close();
        for (const [from, to] of [
          [alpha, beta],
          [beta, alpha],
        ] as const) {
          const refused = await to.cli(['primary'], { anyStatus: true });
          assert.notEqual(refused.status, 0, 'two primaries');
          await from.cli(['secondary']);
          assert.equal((await assertStatusJson(from)).device, null);
          await to.cli(['primary']);
          const volume = await to.until('primary', ({ role }) => role === 'Primary');
          assert.ok(volume.device);
          await from.until('the role of the peer', (_, peer) => peer.role === 'Primary');
          device = await to.open();
          await ledger.verify(device, `the device of ${to.name}`);
          await ledger.scatter(device, 0, ledger.blocks, place.blocks);
          await device.flush();
          await device.close();
          await cluster.assertSameData();
        }
        await cluster.synced();
        await cluster.down();
        await cluster.assertSameData();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a primary that was killed comes back as secondary of the other, and is brought up to date`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta } = cluster;
        const first = await alpha.open();
        const ledger = new Ledger(first.sizeBytes);
        await ledger.scatter(first, 0, ledger.blocks, place.blocks);
        await first.flush();
        await first.close();
        await alpha.kill();
        await beta.unlinked();
        await beta.cli(['primary', '--force']);
        const device = await beta.open();
        await ledger.verify(device, 'the device of beta');
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.flush();
        const before = (await beta.status()).link.resync_sent_bytes;

        await alpha.up();
        if (kind === 'ublk') {
          // Its device waited for it. I/O on that may not go on: the data has moved (R18).
          const held = await alpha.until('suspended', ({ suspended }) => suspended);
          assert.equal(held.device, '/dev/ublkb0');
          assert.match((await assertStatusJson(alpha)).suspend_reason, /beta|peer/);
          const refused = await alpha.cli(['secondary'], { anyStatus: true });
          assert.equal(refused.status, 1);
          assert.match(refused.stderr, /suspended.*--force/);
          await alpha.cli(['secondary', '--force']);
          assert.equal(existsSync('/dev/ublkb0'), false, 'the device is left');
        }
        await cluster.synced();
        const volume = await assertStatusJson(beta);
        assert.equal(volume.role, 'Primary');
        assert.equal((await assertStatusJson(alpha)).role, 'Secondary');
        assert.ok(volume.link.resync_sent_bytes > before, 'nothing was resynced');
        assert.ok(volume.link.resync_sent_bytes - before < volume.size_bytes, 'all was resynced');
        await ledger.verify(device, 'the device of beta');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: two that were written apart are a split brain: nothing is overwritten until one yields`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 0, 50);
        await device.flush();
        link.cut();
        await alpha.unlinked();
        await beta.unlinked();
        await beta.cli(['primary', '--force']);
        const other = await beta.open();
        await ledger.write(device, 10, 20);
        await device.flush();
        const foreign = new Ledger(other.sizeBytes, 77);
        await foreign.write(other, 20, 30);
        await foreign.write(other, 20, 30);
        await other.flush();
        await other.close();

        const before = await Promise.all(cluster.nodes.map((node) => hashArea(node.dataArea)));
        link.join();
        for (const node of cluster.nodes) {
          const volume = await node.until(
            'split brain',
            (_, peer) => peer.connection === 'SplitBrain',
          );
          assert.notEqual(volume.peers[0]!.reason, '');
          assert.equal((await assertStatusJson(node)).peers[0]!.connection, 'SplitBrain');
        }
        // The primary that is to yield may not while it is primary.
        const early = await beta.cli(['connect', 'alpha', '--discard-my-data'], {
          anyStatus: true,
        });
        const after = await Promise.all(cluster.nodes.map((node) => hashArea(node.dataArea)));
        assert.deepEqual(after, before, 'a copy was overwritten');
        t.log(`while primary: ${early.status} ${early.stderr}`);

        await beta.cli(['secondary']);
        await beta.cli(['connect', 'alpha', '--discard-my-data']);
        await alpha.cli(['connect', 'beta']);
        await cluster.synced();
        await ledger.verify(device, 'the device of alpha');
        assert.equal(await hashArea(alpha.dataArea), before[0], 'the copy that counts changed');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 1.5 },
    ),

    scenario(
      `${kind}: an invalidated copy is made anew from its peer`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.flush();
        const refused = await alpha.cli(['invalidate'], { anyStatus: true });
        assert.notEqual(refused.status, 0, 'a primary was invalidated');
        const sent = (await alpha.status()).link.resync_sent_bytes;
        await beta.cli(['invalidate']);
        await alpha.until(
          'a whole resync',
          (volume) => volume.link.resync_sent_bytes - sent >= volume.size_bytes,
        );
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a disconnected peer stays away until it is told to connect, and may not take over unforced`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await alpha.cli(['disconnect']);
        await alpha.until('StandAlone', (_, peer) => peer.connection === 'StandAlone');
        await beta.until('outdated', ({ disk }) => disk === 'Outdated');
        await ledger.scatter(device, 0, ledger.blocks, 30);
        await device.flush();
        assert.equal((await assertStatusJson(alpha)).peers[0]!.dirty_chunks, 30);
        const refused = await beta.cli(['primary'], { anyStatus: true });
        assert.equal(refused.status, 1, refused.stderr);
        assert.match(refused.stderr, /[Oo]utdated/);
        assert.equal((await beta.status()).role, 'Secondary');
        await alpha.cli(['connect']);
        await alpha.cli(['wait', '--for', 'synced', '--timeout', '60s']);
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}
