// The link is cut and joined: what was written meanwhile is known exactly, and only that is copied.
import { strict as assert } from 'node:assert';
import { runFio, type Scenario, scenario, startFio } from '../vm/guest/support.ts';
import { assertBetween, assertStatusJson, chunksOf } from './checks.ts';
import { Cluster } from './cluster.ts';
import { BLOCK_BYTES, Ledger } from './ledger.ts';
import type { Place } from './place.ts';

const MIB = 1 << 20;
/** Frames, acknowledgements, maps and handshakes beside the data of a resync. */
const OVERHEAD_BYTES = 256 * 1024;
/** Bytes of frame header and acknowledgement for each piece of data, at most. */
const OVERHEAD_PER_CHUNK = 256;

export function linkCutScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: a cut after a flush: exactly what was written since is dirty, and only that is resynced`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 0, place.blocks);
        await device.flush();
        await alpha.until('all durable at the peer', (_, peer) => peer.in_flight_writes === 0);

        link.cut();
        await alpha.unlinked();
        const clean = await assertStatusJson(alpha);
        assert.equal(clean.peers[0]!.dirty_chunks, 0, 'dirty before anything was written');

        const span = Math.min(ledger.blocks, place.blocks * 4);
        const blocks = await ledger.scatter(device, 0, span, place.blocks);
        await device.flush();
        const chunks = chunksOf(blocks, clean.chunk_bytes);
        const apart = await assertStatusJson(alpha);
        assert.equal(apart.role, 'Primary');
        assert.equal(apart.disk, 'UpToDate');
        assert.equal(apart.peers[0]!.dirty_chunks, chunks, 'chunks written since the cut');
        assert.equal(apart.peers[0]!.dirty_bytes, chunks * clean.chunk_bytes);
        // What is dirty already is not counted twice.
        for (const block of blocks.slice(0, 20)) await ledger.write(device, block);
        await device.flush();
        assert.equal((await alpha.status()).peers[0]!.dirty_chunks, chunks);

        const target = await beta.status();
        const bytesBefore = link.bytes;
        link.join();
        await cluster.synced();
        const source = await assertStatusJson(alpha);
        assert.equal(
          source.link.resync_sent_bytes - apart.link.resync_sent_bytes,
          chunks * clean.chunk_bytes,
          'bytes that the source sent',
        );
        assert.equal(
          (await beta.status()).link.resync_received_bytes - target.link.resync_received_bytes,
          chunks * clean.chunk_bytes,
          'bytes that the target received',
        );
        const wire = link.bytes - bytesBefore;
        assertBetween(
          wire,
          chunks * clean.chunk_bytes,
          chunks * (clean.chunk_bytes + OVERHEAD_PER_CHUNK) + OVERHEAD_BYTES,
          'bytes on the wire',
        );
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
        await cluster.assertSameData();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a cut under load: what is dirty is what was written since, and at most the transfer log`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { depth: 16, flushEvery: 64 });
        await load.more(place.blocks);

        // All that the transfer log can hold was begun after the last epoch that is durable at the peer.
        const before = ledger.sequence;
        await load.more(place.blocks);
        link.cut();
        const cut = ledger.sequence;
        await alpha.unlinked();
        const from = ledger.sequence;
        await load.more(place.blocks);
        assert.equal(await load.stop(), null);
        await device.flush();

        const { dirty_chunks: dirty } = (await assertStatusJson(alpha)).peers[0]!;
        assertBetween(
          dirty,
          ledger.touchedSince(from),
          ledger.touchedSince(before),
          `dirty chunks (${ledger.touchedSince(cut)} written since the cut)`,
        );
        const sent = (await alpha.status()).link.resync_sent_bytes;
        link.join();
        await cluster.synced();
        const resynced = (await alpha.status()).link.resync_sent_bytes - sent;
        assert.equal(resynced, dirty * BLOCK_BYTES, 'bytes that were resynced');
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: fio writes and verifies while the link is cut and joined again and again`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, link } = cluster;
        const size = kind === 'NBD' ? 16 * MIB : 6 * MIB;
        const target = await alpha.fio();
        const fio = startFio(t, 'load', {
          ...target,
          ...{ rw: 'randwrite', bsrange: '4k-64k', size, iodepth: 16, loops: 2, fsync: 32 },
          ...{ verify: 'crc32c', verify_fatal: 1, do_verify: 1, randseed: 7 },
        });
        for (let round = 0; round < 3; round += 1) {
          const { writes } = (await alpha.status()).io;
          await alpha.until(
            'writes',
            (volume) => fio.daemon.exit !== undefined || volume.io.writes > writes + 30,
          );
          link.cut();
          await alpha.unlinked();
          const away = (await alpha.status()).io.writes;
          await alpha.until(
            'writes apart',
            (volume) => fio.daemon.exit !== undefined || volume.io.writes > away + 30,
          );
          link.join();
          await alpha.until(
            'linked',
            (_, peer) => peer.connection === 'Connected' || peer.connection === 'SyncSource',
          );
        }
        await fio.finish(place.patienceMs * 3);
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 1.5 },
    ),

    scenario(
      `${kind}: the device can be written while its resync runs`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.cut();
        await alpha.unlinked();
        await ledger.write(device, 0, Math.min(ledger.blocks, place.blocks * 4));
        await device.flush();
        // Slow enough to be caught in the act.
        link.setDelay(20);
        link.join();
        const load = ledger.load(device, { depth: 4, count: place.blocks * 4 });
        await alpha.until('resyncing', (_, peer) => peer.connection === 'SyncSource');
        await load.more(20);
        assert.equal(await load.stop(), null);
        link.setDelay(0);
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await device.flush();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a resync that is cut off goes on where it was`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        const device = await alpha.open();
        // More than the target flushes at once (csrc/core/link.cc): some of them are durable when the rest is held.
        const total = 500;
        const ledger = new Ledger(device.sizeBytes);
        link.cut();
        await alpha.unlinked();
        await ledger.scatter(device, 0, ledger.blocks, total);
        await device.flush();
        link.join();
        link.holdAfter(1, (total * BLOCK_BYTES * 3) / 4);
        await alpha.until('some of it copied', ({ peers: [peer] }) => {
          const left = peer!.dirty_chunks;
          return left > 0 && left < total;
        });
        link.cut();
        await alpha.unlinked();
        await beta.unlinked();
        const half = (await alpha.status()).peers[0]!.dirty_chunks;
        assertBetween(half, 1, total, 'chunks left');
        assert.equal((await assertStatusJson(beta)).disk, 'Inconsistent');
        const sent = (await alpha.status()).link.resync_sent_bytes;
        link.join();
        await cluster.synced();
        const resynced = (await alpha.status()).link.resync_sent_bytes - sent;
        assert.equal(resynced, half * BLOCK_BYTES);
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: chunks of 64 KiB: what is dirty and resynced are whole chunks`,
      async (t) => {
        const cluster = await Cluster.form(t, place, { volume: { chunkBytes: '64KiB' } });
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.cut();
        await alpha.unlinked();
        const blocks = await ledger.scatter(device, 0, ledger.blocks, 40);
        await device.flush();
        const chunks = chunksOf(blocks, 64 * 1024);
        const apart = await alpha.status();
        assert.equal(apart.chunk_bytes, 64 * 1024);
        assert.equal(apart.peers[0]!.dirty_chunks, chunks);
        link.join();
        await cluster.synced();
        const sent = (await alpha.status()).link.resync_sent_bytes - apart.link.resync_sent_bytes;
        assert.equal(sent, chunks * 64 * 1024);
        await runFio(t, 'verify', {
          ...(await alpha.fio()),
          ...{ rw: 'randwrite', bsrange: '512-96k', blockalign: 512, size: 2 * MIB, iodepth: 8 },
          ...{ verify: 'crc32c', bs_unaligned: 1 },
        });
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}
