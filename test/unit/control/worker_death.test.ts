// Replication workers that die, and the daemon that starts them again.
import { existsSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { Volume } from '../../../lib/config/types.ts';
import { ControlClient } from '../../../lib/control/client.ts';
import type { DaemonOptions } from '../../../lib/control/daemon.ts';
import { ENDING, failure, harness, until } from './daemon_harness.ts';
import { FakeReplication } from './fake_replication.ts';

/** What a worker finds that another one left as primary. */
const WAS_PRIMARY = { crashed: true, crashedPrimary: true };

/** A daemon whose replication workers are new fakes, each prepared by `prepare`. */
function mortal(
  volumes?: Volume[],
  prepare: (fake: FakeReplication, nth: number) => void | Promise<void> = () => {},
) {
  const fakes: FakeReplication[] = [];
  const more: Partial<DaemonOptions> = {
    startReplication: async () => {
      const fake = new FakeReplication();
      await prepare(fake, fakes.length);
      fakes.push(fake);
      return fake;
    },
  };
  return { ...harness(volumes, more), fakes };
}

test('a replication worker that dies is started again, and a primary is recovered as after a crash', async () => {
  let letStart = () => {};
  const mayStart = new Promise<void>((resolve) => {
    letStart = resolve;
  });
  const { daemon, fakes, path, closed } = mortal(undefined, (fake, nth) => {
    if (nth === 0) return;
    fake.attach = WAS_PRIMARY;
    return mayStart;
  });
  await daemon.start();
  const client = await ControlClient.connect(path);
  await client.call('primary');
  fakes[0]!.die(new Error('segmentation'));
  const meanwhile = await daemon.status();
  assert.match(meanwhile.replication.problem, 'the replication worker died (segmentation)');
  assert.equal(meanwhile.volumes, []);
  assert.is((await failure(client.call('secondary'))).code, 'RECOVERING');
  letStart();
  await until(async () => (await daemon.status()).replication.problem === '');
  const { replication, volumes } = await daemon.status();
  assert.equal(replication, { problem: '', restarts: 1, last_death: 'segmentation' });
  assert.equal([volumes[0]!.role, volumes[0]!.suspended], ['Primary', false]);
  assert.equal(fakes[1]!.calls, [
    'open r0 suspended',
    'startLinks r0',
    'promote r0',
    'startFrontend r0 nbd',
    'askPeers r0 300',
    'resume r0',
  ]);
  assert.is(closed.scripts, 0);
  client.close();
  await daemon.stop(false);
  assert.is(await daemon.ended, null);
});

test('R18: a primary that was told of another one since is secondary after a second death of its worker', async () => {
  const { daemon, fakes, path } = mortal(undefined, (fake, nth) => {
    fake.attach = { crashed: nth > 0, crashedPrimary: nth === 1 };
    // The first recovery is not over when its worker dies, too.
    if (nth === 1) fake.failures.set('promote', new TidemarkError('PEER_REFUSED', 'primary'));
  });
  await daemon.start();
  const client = await ControlClient.connect(path);
  await client.call('primary');
  fakes[0]!.die(new Error('x'));
  await until(() => fakes[1]?.calls.includes('promote r0') ?? false);
  await until(async () => (await daemon.status()).replication.problem === '');
  fakes[1]!.die(new Error('y'));
  await until(() => fakes[2]?.calls.includes('startLinks r0') ?? false);
  assert.equal(fakes[2]!.calls, ['open r0 suspended', 'resume r0', 'startLinks r0']);
  client.close();
  await daemon.stop(false);
});

test('a secondary stays one when its replication worker is started again', async () => {
  const { daemon, fakes } = mortal();
  await daemon.start();
  fakes[0]!.die(new Error('x'));
  await until(() => fakes[1]?.calls.includes('startLinks r0') ?? false);
  assert.equal(fakes[1]!.calls, ['open r0', 'startLinks r0']);
  await daemon.stop(false);
});

test('a worker that dies while it recovers is tried again; a volume that cannot be opened ends the daemon', async () => {
  const died = new TidemarkError('WORKER_EXITED', 'the replication worker ended with status 1');
  const { daemon, fakes, path, closed } = mortal(undefined, (fake, nth) => {
    if (nth === 1) fake.failures.set('open', died);
    if (nth === 2) fake.failures.set('open', new TidemarkError('LOCKED', 'somebody has it'));
  });
  await daemon.start();
  fakes[0]!.die(new Error('x'));
  const end = await daemon.ended;
  assert.is((end as TidemarkError).code, 'LOCKED');
  assert.is(fakes.length, 3);
  assert.is(closed.scripts, 1);
  assert.not(existsSync(path));
  await daemon.closeConnections();
});

test('a daemon that is told to stop while its worker is being started again stops', async () => {
  const { daemon, fakes } = mortal(undefined, (fake, nth) => {
    if (nth > 0) fake.failures.set('open', new TidemarkError('WORKER_EXITED', 'again'));
  });
  await daemon.start();
  fakes[0]!.die(new Error('x'));
  await until(() => fakes.length === 2);
  await daemon.stop(false);
  assert.is(await daemon.ended, null);
});

test('a daemon that is told to stop while it recovers stops what it recovered, device first', async () => {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const { daemon, fakes, path } = mortal(undefined, (fake, nth) => {
    if (nth === 0) return;
    fake.attach = WAS_PRIMARY;
    fake.gates.set('open', opened);
  });
  await daemon.start();
  const client = await ControlClient.connect(path);
  await client.call('primary');
  fakes[0]!.die(new Error('x'));
  await until(() => fakes[1]?.calls.length === 1);
  const stopping = daemon.stop(false);
  open();
  await stopping;
  assert.equal(fakes[1]!.calls.slice(-ENDING.length - 1), ['stopFrontend r0', ...ENDING]);
  assert.is(await daemon.ended, null);
  client.close();
});

test('a replication worker that dies while the daemon starts ends it', async () => {
  const { daemon, fakes, closed } = mortal(undefined, (fake) => {
    fake.gates.set('open', new Promise(() => {}));
  });
  daemon.start().catch(() => undefined);
  await until(() => fakes[0]?.calls.length === 1);
  fakes[0]!.die(new Error('segmentation'));
  const end = await daemon.ended;
  assert.match((end as Error).message, 'the replication worker died: segmentation');
  assert.is(closed.scripts, 1);
  await daemon.closeConnections();
});

test.run();
