// The JavaScript of a daemon is blocked, dies, or is led astray by the user's script. Reads and local writes go on, memory
// stays bounded, status says what is wrong, and all comes back by itself.
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ControlClient } from '../../lib/control/client.ts';
import type { StatusJson } from '../../lib/control/status.ts';
import { memoryOf } from '../tools/memory.ts';
import { PATIENCE, SHADOWS } from '../tools/patience.ts';
import { type Scenario, type ScenarioContext, scenario, waitFor } from '../vm/guest/support.ts';
import { assertBetween, assertStatusShape } from './checks.ts';
import type { Cluster, Working } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';
import { formTroubled, Trouble } from './trouble.ts';

const MIB = 1 << 20;
/** A block is more than twice as long: a link that is up after it was not kept by JavaScript. */
const PEER_TIMEOUT_MS = 5_000;
/** The send ring and the window are no more, and node's own heap grows a little. */
const GROWTH_BYTES_MAX = 128 * MIB;

async function startLoad(cluster: Cluster): Promise<Working> {
  const device = await cluster.alpha.open();
  const ledger = new Ledger(device.sizeBytes);
  const load = ledger.load(device, { depth: 16, flushEvery: 32 });
  await load.more(50);
  return { device, ledger, load };
}

async function finish(cluster: Cluster, working: Working): Promise<void> {
  await cluster.linked();
  await cluster.assertWhole(working);
  for (const node of cluster.nodes) {
    assert.equal((await node.call<StatusJson>('status')).replication.problem, '');
  }
  await cluster.down();
}

/** What is told while a replication worker is blocked. */
async function stuckStatus(node: ClusterNode): Promise<StatusJson> {
  const status = await node.call<StatusJson>('status');
  assertStatusShape(status);
  assert.match(status.replication.problem, /has not answered for \d/);
  return status;
}

/** Runs something, and fails if the process grew by more than that meanwhile. */
async function assertGrowth<T>(
  t: ScenarioContext,
  node: ClusterNode,
  bytes: number,
  work: () => Promise<T>,
): Promise<T> {
  const { pid } = node.daemon!;
  const { nowBytes } = memoryOf(pid);
  const result = await work();
  const grown = memoryOf(pid).mostBytes - nowBytes;
  t.log(`${node.name} grew by ${Math.round(grown / MIB)} MiB`);
  assertBetween(
    grown,
    Number.NEGATIVE_INFINITY,
    bytes * SHADOWS,
    `bytes by which ${node.name} grew`,
  );
  return result;
}

export interface StuckOptions {
  /** A thread is blocked for so long, and until all that is looked at meanwhile was seen. */
  blockMs: number;
  /** What takes longest, or is much like another one, is only in the long run. */
  long: boolean;
}

