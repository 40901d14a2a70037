// Daemons are stopped and killed at every moment of their start and of their end. Nothing is left that blocks the next.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Scenario, type ScenarioContext, scenario, waitFor } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

/** Lines of the log, and moments between them, that a start goes through. */
const MILESTONES = [/attached/, /"event":"role"/, /primary, serving/, /peer-up/];

function ublkDevices(): string[] {
  return readdirSync('/dev').filter((name) => /^ublk[bc]\d/.test(name));
}

/** Socket, notes and devices, each with what tells it from a later one of the same name. */
function leftovers(node: ClusterNode): Set<string> {
  const names = readdirSync(node.paths.runFolder).filter((name) => /\.(sock|ublk)$/.test(name));
  const files = names.map((name) => join(node.paths.runFolder, name));
  return new Set([
    ...files.map((path) => `${path} (inode ${statSync(path).ino})`),
    ...ublkDevices(),
  ]);
}

/** After a daemon was told to stop: no socket, no device, metadata in order. */
async function assertNothingLeft(node: ClusterNode): Promise<void> {
  assert.equal(existsSync(node.socket), false, `${node.socket} is left`);
  const note = readdirSync(node.paths.runFolder).filter((name) => name.endsWith('.ublk'));
  assert.deepEqual(note, [], 'the note of a device is left');
}

export function startStopScenarios(place: Place): Scenario[] {
  const { kind } = place;
  const rounds = kind === 'NBD' ? 20 : 6;
  return [
    scenario(
      `${kind}: killed and stopped at ${rounds} moments of its start, a primary always comes up the next time`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha } = cluster;
        const first = await alpha.open();
        const ledger = new Ledger(first.sizeBytes);
        await ledger.scatter(first, 0, ledger.blocks, place.blocks);
        await first.flush();
        await first.close();
        await alpha.stop();
        // How long a whole start takes here and now.
        const begin = performance.now();
        await alpha.up('--primary');
        const startMs = performance.now() - begin;
        await alpha.stop();

        for (let round = 0; round < rounds; round += 1) {
          // What the killed one before it left is taken away by a start that gets that far; this one leaves nothing of its own.
          const before = leftovers(alpha);
          const daemon = alpha.launch('--primary');
          await delay((startMs * round) / (rounds - 1));
          if (round % 2 === 0) await daemon.kill();
          else {
            const exit = await daemon.stop(place.patienceMs);
            // Before it has its handlers, a signal ends the process as any other.
            assert.ok(exit.signal === 'SIGTERM' || exit.status !== null, JSON.stringify(exit));
            for (const left of leftovers(alpha)) assert.ok(before.has(left), `${left} is left`);
          }
        }
        await alpha.up('--primary');
        await alpha.until('primary', ({ role, device, suspended }) => {
          return role === 'Primary' && device !== null && !suspended;
        });
        const device = await alpha.open();
        await ledger.verify(device, 'the device');
        await ledger.scatter(device, 0, ledger.blocks, 20);
        await device.flush();
        await device.close();
        await cluster.synced();
        await cluster.assertSameData();
        await alpha.dump();
        await cluster.down();
        await assertNothingLeft(alpha);
      },
      { timeoutMs: place.scenarioMs * 3 },
    ),

    scenario(
      `${kind}: killed right after each milestone of its start, a primary always comes up the next time`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.flush();
        await device.close();
        await alpha.stop();
        for (const milestone of MILESTONES) {
          const daemon = alpha.launch('--primary');
          await daemon.waitForOutput(t, milestone, {
            timeoutMs: place.patienceMs,
            intervalMs: 1,
          });
          await daemon.kill();
        }
        await alpha.up('--primary');
        await cluster.synced();
        const again = await alpha.open();
        await ledger.verify(again, 'the device');
        await again.close();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: killed while it stops under load, a primary comes up again with all that was acknowledged`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha } = cluster;
        const ledger = new Ledger((await alpha.status()).size_bytes);
        for (const afterMs of kind === 'NBD' ? [0, 1, 3, 8, 20, 50] : [0, 50, 300]) {
          const device = await alpha.open();
          const load = ledger.load(device, { depth: 4, flushEvery: 16 });
          await load.more(50);
          const daemon = alpha.daemon!;
          daemon.signal('SIGTERM');
          await delay(afterMs);
          await alpha.kill();
          await load.stop();
          await device.close().catch(() => {});
          await alpha.up('--primary');
          const again = await alpha.open();
          await ledger.verify(again, `the device, killed ${afterMs} ms after SIGTERM`);
          await again.close();
        }
        await cluster.synced();
        await cluster.assertSameData();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: a clean end is quick, leaves nothing, and an empty log: nothing is resynced afterwards`,
      async (t) => {
        const cluster = await Cluster.form(t, place);
        const { alpha, beta } = cluster;
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        await ledger.scatter(device, 0, ledger.blocks, place.blocks);
        await device.close();
        await cluster.synced();
        const daemons = cluster.nodes.map((node) => node.daemon!);
        await cluster.down();
        // Either would be told if a peer were waited for until its timeout.
        for (const { output } of daemons)
          assert.doesNotMatch(output, /still stopping|was heard from/);
        for (const node of cluster.nodes) await assertNothingLeft(node);
        if (kind === 'ublk') assert.deepEqual(ublkDevices(), []);
        await cluster.assertSameData();

        await Promise.all([alpha.up('--primary'), beta.up()]);
        await cluster.synced();
        const volume = await alpha.status();
        assert.equal(volume.replay_marked_chunks, 0);
        assert.equal(volume.link.resync_sent_bytes, 0);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: up --detach returns when the daemon is up, or says why it is not; down ends it`,
      async (t) => {
        const cluster = await Cluster.create(t, place);
        const { alpha } = cluster;
        const { stdout } = await alpha.cli(['up', '--detach', '--primary', '--force']);
        const [{ pid }] = [await alpha.statusJson()];
        guard(t, pid);
        assert.ok(stdout.includes(String(pid)), stdout);
        assert.equal((await alpha.status()).role, 'Primary');
        const twice = await alpha.cli(['up', '--detach'], { anyStatus: true });
        assert.equal(twice.status, 1);
        assert.match(twice.stderr, /running/);
        await alpha.cli(['down']);
        await waitFor(t, 'the daemon to be gone', () => !existsSync(`/proc/${pid}/exe`));
        await assertNothingLeft(alpha);
        const { status } = await alpha.cli(['down'], { anyStatus: true });
        assert.equal(status, 3);
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}

/** Kills a process that is no child of ours when this one ends, however it does. */
function guard(t: ScenarioContext, pid: number): void {
  const script = 'read -r _; kill -KILL "$1"';
  const watch = spawn('bash', ['-c', script, 'guard', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  t.undo('end the guard', () => {
    // Only then may it act: the number may be another process's by now.
    if (existsSync(`/proc/${pid}/exe`)) process.kill(pid, 'SIGKILL');
    watch.kill('SIGKILL');
  });
}
