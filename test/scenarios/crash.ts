// Daemons are killed in the middle of their work. What was acknowledged is there afterwards, and only what may differ
// is copied.
import { strict as assert } from 'node:assert';
import { existsSync } from 'node:fs';
import { type Scenario, type ScenarioContext, scenario, startFio } from '../vm/guest/support.ts';
import { assertBetween, assertStatusJson } from './checks.ts';
import { Cluster, type Working } from './cluster.ts';
import { BLOCK_BYTES, Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Device, Place } from './place.ts';

const MIB = 1 << 20;
const EXTENT_BYTES = MIB;
const LOG_EXTENTS = 8;
const CHUNKS_PER_EXTENT = EXTENT_BYTES / BLOCK_BYTES;
const LOAD_DEPTH = 8;

/** Brings a killed primary back; over ublk it takes its device over, over NBD it is made primary again. */
async function comeBack(place: Place, node: ClusterNode): Promise<void> {
  await node.up();
  if (place.kind === 'NBD') await node.cli(['primary']);
  await node.until('primary again', ({ role, device, suspended }) => {
    return role === 'Primary' && device !== null && !suspended;
  });
}

/** The device as its users see it after the primary's daemon was replaced. */
async function reopened(place: Place, node: ClusterNode, device: Device): Promise<Device> {
  return place.kind === 'NBD' ? node.open() : device;
}

function form(t: ScenarioContext, place: Place): Promise<Cluster> {
  return Cluster.form(t, place, {
    volume: { extentBytes: EXTENT_BYTES, activityLogExtents: LOG_EXTENTS },
  });
}

/** A load that is going on; over ublk it does not notice that the primary's daemon is killed. */
async function startLoad(place: Place, cluster: Cluster): Promise<Working> {
  const device = await cluster.alpha.open();
  const ledger = new Ledger(device.sizeBytes);
  const load = ledger.load(device, { depth: LOAD_DEPTH, flushEvery: 32 });
  await load.more(place.blocks);
  return { device, ledger, load };
}

export function crashScenarios(place: Place): Scenario[] {
  const { kind } = place;
  const scenarios = [
    scenario(
      `${kind}: the primary's daemon is killed under load: nothing acknowledged is lost, and hot extents are resynced`,
      async (t) => {
        const cluster = await form(t, place);
        const { alpha, beta } = cluster;
        const { device, ledger, load } = await startLoad(place, cluster);
        await alpha.kill();
        const killedAt = ledger.sequence;
        if (kind === 'ublk') assert.ok(existsSync('/dev/ublkb0'), 'the device is gone');
        else assert.match(String(await load.ended), /closed/);
        await beta.unlinked();
        assert.equal((await assertStatusJson(beta)).role, 'Secondary');

        await comeBack(place, alpha);
        const again = await reopened(place, alpha, device);
        if (kind === 'ublk') {
          await load.more(place.blocks);
          assert.equal(await load.stop(), null);
        } else await ledger.verify(again, 'the device after the crash');
        await cluster.synced();
        const volume = await assertStatusJson(alpha);
        assertBetween(
          volume.replay_marked_chunks,
          1,
          LOG_EXTENTS * CHUNKS_PER_EXTENT,
          'chunks that the replay of the log marked',
        );
        // Over ublk the load goes on as soon as the device is taken over, before the peer is linked again. The new
        // daemon counts from zero.
        const writtenSince = LOAD_DEPTH + ledger.touchedSince(killedAt);
        assertBetween(
          volume.link.resync_sent_bytes,
          1,
          (volume.replay_marked_chunks + writtenSince) * BLOCK_BYTES,
          'bytes that were resynced',
        );
        await ledger.verify(again, 'the device');
        await again.flush();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: the primary is killed while the link is cut: marks and hot extents are all that is resynced`,
      async (t) => {
        const cluster = await form(t, place);
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.cut();
        await alpha.unlinked();
        // One block in every extent, so that the log must evict and write marks.
        for (let block = 3; block < ledger.blocks; block += CHUNKS_PER_EXTENT) {
          await ledger.write(device, block);
        }
        await device.flush();
        const marked = (await alpha.status()).peers[0]!.dirty_chunks;
        await alpha.kill();
        await comeBack(place, alpha);
        const apart = await assertStatusJson(alpha);
        assertBetween(
          apart.peers[0]!.dirty_chunks,
          marked,
          marked + LOG_EXTENTS * CHUNKS_PER_EXTENT,
          'dirty chunks after the crash',
        );
        const again = await reopened(place, alpha, device);
        await ledger.verify(again, 'the device after the crash');
        link.join();
        await cluster.synced();
        assert.equal(
          (await alpha.status()).link.resync_sent_bytes,
          apart.peers[0]!.dirty_chunks * BLOCK_BYTES,
        );
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: the secondary is killed under load, twice: writing goes on, and it is brought up to date`,
      async (t) => {
        const cluster = await form(t, place);
        const { alpha, beta } = cluster;
        const working = await startLoad(place, cluster);
        for (let round = 0; round < 2; round += 1) {
          await beta.kill();
          await alpha.unlinked();
          await working.load.more(Math.ceil(place.blocks / 2));
          await beta.up();
          await cluster.linked();
          await working.load.more(10);
        }
        await cluster.assertWhole(working);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 1.5 },
    ),

    ...['primary first', 'secondary first'].map((order) =>
      scenario(
        `${kind}: both daemons are killed at once and started again, the ${order}`,
        async (t) => {
          const cluster = await form(t, place);
          const { alpha, beta } = cluster;
          const { device, ledger, load } = await startLoad(place, cluster);
          await Promise.all([alpha.kill(), beta.kill()]);
          if (order === 'primary first') {
            await comeBack(place, alpha);
            await beta.up();
          } else {
            await beta.up();
            await comeBack(place, alpha);
          }
          const again = await reopened(place, alpha, device);
          if (kind === 'ublk') await load.more(50);
          await load.stop();
          await again.flush();
          await cluster.synced();
          await ledger.verify(again, 'the device');
          await cluster.assertSameData();
          await cluster.down();
        },
        { timeoutMs: place.scenarioMs * 1.5 },
      ),
    ),
  ];
  if (kind === 'ublk') {
    scenarios.push(
      scenario(
        'ublk: fio does not notice that the primary was killed and came back, three times',
        async (t) => {
          const cluster = await form(t, place);
          const { alpha } = cluster;
          const fio = startFio(t, 'load', {
            ...(await alpha.fio()),
            ...{ rw: 'randwrite', bsrange: '4k-64k', size: 8 * MIB, iodepth: 16, fsync: 16 },
            ...{ time_based: true, runtime: 60, verify: 'crc32c', verify_fatal: 1 },
          });
          for (let round = 0; round < 3; round += 1) {
            const { writes } = (await alpha.status()).io;
            await alpha.until('writes', (volume) => volume.io.writes > writes + 50);
            await alpha.kill();
            assert.ok(existsSync('/dev/ublkb0'), 'the device is gone');
            await comeBack(place, alpha);
          }
          assert.equal(fio.daemon.exit, undefined, 'fio ended before the last kill');
          await fio.finish(place.patienceMs * 3);
          await cluster.synced();
          await cluster.assertSameData();
          await cluster.down();
        },
        { timeoutMs: place.scenarioMs * 2 },
      ),
    );
  }
  return scenarios;
}
