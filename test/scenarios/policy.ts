// The user's policy functions decide, fail and hang. I/O goes on.
import { strict as assert } from 'node:assert';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { assertStatusJson } from './checks.ts';
import { Cluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { Place } from './place.ts';

/** What is told of functions that fail. */
const FAILURES = {
  asyncWindow: /tidemark\.config\.ts:4:\d+.*no window today/,
  flushInterval: /tidemark\.config\.ts:6:\d+.*-5/,
  selectPeers: /selectPeers.*300 ?ms/,
};

export function policyScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: functions decide window and flush interval, from the facts of now`,
      async (t) => {
        const cluster = await Cluster.form(t, place, {
          volume: { protocol: 'A' },
          source: [
            'asyncWindow: (facts) => ({ writes: facts.role === "Primary" ? 77 : 11 }),',
            'flushInterval: async ({ dirtyChunks }) => dirtyChunks > 0 ? "250ms" : 4000,',
          ].join('\n'),
        });
        const { alpha, beta, link } = cluster;
        await alpha.until('its window', ({ policy }) => policy.window_writes === 77);
        await beta.until('its window', ({ policy }) => policy.window_writes === 11);
        await alpha.until('its interval', ({ policy }) => policy.flush_interval_ms === 4000);
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        link.cut();
        await alpha.unlinked();
        await ledger.write(device, 0, 10);
        await alpha.until('a shorter interval', ({ policy }) => policy.flush_interval_ms === 250);
        await alpha.until('idle extents to leave the log', (v) => v.activity_log.hot === 0);
        link.join();
        await cluster.synced();
        await alpha.until('the longer one', ({ policy }) => policy.flush_interval_ms === 4000);
        assert.deepEqual((await assertStatusJson(alpha)).policy.failures, {});
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: a function that throws, lies or hangs is reported with its line; the default stays, and I/O goes on`,
      async (t) => {
        const cluster = await Cluster.form(t, place, {
          source: [
            'asyncWindow() {', // line 3
            '  throw new Error("no window today");',
            '},',
            'flushInterval: () => -5,',
            'selectPeers: ({ role }) => { if (role === "Primary") for (;;); return ["alpha", "beta"]; },',
            'policyDeadline: "300ms",',
          ].join('\n'),
        });
        const { alpha } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device);
        // A function that is late instead, on a busy machine, is asked again.
        const volume = await alpha.until('all failures to be told', ({ policy }) => {
          return Object.entries(FAILURES).every(([name, told]) => {
            return told.test(policy.failures[name as keyof typeof FAILURES] ?? '');
          });
        });
        assert.equal(volume.policy.window_writes, 2048);
        assert.equal(volume.policy.flush_interval_ms, 5000);
        // The log has the first failure of each, and the next one only after a while.
        await alpha.daemon!.waitForOutput(t, /tidemark\.config\.ts:\d+:\d+.*(no window today|-5)/);
        await load.more(100);
        assert.equal(await load.stop(), null);
        await cluster.synced();
        await ledger.verify(device, 'the device');
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: selectPeers moves the link to another peer and back; each gets what it missed`,
      async (t) => {
        const cluster = await Cluster.create(t, place, {
          third: true,
          // Gamma only while beta does not answer.
          source: [
            'selectPeers: ({ node, peers }) =>',
            '  node !== "alpha" ? ["alpha"]',
            '    : peers.some(({ name, reachable }) => name === "beta" && reachable === false)',
            '      ? ["beta", "gamma"] : ["beta"],',
          ].join('\n'),
        });
        const { alpha, beta, gamma } = cluster;
        await alpha.up('--primary', '--force');
        await Promise.all([beta.up(), gamma.up()]);
        const linkedTo = (name: string) =>
          alpha.until(`in step with ${name}`, ({ peers }) => {
            const peer = peers.find((each) => each.name === name)!;
            return (
              peer.connection === 'Connected' &&
              peer.dirty_chunks === 0 &&
              peer.in_flight_writes === 0
            );
          });
        const dirtyOf = async (name: string) =>
          (await alpha.status()).peers.find((each) => each.name === name)!.dirty_chunks;
        await linkedTo('beta');
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.write(device, 0, 40);
        await device.flush();

        await beta.kill();
        await linkedTo('gamma');
        await ledger.write(device, 20, 40);
        await device.flush();
        assert.equal(await dirtyOf('beta'), 40);
        assert.equal(await dirtyOf('gamma'), 0);

        await beta.up();
        await linkedTo('beta');
        await cluster.assertSameData();
        await ledger.write(device, 100, 30);
        await device.flush();
        assert.equal(await dirtyOf('gamma'), 30);
        await ledger.verify(device, 'the device');
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 1.5 },
    ),
  ];
}
