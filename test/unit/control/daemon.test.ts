import { existsSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { ControlClient } from '../../../lib/control/client.ts';
import type { ControlEvent } from '../../../lib/control/protocol.ts';
import type { StatusJson } from '../../../lib/control/status.ts';
import { waitForGoal } from '../../../lib/control/wait.ts';
import { connectedStatus, nativeStatus, peerLink } from '../policy/status_samples.ts';
import { ENDING, failure, harness, NBD, until, volume } from './daemon_harness.ts';

test('starts as secondary, and stops device, volume, workers and socket in this order', async () => {
  const { daemon, fake, path, closed } = harness();
  await daemon.start();
  assert.equal(fake.calls, ['open r0', 'startLinks r0']);
  assert.equal(fake.policies[0]!.selectedPeers, ['beta']);
  const client = await ControlClient.connect(path);
  assert.equal(await client.call('primary'), { volume: 'r0', device: '/tmp/r0.sock' });
  await client.call('down');
  assert.equal(fake.calls.slice(2), [
    'promote r0',
    'startFrontend r0 nbd',
    'stopFrontend r0',
    ...ENDING,
  ]);
  assert.is(await daemon.ended, null);
  assert.is(closed.scripts, 1);
  assert.not(existsSync(path));
  await daemon.closeConnections();
  await client.closed;
});

test('status has the shape that others rely on', async () => {
  const { daemon, fake } = harness();
  await daemon.start();
  const status = connectedStatus({
    nowUs: 4_000_000,
    inFlightWrites: 3,
    connection: 'SyncSource',
    logHot: 2,
    resync: {
      target: false,
      bytesDone: 4 << 20,
      bytesTotal: 12 << 20,
      startedUs: 2_000_000,
      chunksSent: 1,
      unreadableChunks: 1,
    },
  });
  status.native.peers[0]!.dirtyChunks = 2048;
  status.native.peers[0]!.dirtyBytes = 8 << 20;
  status.links[0]!.connection = 'SyncSource';
  fake.volumes.get('r0')!.status = status;
  const json = JSON.parse(JSON.stringify(await daemon.status())) as StatusJson;
  assert.is(json.version, '1.2.3');
  const [r0] = json.volumes;
  assert.equal(
    [r0!.name, r0!.role, r0!.disk, r0!.device, r0!.size_bytes, r0!.chunk_bytes],
    ['r0', 'Secondary', 'UpToDate', null, 64 << 20, 4096],
  );
  assert.is(r0!.activity_log.extents, 1237);
  assert.is(r0!.activity_log.hot, 2);
  const [beta] = r0!.peers;
  assert.equal(
    [
      beta!.name,
      beta!.connection,
      beta!.disk,
      beta!.dirty_chunks,
      beta!.dirty_bytes,
      beta!.in_flight_writes,
    ],
    ['beta', 'SyncSource', 'UpToDate', 2048, 8 << 20, 3],
  );
  assert.equal(beta!.resync, {
    side: 'source',
    bytes_done: 4 << 20,
    bytes_total: 12 << 20,
    rate_bytes_per_s: 2 << 20,
    eta_ms: 4000,
    unreadable_chunks: 1,
  });
  await daemon.stop(false);
});

test('a peer that was never met lacks the whole volume, and says why it is not connected', async () => {
  const { daemon, fake } = harness();
  await daemon.start();
  fake.volumes.get('r0')!.status.links = [
    peerLink({ connection: 'Refused', reason: 'other secret' }),
  ];
  const [beta] = (await daemon.status()).volumes[0]!.peers;
  assert.equal(
    [beta!.dirty_bytes, beta!.dirty_chunks, beta!.disk, beta!.resync, beta!.reason],
    [64 << 20, 16_384, 'DUnknown', null, 'other secret'],
  );
  await daemon.stop(false);
});

test('a device that cannot be served demotes the volume again, and the reason is told', async () => {
  const { daemon, fake, path } = harness();
  await daemon.start();
  fake.failures.set('startFrontend', new TidemarkError('UBLK_UNAVAILABLE', 'no ublk'));
  const client = await ControlClient.connect(path);
  const error = await failure(client.call('primary', { force: true }));
  assert.is(error.code, 'UBLK_UNAVAILABLE');
  assert.equal(fake.calls.slice(2), ['promote r0 force', 'startFrontend r0 nbd', 'demote r0']);
  client.close();
  await daemon.stop(false);
});

test('secondary is refused while the device is in use', async () => {
  const { daemon, fake, path } = harness([volume(NBD)], { primary: true });
  await daemon.start();
  fake.failures.set('stopFrontend', new TidemarkError('UBLK_BUSY', 'mounted'));
  const client = await ControlClient.connect(path);
  assert.is((await failure(client.call('secondary'))).code, 'UBLK_BUSY');
  assert.not(fake.calls.includes('demote r0'));
  assert.equal(await client.call('secondary'), { volume: 'r0' });
  assert.equal(fake.calls.slice(-2), ['stopFrontend r0', 'demote r0']);
  client.close();
  await daemon.stop(false);
});

test('down is refused while a device is in use, and the daemon goes on; forced it stops', async () => {
  const second = volume(undefined, { name: 'r1' });
  second.nodes.alpha!.backing = '/a1';
  second.nodes.beta!.backing = '/b1';
  second.nodes.alpha!.frontend = { kind: 'nbd', socket: '/tmp/r1.sock' };
  const { daemon, fake, path } = harness([volume(NBD), second], { primary: true });
  await daemon.start();
  const client = await ControlClient.connect(path);
  // The first volume's device is stopped by then; the second one's is in use.
  const stop = fake.stopFrontend.bind(fake);
  fake.stopFrontend = async (name, force) => {
    if (name === 'r1' && !force) throw new TidemarkError('UBLK_BUSY', 'r1 is mounted');
    await stop(name, force);
  };
  assert.is((await failure(client.call('down'))).code, 'UBLK_BUSY');
  const { volumes } = await client.call<StatusJson>('status');
  assert.equal(
    volumes.map((v) => v.device),
    ['/tmp/r0.sock', '/tmp/r1.sock'],
    'the first one is served again',
  );
  await client.call('down', { force: true });
  assert.is(await daemon.ended, null);
  await daemon.closeConnections();
});

test('a volume that does not open undoes what was begun', async () => {
  const { daemon, fake, path, closed } = harness();
  fake.failures.set('open', new TidemarkError('BACKING_OPEN', '/a: no such file'));
  assert.is((await failure(daemon.start())).code, 'BACKING_OPEN');
  assert.equal(fake.calls, ['open r0', 'shutdown']);
  assert.is(closed.scripts, 1);
  assert.not(existsSync(path));
});

test('told to stop while it starts, it stops', async () => {
  const { daemon, fake, path } = harness([volume(NBD)], { primary: true });
  let open!: () => void;
  fake.gates.set(
    'open',
    new Promise((resolve) => {
      open = resolve;
    }),
  );
  const started = failure(daemon.start());
  const client = await (async () => {
    for (;;) {
      const found = await ControlClient.connect(path).catch(() => null);
      if (found) return found;
      await new Promise(setImmediate);
    }
  })();
  assert.is((await failure(client.call('primary'))).code, 'STARTING');
  const down = client.call('down');
  // Answered in order: the daemon has heard of 'down' by now.
  await client.call('ping');
  open();
  assert.is((await started).code, 'STOPPING');
  await down;
  assert.equal(fake.calls, ['open r0', 'startLinks r0', 'close r0', 'shutdown']);
  await daemon.closeConnections();
});

test('status of a replication worker that is stuck is what was known last, and says so at once', async () => {
  const { daemon, fake } = harness();
  await daemon.start();
  const known = fake.status.bind(fake);
  let release = () => {};
  let asked = 0;
  const stuck = new Promise<void>((resolve) => {
    release = resolve;
  });
  fake.status = async (name) => {
    asked += 1;
    await stuck;
    return known(name);
  };
  assert.ok((await daemon.status()).volumes[0]!.status_age_ms > 0);
  const { replication, volumes } = await daemon.status();
  assert.match(replication.problem, /has not answered for \d+\.\d s/);
  assert.is(volumes[0]!.name, 'r0');
  // Nobody else adds a question to those that wait.
  const before = asked;
  await Promise.all(Array.from({ length: 100 }, () => daemon.status()));
  assert.is(asked, before);
  release();
  await until(async () => (await daemon.status()).replication.problem === '');
  assert.is((await daemon.status()).volumes[0]!.status_age_ms, 0);
  await daemon.stop(false);
});

test('requests name their volume and peer, and nonsense in them is refused', async () => {
  const { daemon, fake, path } = harness();
  await daemon.start();
  const client = await ControlClient.connect(path);
  const codes: Array<[string, Record<string, unknown>, string]> = [
    ['nothing', {}, 'NO_METHOD'],
    ['primary', { volume: 'r9' }, 'NO_VOLUME'],
    ['primary', { force: 'yes' }, 'BAD_REQUEST'],
    ['primary', { colour: 1 }, 'BAD_REQUEST'],
    ['connect', { peer: 'gamma' }, 'NO_PEER'],
    ['disconnect', { peer: 7 }, 'BAD_REQUEST'],
    ['ping', { x: 1 }, 'BAD_REQUEST'],
  ];
  for (const [method, params, code] of codes) {
    assert.is((await failure(client.call(method, params))).code, code, method);
  }
  await client.call('connect', { discardMyData: true });
  await client.call('connect');
  await client.call('disconnect', { peer: 'beta' });
  await client.call('invalidate', { volume: 'r0' });
  assert.equal(fake.calls.slice(2), [
    'connect r0 beta discard',
    'connect r0',
    'disconnect r0 beta',
    'invalidate r0 beta',
  ]);
  client.close();
  await daemon.stop(false);
});

test('events reach subscribers, and wait hears of its goal by them', async () => {
  const { daemon, fake, path } = harness();
  await daemon.start();
  const client = await ControlClient.connect(path);
  const heard = new Promise<ControlEvent>((resolve) => void client.subscribe(resolve));
  await client.call('ping');
  const waiter = await ControlClient.connect(path);
  const waiting = waitForGoal(waiter, 'synced', undefined, 60_000);
  fake.volumes.get('r0')!.status = connectedStatus();
  fake.emit({ volume: 'r0', kind: 'peer-up', peer: 'beta', text: 'hello' });
  const event = await heard;
  assert.equal(
    [event.volume, event.kind, event.peer, event.text],
    ['r0', 'peer-up', 'beta', 'hello'],
  );
  await waiting;
  client.close();
  waiter.close();
  await daemon.stop(false);
});

test('wait ends with the state that it found when time is up', async () => {
  const { daemon, fake, path } = harness();
  await daemon.start();
  fake.volumes.get('r0')!.status = {
    native: nativeStatus({ disk: 'Inconsistent' }),
    links: [peerLink({ connection: 'SplitBrain', reason: 'both wrote' })],
  };
  const client = await ControlClient.connect(path);
  const error = await failure(waitForGoal(client, 'connected', 'r0', 30));
  assert.is(error.code, 'WAIT_TIMEOUT');
  assert.match(error.message, 'r0 is Inconsistent, beta SplitBrain (both wrote)');
  client.close();
  await daemon.stop(false);
});

test('a policy function that fails shows in status, and the default stays in use', async () => {
  const { daemon } = harness([volume(NBD, { selectPeers: () => 'beta' })]);
  await daemon.start();
  const { policy } = (await daemon.status()).volumes[0]!;
  assert.equal(policy.selected_peers, ['beta']);
  assert.equal(policy.failures, { selectPeers: 'no script here' });
  await daemon.stop(false);
});

test.run();
