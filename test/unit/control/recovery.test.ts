// A daemon that finds the device of one that died (R18).
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { ControlClient } from '../../../lib/control/client.ts';
import { failure, harness, UBLK, volume } from './daemon_harness.ts';

/** A crash before: the device is there, and a note of it. */
function crashed(noted = true, attach = { crashed: true, crashedPrimary: true }) {
  const h = harness([volume(UBLK)]);
  mkdirSync(join(h.sysfs, 'ublkc5'));
  if (noted) writeFileSync(join(h.runFolder, 'd.r0.ublk'), '5\n');
  h.fake.attach = attach;
  return h;
}

test('R18: after a crash the device is taken over, peers are asked, and then I/O goes on', async () => {
  const { daemon, fake } = crashed();
  await daemon.start();
  assert.equal(fake.calls, [
    'open r0 suspended',
    'startLinks r0',
    'promote r0',
    'startFrontend r0 ublk recover',
    'askPeers r0 300',
    'resume r0',
  ]);
  await daemon.stop(true);
});

const HALF_STOPPED = new TidemarkError(
  'UBLK_GONE',
  'ublk device 5 was stopped, and is now deleted',
);

test('a device that was being taken away when its daemon died is let go: the volume is secondary', async () => {
  const { daemon, fake, runFolder } = crashed();
  fake.failures.set('startFrontend', HALF_STOPPED);
  await daemon.start();
  assert.equal(fake.calls.slice(3), ['startFrontend r0 ublk recover', 'resume r0', 'demote r0']);
  const [r0] = (await daemon.status()).volumes;
  assert.equal([r0!.role, r0!.suspended, r0!.device], ['Secondary', false, null]);
  assert.not(existsSync(join(runFolder, 'd.r0.ublk')));
  await daemon.stop(false);
});

test('... and served anew when the daemon is told to be primary', async () => {
  const h = harness([volume(UBLK)], { primary: true });
  mkdirSync(join(h.sysfs, 'ublkc5'));
  writeFileSync(join(h.runFolder, 'd.r0.ublk'), '5\n');
  h.fake.attach = { crashed: true, crashedPrimary: true };
  h.fake.failures.set('startFrontend', HALF_STOPPED);
  await h.daemon.start();
  assert.equal(h.fake.calls.slice(5), ['demote r0', 'promote r0', 'startFrontend r0 ublk']);
  await h.daemon.stop(false);
});

test('R18: what a peer says against it keeps I/O suspended, and it goes on when that has cleared', async () => {
  const { daemon, fake, path } = crashed();
  fake.peerAnswer = 'beta is primary';
  await daemon.start();
  assert.not(fake.calls.includes('resume r0'));
  const [r0] = (await daemon.status()).volumes;
  assert.equal([r0!.role, r0!.suspended, r0!.suspend_reason], ['Primary', true, 'beta is primary']);
  const client = await ControlClient.connect(path);
  const error = await failure(client.call('primary'));
  assert.is(error.code, 'SUSPENDED');
  assert.match(error.message, 'beta is primary');
  const resumed = new Promise<void>((resolve) => {
    const resume = fake.resume.bind(fake);
    fake.resume = async (name) => {
      await resume(name);
      resolve();
    };
  });
  fake.peerAnswer = null;
  fake.emit({ volume: 'r0', kind: 'peer-down', peer: 'beta', text: '' });
  await resumed;
  assert.is((await daemon.status()).volumes[0]!.suspended, false);
  client.close();
  await daemon.stop(true);
});

test('R18: primary --force lets the I/O of a recovered device go on against the peers', async () => {
  const { daemon, fake, path } = crashed();
  fake.peerAnswer = 'beta is newer';
  await daemon.start();
  const client = await ControlClient.connect(path);
  await client.call('primary', { force: true });
  assert.is(fake.calls.at(-1), 'resume r0');
  client.close();
  await daemon.stop(true);
});

test('R18: a device whose I/O recovery keeps suspended is taken away by force only', async () => {
  const { daemon, fake, path } = crashed();
  fake.peerAnswer = 'beta is primary';
  await daemon.start();
  const client = await ControlClient.connect(path);
  for (const method of ['secondary', 'down']) {
    const error = await failure(client.call(method));
    assert.is(error.code, 'SUSPENDED');
    assert.match(error.message, /beta is primary; --force/);
  }
  assert.not(fake.calls.some((call) => call.startsWith('stopFrontend')));
  await client.call('secondary', { force: true });
  assert.equal(fake.calls.slice(-3), ['stopFrontend r0 force', 'resume r0', 'demote r0']);
  client.close();
  await daemon.stop(false);
});

