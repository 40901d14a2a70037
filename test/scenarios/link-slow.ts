// The network neither works nor fails: it stalls, or it is slow. I/O goes on.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { assertBetween, assertStatusJson } from './checks.ts';
import { Cluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

export function slowLinkScenarios(place: Place): Scenario[] {
  const { kind, timeouts } = place;
  /** One way; a round trip is twice that. */
  const delayMs = kind === 'NBD' ? 250 : 1_000;
  const slow = { peerTimeout: timeouts.peerTimeout * 5 };
  return [
    scenario(
      `${kind}: a link that stalls without closing is given up in time; I/O goes on, and the link comes back`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { depth: 8, flushEvery: 16 });
        await load.more(50);
        link.stall();
        const stalledMs = performance.now();
        await alpha.unlinked();
        const lostMs = performance.now() - stalledMs;
        assertBetween(
          lostMs,
          0,
          timeouts.peerTimeout * 2 + 1_000,
          'ms until the link was given up',
        );
        await beta.unlinked();
        await load.more(place.blocks);
        const apart = await assertStatusJson(alpha);
        assert.equal(apart.disk, 'UpToDate');
        assert.notEqual(apart.peers[0]!.connection, 'Connected');
        assert.notEqual(apart.peers[0]!.reason, '', 'no reason is told');
        assert.ok(apart.peers[0]!.dirty_chunks > 0);
        link.join();
        await alpha.until('linked', (_, { connection }) => LINKED.has(connection));
        assert.equal(await load.stop(), null);
        await device.flush();
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: an idle link that stalls is found by its pings`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta, link } = cluster;
        link.stall();
        const stalledMs = performance.now();
        await Promise.all([alpha.unlinked(), beta.unlinked()]);
        const lostMs = performance.now() - stalledMs;
        assertBetween(
          lostMs,
          0,
          timeouts.peerTimeout * 2 + 1_000,
          'ms until the link was given up',
        );
        assert.equal((await alpha.status()).peers[0]!.dirty_chunks, 0);
        link.join();
        await cluster.synced();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: protocol C: a write waits for the peer; protocol A: it does not`,
      async (t) => {
        for (const protocol of ['C', 'A'] as const) {
          const cluster = await Cluster.form(t, place, { volume: { protocol }, timeouts: slow });
          const { alpha, link } = cluster;
          const device = await alpha.open();
          const ledger = new Ledger(device.sizeBytes);
          await ledger.write(device, 0, 4);
          link.setDelay(delayMs);
          const before = performance.now();
          await ledger.write(device, 0, 4);
          const tookMs = performance.now() - before;
          if (protocol === 'C') assertBetween(tookMs, delayMs * 2 - 20, 60_000, 'ms of a write');
          else assertBetween(tookMs, 0, delayMs * 1.5, 'ms of a write');
          link.setDelay(0);
          await cluster.synced();
          await cluster.assertSameData();
          await cluster.down();
        }
      },
      { timeoutMs: place.scenarioMs * 1.5 },
    ),

    scenario(
      `${kind}: protocol A: at the bound of the window writes wait, and all that was pending is marked by a cut`,
      async (t) => {
        const window = 32;
        const cluster = await Cluster.form(t, place, {
          volume: { protocol: 'A', asyncWindow: { writes: window } },
          timeouts: slow,
        });
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        assert.equal((await alpha.status()).policy.window_writes, window);
        link.stall();
        // Different blocks, so that each counts once.
        const pending = ledger.write(device, 0, window).then(() => 'done');
        assert.equal(await Promise.race([pending, t.run(['sleep', '30'])]), 'done');
        const volume = await alpha.until(
          'the window to fill',
          (_, peer) => peer.in_flight_writes >= window,
        );
        assert.equal(volume.peers[0]!.in_flight_writes, window);
        let isDone = false;
        const over = ledger.write(device, window, 1).then(() => {
          isDone = true;
        });
        // It is sent like the others, and waits for the peer, as MD's write-behind does.
        await alpha.until(
          'the write over the bound to be sent',
          (_, peer) => peer.in_flight_writes === window + 1,
        );
        assert.equal(isDone, false, 'a write over the bound did not wait');

        link.cut();
        await over;
        await alpha.unlinked();
        const { dirty_chunks: dirty } = (await assertStatusJson(alpha)).peers[0]!;
        assertBetween(dirty, window + 1, window + 1, 'dirty chunks after the cut');
        link.join();
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: protocol A over a slow link under load and a crash of the primary: both copies are equal in the end`,
      async (t) => {
        const cluster = await Cluster.form(t, place, {
          volume: { protocol: 'A', asyncWindow: { writes: 200, bytes: '1MiB' } },
          timeouts: slow,
        });
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.setDelay(Math.round(delayMs / 5));
        const load = ledger.load(device, { depth: 16, flushEvery: 100 });
        await load.more(place.blocks);
        await alpha.kill();
        link.setDelay(0);
        await alpha.up();
        if (kind === 'NBD') await alpha.cli(['primary']);
        await alpha.until('I/O', ({ device: path, suspended }) => path !== null && !suspended);
        await load.stop();
        const again = kind === 'NBD' ? await alpha.open() : device;
        await ledger.verify(again, 'the device after the crash');
        await again.flush();
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}

const LINKED = new Set(['ExchangingMaps', 'SyncSource', 'Connected']);