export function stuckScenarios(place: Place, { blockMs, long }: StuckOptions): Scenario[] {
  const { kind } = place;
  const limit = { timeoutMs: 2 * (place.scenarioMs + blockMs) };
  assert.ok(blockMs > 2 * PEER_TIMEOUT_MS);
  const timeouts = { ping: kind === 'ublk' ? 500 : 100, peerTimeout: PEER_TIMEOUT_MS };
  const scenarios = [
    ...(['C', 'A'] as const).map((protocol) =>
      scenario(
        `${kind}: the primary's replication worker is blocked for ${blockMs} ms under protocol ${protocol}: I/O and the link go on`,
        async (t) => {
          const options = { volume: { protocol }, timeouts };
          const cluster = await formTroubled(t, place, options);
          const { alpha, beta } = cluster;
          const working = await startLoad(cluster);
          const { device, load } = working;
          await assertGrowth(t, alpha, GROWTH_BYTES_MAX, async () => {
            const trouble = await Trouble.make(t, cluster, alpha, 'replication', 'block');
            await load.more(place.blocks);
            await device.read(0, 4096);
            const { volumes } = await stuckStatus(alpha);
            assert.ok(volumes[0]!.status_age_ms > 0, 'old status is told as new');
            assert.match((await alpha.cli(['status'])).stdout, /^PROBLEM: .*not answered/);
            assert.equal((await beta.status()).peers[0]!.connection, 'Connected');
            await trouble.release(t, blockMs);
          });
          assert.equal((await alpha.status()).peers[0]!.dirty_chunks, 0, 'the link was lost');
          await finish(cluster, working);
        },
        limit,
      ),
    ),

    scenario(
      `${kind}: the secondary's replication worker is blocked for ${blockMs} ms: the link goes on`,
      async (t) => {
        const cluster = await formTroubled(t, place, { timeouts });
        const { alpha, beta } = cluster;
        const working = await startLoad(cluster);
        const trouble = await Trouble.make(t, cluster, beta, 'replication', 'block');
        await working.load.more(place.blocks);
        await stuckStatus(beta);
        const [peer] = (await alpha.status()).peers;
        assert.equal(peer!.connection, 'Connected');
        assert.equal(peer!.dirty_chunks, 0, 'the link was lost');
        await trouble.release(t, blockMs);
        await finish(cluster, working);
      },
      limit,
    ),

    scenario(
      `${kind}: the primary's main thread is blocked for ${blockMs} ms: neither I/O nor the link take notice`,
      async (t) => {
        const cluster = await formTroubled(t, place, { timeouts });
        const { alpha, beta } = cluster;
        const working = await startLoad(cluster);
        await assertGrowth(t, alpha, GROWTH_BYTES_MAX, async () => {
          const control = await ControlClient.connect(alpha.socket);
          t.undo('close the control connection', () => control.close());
          const trouble = await Trouble.make(t, cluster, alpha, 'main', 'block');
          // Its answer comes when it is over.
          const late = control.call<StatusJson>('status');
          for (let part = 0; part < 4; part += 1) {
            await working.load.more(place.blocks / 4);
            assert.equal((await beta.status()).peers[0]!.connection, 'Connected');
          }
          await trouble.release(t, blockMs);
          assert.equal((await late).replication.problem, '');
        });
        assert.doesNotMatch(alpha.daemon!.output + beta.daemon!.output, /peer-down/);
        await finish(cluster, working);
      },
      limit,
    ),

    scenario(
      `${kind}: policy functions that never answer, leak, throw, or end their worker cost nobody else anything`,
      async (t) => {
        const cluster = await formTroubled(t, place, {
          // Within it a heap or buffers fill to their limit.
          volume: { policyDeadline: `${DEADLINE_MS}ms` },
          files: { mode: 'good' },
          source: MISLED,
        });
        const { alpha } = cluster;
        const working = await startLoad(cluster);
        const setMode = (mode: string) => writeFileSync(join(cluster.directory, 'mode'), mode);
        const failure = async () => (await alpha.status()).policy.failures.asyncWindow ?? '';
        // One worker's heap or buffers at their limit, while the next one starts.
        await assertGrowth(t, alpha, 700 * MIB, async () => {
          await alpha.until('its window', ({ policy }) => policy.window_writes === 100);
          for (const [mode, told] of [
            ['never', LATE],
            ['exit', /policy worker ended: exit status 3/],
            ['heap', /policy worker ended: .*memory/],
            ...(long ? OTHER_MODES : []),
          ] as const) {
            setMode(mode);
            await waitFor(t, `${mode} to be told`, async () => told.test(await failure()));
            await working.load.more(20);
            setMode('good');
            await waitFor(t, `the end of ${mode}`, async () => (await failure()) === '');
          }
          setMode('buffers');
          await alpha.daemon!.waitForOutput(t, /replaced: the script holds \d+ MiB in buffers/);
          setMode('good');
          await working.load.more(20);
        });
        assert.equal((await alpha.status()).policy.window_writes, 100);
        await finish(cluster, working);
      },
      limit,
    ),

    scenario(
      `${kind}: the primary's replication worker dies: it is started again, and the volume is recovered and served again`,
      async (t) => {
        const cluster = await formTroubled(t, place);
        const { alpha } = cluster;
        let working = await startLoad(cluster);
        const { pid } = alpha.daemon!;
        const deaths = ['throw', 'exit', ...(long ? (['leak'] as const) : [])] as const;
        for (const [round, what] of deaths.entries()) {
          await Trouble.make(t, cluster, alpha, 'replication', what);
          if (kind === 'NBD') assert.match(String(await working.load.ended), /closed/);
          const { replication } = await restarted(t, alpha, round + 1);
          assert.match(replication.last_death, DEATHS[what]);
          assert.equal(alpha.daemon!.pid, pid);
          assert.equal(alpha.daemon!.exit, undefined, 'the daemon ended');
          const ledger = working.ledger;
          const device = kind === 'NBD' ? await alpha.open() : working.device;
          if (kind === 'NBD') await ledger.verify(device, `the device after '${what}'`);
          const load = kind === 'NBD' ? ledger.load(device, { depth: 16 }) : working.load;
          working = { device, ledger, load };
          await load.more(50);
          await cluster.linked();
        }
        await finish(cluster, working);
      },
      limit,
    ),

    scenario(
      `${kind}: the secondary's replication worker dies: the primary goes on, and the secondary comes back`,
      async (t) => {
        const cluster = await formTroubled(t, place);
        const { beta } = cluster;
        const working = await startLoad(cluster);
        await Trouble.make(t, cluster, beta, 'replication', 'exit');
        await working.load.more(place.blocks);
        const status = await restarted(t, beta, 1);
        assert.equal(status.volumes[0]!.role, 'Secondary');
        await finish(cluster, working);
      },
      limit,
    ),
  ];
  return scenarios.filter(({ name }) => long || !LONG_ONLY.test(name));
}

const LONG_ONLY = /the secondary's/;

const DEADLINE_MS = 5_000 * PATIENCE;

const LATE = new RegExp(`did not answer within ${DEADLINE_MS} ms`);

const OTHER_MODES = [
  ['busy', LATE],
  ['throw', /no window today/],
] as const;

/** Waits until the worker was started again so often, and the volumes are as they were. */
function restarted(t: ScenarioContext, node: ClusterNode, times: number): Promise<StatusJson> {
  return waitFor(t, `${node.name}'s replication worker to run again`, async () => {
    const status = await node.call<StatusJson>('status');
    const { problem, restarts } = status.replication;
    const isUp = problem === '' && restarts === times && status.volumes.length === 1;
    const volume = status.volumes[0];
    const isServed = volume?.role === 'Secondary' || volume?.device !== null;
    return isUp && isServed && !volume!.suspended ? status : null;
  });
}

const DEATHS = { throw: /thrown by a test/, exit: /status 7/, leak: /memory/ } as const;

/** A window that is asked every second, by a script that does what a file says. */
const MISLED = `
  asyncWindow: async () => {
    const { readFileSync } = await import('node:fs');
    const mode = readFileSync(new URL('mode', import.meta.url), 'utf8');
    const kept = (globalThis.kept ??= []);
    if (mode === 'never') await new Promise(() => {});
    if (mode === 'busy') for (;;);
    if (mode === 'throw') throw new Error('no window today');
    if (mode === 'exit') process.exit(3);
    if (mode === 'heap') for (let i = 0; i < 100; i += 1) kept.push(new Array(100_000).fill(i + 0.5));
    if (mode === 'buffers') kept.push(Buffer.alloc(100 << 20, 1));
    return { writes: 100 };
  },`;
