// The network neither works nor fails: it stalls, or it is slow. I/O goes on.
import { strict as assert } from 'node:assert';
import { PATIENCE } from '../tools/patience.ts';
import { type Scenario, type ScenarioContext, scenario, waitFor } from '../vm/guest/support.ts';
import { assertBetween, assertStatusJson } from './checks.ts';
import { Cluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

const MIB = 1 << 20;
/** Longer than any of these scenarios: what stalls here stays linked. */
const PATIENT = { peerTimeout: 10 * 60_000 };

export function slowLinkScenarios(place: Place): Scenario[] {
  const { kind } = place;
  /** The timeout is waited for. */
  const peerTimeout = kind === 'NBD' ? 2_000 * PATIENCE : place.timeouts.peerTimeout;
  /** One way; a round trip is twice that. */
  const delayMs = kind === 'NBD' ? 50 : 200;
  return [
    scenario(
      `${kind}: a link that stalls without closing is given up in time; I/O goes on, and the link comes back`,
      async (t) => {
        const cluster = await Cluster.form(t, place, { timeouts: { peerTimeout } });
        const { alpha, beta, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { depth: 8, flushEvery: 16 });
        await load.more(50);
        const losses = cluster.nodes.map((node) => new Loss(node));
        link.stall();
        await Promise.all([alpha.unlinked(), beta.unlinked()]);
        for (const loss of losses) await loss.assertSilence(t, place, peerTimeout);
        await load.more(place.blocks);
        const apart = await assertStatusJson(alpha);
        assert.equal(apart.disk, 'UpToDate');
        assert.notEqual(apart.peers[0]!.connection, 'Connected');
        assert.notEqual(apart.peers[0]!.reason, '', 'no reason is told');
        assert.ok(apart.peers[0]!.dirty_chunks > 0);
        link.join();
        await cluster.linked();
        await cluster.assertWhole({ device, ledger, load });
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: an idle link that stalls is found by its pings`,
      async (t) => {
        const cluster = await Cluster.form(t, place, { timeouts: { peerTimeout } });
        const { alpha, beta, link } = cluster;
        const losses = cluster.nodes.map((node) => new Loss(node));
        link.stall();
        await Promise.all([alpha.unlinked(), beta.unlinked()]);
        for (const loss of losses) await loss.assertSilence(t, place, peerTimeout);
        assert.equal((await alpha.status()).peers[0]!.dirty_chunks, 0);
        link.join();
        await cluster.synced();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a peer that is reachable one way only is given up by both, whichever way it is; I/O goes on, and the link comes back`,
      async (t) => {
        const cluster = await Cluster.form(t, place, { timeouts: { peerTimeout } });
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { depth: 8, flushEvery: 16 });
        for (const [deaf, node] of cluster.nodes.entries()) {
          await load.more(50);
          const other = cluster.nodes[1 - deaf]!;
          const [loss, otherLoss] = [new Loss(node), new Loss(other)];
          link.holdAfter(deaf, 0);
          await Promise.all([node.unlinked(), other.unlinked()]);
          await loss.assertSilence(t, place, peerTimeout);
          // It is still heard, and hangs up.
          assert.match(await otherLoss.reason(t, place), /closed|reset/);
          await load.more(place.blocks);
          assert.ok((await alpha.status()).peers[0]!.dirty_chunks > 0);
          link.join();
          await cluster.linked();
        }
        await cluster.assertWhole({ device, ledger, load });
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: protocol C: a write waits for the peer; protocol A: it does not`,
      async (t) => {
        for (const protocol of ['C', 'A'] as const) {
          const cluster = await Cluster.form(t, place, { volume: { protocol }, timeouts: PATIENT });
          const { alpha, link } = cluster;
          const device = await alpha.open();
          const ledger = new Ledger(device.sizeBytes);
          await ledger.write(device, 0, 4);
          await cluster.synced();
          link.stall();
          let isDone = false;
          const writing = ledger.write(device, 0, 4).then(() => {
            isDone = true;
          });
          if (protocol === 'A') await writing;
          await alpha.until('all to be sent', (_, peer) => peer.in_flight_writes === 4);
          // One that was only slower than to be sent would be done by now.
          await device.read(MIB, 4096);
          assert.equal(isDone, protocol === 'A', 'a write is done while nothing gets through');
          link.join();
          await writing;
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
          timeouts: PATIENT,
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
          timeouts: PATIENT,
        });
        const { alpha, link } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.setDelay(delayMs);
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

/** The next time that a node loses its peer, as its log tells it. */
class Loss {
  private readonly node: ClusterNode;
  private readonly from: number;

  constructor(node: ClusterNode) {
    this.node = node;
    this.from = node.daemon!.output.length;
  }

  async reason(t: ScenarioContext, { patienceMs: timeoutMs }: Place): Promise<string> {
    const find = () => PEER_DOWN.exec(this.node.daemon!.output.slice(this.from));
    const [, reason] = await waitFor(t, `why ${this.node.name} lost its peer`, find, { timeoutMs });
    return reason!;
  }

  /** It was because nothing was heard for as long as was to be waited, and not much longer. */
  async assertSilence(t: ScenarioContext, place: Place, peerTimeoutMs: number): Promise<void> {
    const reason = await this.reason(t, place);
    const silentMs = SILENCE.exec(reason)?.[1];
    assert.ok(silentMs, `${this.node.name} lost its peer: ${reason}`);
    assertBetween(Number(silentMs), peerTimeoutMs, peerTimeoutMs * 2, 'ms of silence');
  }
}

const PEER_DOWN = /"event":"peer-down".*"msg":"(.+?)"\}/;
/** Also of a frame that was cut off in the middle. */
const SILENCE = /(?:nothing was heard from the peer for|bytes of it are here, and in) (\d+) ms/;