test('R18: what waits since before this node was linked as secondary goes on by force only', async () => {
  // The mark of a crash as primary is gone once a peer was told of it.
  const { daemon, fake, path } = crashed(true, { crashed: true, crashedPrimary: false });
  await daemon.start();
  const [r0] = (await daemon.status()).volumes;
  assert.match(r0!.suspend_reason, /may be older than the data/);
  assert.equal(fake.calls, ['open r0 suspended', 'startLinks r0'], 'it stays secondary');
  const client = await ControlClient.connect(path);
  await client.call('primary', { force: true });
  assert.ok(fake.calls.includes('resume r0'));
  client.close();
  await daemon.stop(true);
});

test('R18: a promotion that is refused is tried again, and said in status until then', async () => {
  const { daemon, fake } = crashed();
  fake.refusals.set('promote', new TidemarkError('PEER_PRIMARY', 'beta is primary'));
  await daemon.start();
  const [r0] = (await daemon.status()).volumes;
  assert.match(r0!.suspend_reason, 'cannot become primary again: beta is primary');
  const resumed = new Promise<void>((resolve) => {
    fake.resume = async () => resolve();
  });
  fake.refusals.clear();
  fake.emit({ volume: 'r0', kind: 'peer-seen', peer: 'beta', text: '' });
  await resumed;
  await daemon.stop(true);
});

test('R18: secondary --force takes away a device that could not be taken over yet, and nothing less does', async () => {
  const { daemon, fake, path, runFolder } = crashed();
  fake.refusals.set('promote', new TidemarkError('PEER_PRIMARY', 'beta is primary'));
  await daemon.start();
  const client = await ControlClient.connect(path);
  const error = await failure(client.call('secondary'));
  assert.is(error.code, 'SUSPENDED');
  assert.match(error.message, /beta is primary; --force takes its device away/);
  assert.not(fake.calls.includes('resume r0'));
  const before = fake.calls.length;
  await client.call('secondary', { force: true });
  // It may have been tried once more before.
  const calls = fake.calls.slice(before).filter((call) => call !== 'promote r0');
  assert.equal(calls, [
    'startFrontend r0 ublk recover',
    'stopFrontend r0 force',
    'resume r0',
    'demote r0',
  ]);
  assert.not(existsSync(join(runFolder, 'd.r0.ublk')));
  client.close();
  await daemon.stop(false);
});

test('a device that is neither noted nor explained by a crash of this volume is not touched', async () => {
  const { daemon, fake } = crashed(false, { crashed: false, crashedPrimary: false });
  await daemon.start();
  assert.equal(fake.calls, ['open r0 suspended', 'resume r0', 'startLinks r0']);
  await daemon.stop(false);
});

test('a crash without its device, as after a reboot, is no recovery', async () => {
  const { daemon, fake, sysfs } = crashed();
  rmSync(join(sysfs, 'ublkc5'), { recursive: true });
  await daemon.start();
  assert.equal(fake.calls, ['open r0', 'startLinks r0']);
  await daemon.stop(false);
});

test('a recovered device that is in use is left to a successor when the start fails', async () => {
  const second = volume(undefined, { name: 'r1' });
  second.nodes.alpha!.backing = '/a1';
  second.nodes.beta!.backing = '/b1';
  const h = harness([volume(UBLK), second]);
  mkdirSync(join(h.sysfs, 'ublkc5'));
  writeFileSync(join(h.runFolder, 'd.r0.ublk'), '5\n');
  h.fake.attach = { crashed: true, crashedPrimary: true };
  const open = h.fake.open.bind(h.fake);
  h.fake.open = (spec) =>
    spec.name === 'r1' ? Promise.reject(new TidemarkError('LOCKED', 'r1')) : open(spec);
  h.fake.failures.set('stopFrontend', new TidemarkError('UBLK_BUSY', 'mounted'));
  assert.is((await failure(h.daemon.start())).code, 'LOCKED');
  assert.not(h.fake.calls.includes('close r0'));
  assert.not(h.fake.calls.includes('shutdown'));
  assert.ok(existsSync(join(h.runFolder, 'd.r0.ublk')));
});

test.run();
