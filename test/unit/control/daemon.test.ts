import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import type { Volume, VolumeNode } from '../../../lib/config/types.ts';
import { ControlClient } from '../../../lib/control/client.ts';
import { Daemon, type DaemonOptions } from '../../../lib/control/daemon.ts';
import type { ControlEvent } from '../../../lib/control/protocol.ts';
import { socketPath } from '../../../lib/control/socket_claim.ts';
import type { StatusJson } from '../../../lib/control/status.ts';
import { waitForGoal } from '../../../lib/control/wait.ts';
import { scratchFolder } from '../config/scratch.ts';
import { connectedStatus, nativeStatus, peerLink } from '../policy/status_samples.ts';
import { FakeReplication } from './fake_replication.ts';

const folder = scratchFolder('daemon');
let runs = 0;

const NBD = { kind: 'nbd', socket: '/tmp/r0.sock' } as const;
const UBLK = { kind: 'ublk', id: 5 } as const;

function volume(frontend?: VolumeNode['frontend'], more: Partial<Volume> = {}): Volume {
  return {
    name: 'r0',
    nodes: {
      alpha: {
        backing: '/a',
        address: '127.0.0.1:1',
        ...(frontend === undefined ? {} : { frontend }),
      },
      beta: { backing: '/b', address: '127.0.0.1:2' },
    },
    timeouts: { recoveryTimeout: 300 },
    ...more,
  };
}

/** A daemon over a fake replication, in a run folder and a /sys of its own. */
function harness(volumes: Volume[] = [volume(NBD)], more: Partial<DaemonOptions> = {}) {
  runs += 1;
  const runFolder = join(folder, `run${runs}`);
  const sysfs = join(folder, `sys${runs}`);
  mkdirSync(sysfs);
  mkdirSync(runFolder);
  const { config } = resolveConfig({ volumes }, { path: '/c.ts', hostname: 'alpha' });
  const fake = new FakeReplication();
  const path = socketPath(config, runFolder);
  const closed = { scripts: 0 };
  const daemon = new Daemon({
    version: '1.2.3',
    node: config.node,
    name: 'd',
    runFolder,
    socketPath: path,
    volumes: config.volumes,
    scripts: {
      call: () => Promise.reject(new TidemarkError('POLICY_WORKER', 'no script here')),
      close: async () => {
        closed.scripts += 1;
      },
    },
    startReplication: async () => fake,
    primary: false,
    force: false,
    log: pino({ level: 'silent' }),
    sysfs,
    ...more,
  });
  return { daemon, fake, path, runFolder, sysfs, closed };
}

async function failure(promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => null,
    (e) => e,
  );
  assert.instance(error, TidemarkError);
  return error as TidemarkError;
}

const ENDING = ['close r0', 'shutdown'];

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

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('a replication worker that dies is started again, and a primary is recovered as after a crash', async () => {
  let letStart = () => {};
  const mayStart = new Promise<void>((resolve) => {
    letStart = resolve;
  });
  const { daemon, fakes, path, closed } = mortal(undefined, (_, nth) => {
    return nth === 1 ? mayStart : undefined;
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
    if (nth === 1) fake.gates.set('open', opened);
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
  assert.ok((await daemon.status()).volumes[0]!.status_age_ms >= 1000);
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
  fake.peerAnswers.push('beta is primary');
  await daemon.start();
  assert.not(fake.calls.includes('resume r0'));
  const [r0] = (await daemon.status()).volumes;
  assert.equal([r0!.role, r0!.suspended, r0!.suspend_reason], ['Primary', true, 'beta is primary']);
  const client = await ControlClient.connect(path);
  const error = await failure(
    (() => {
      fake.peerAnswers.push('beta is primary');
      return client.call('primary');
    })(),
  );
  assert.is(error.code, 'SUSPENDED');
  assert.match(error.message, 'beta is primary');
  const resumed = new Promise<void>((resolve) => {
    const resume = fake.resume.bind(fake);
    fake.resume = async (name) => {
      await resume(name);
      resolve();
    };
  });
  fake.emit({ volume: 'r0', kind: 'peer-down', peer: 'beta', text: '' });
  await resumed;
  assert.is((await daemon.status()).volumes[0]!.suspended, false);
  client.close();
  await daemon.stop(true);
});

test('R18: primary --force lets the I/O of a recovered device go on against the peers', async () => {
  const { daemon, fake, path } = crashed();
  fake.peerAnswers.push('beta is newer');
  await daemon.start();
  const client = await ControlClient.connect(path);
  await client.call('primary', { force: true });
  assert.is(fake.calls.at(-1), 'resume r0');
  client.close();
  await daemon.stop(true);
});

test('R18: a device whose I/O recovery keeps suspended is taken away by force only', async () => {
  const { daemon, fake, path } = crashed();
  fake.peerAnswers.push('beta is primary');
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
  assert.not(fake.calls.includes('resume r0'));
  const client = await ControlClient.connect(path);
  await client.call('primary', { force: true });
  assert.ok(fake.calls.includes('resume r0'));
  client.close();
  await daemon.stop(true);
});

test('R18: a promotion that is refused is tried again, and said in status until then', async () => {
  const { daemon, fake } = crashed();
  fake.failures.set('promote', new TidemarkError('PEER_PRIMARY', 'beta is primary'));
  await daemon.start();
  const [r0] = (await daemon.status()).volumes;
  assert.match(r0!.suspend_reason, 'cannot become primary again: beta is primary');
  const resumed = new Promise<void>((resolve) => {
    fake.resume = async () => resolve();
  });
  fake.emit({ volume: 'r0', kind: 'peer-seen', peer: 'beta', text: '' });
  await resumed;
  await daemon.stop(true);
});

test('R18: secondary --force takes away a device that could not be taken over yet, and nothing less does', async () => {
  const { daemon, fake, path, runFolder } = crashed();
  fake.failures.set('promote', new TidemarkError('PEER_PRIMARY', 'beta is primary'));
  await daemon.start();
  const client = await ControlClient.connect(path);
  const error = await failure(client.call('secondary'));
  assert.is(error.code, 'SUSPENDED');
  assert.match(error.message, /beta is primary; --force takes its device away/);
  assert.not(fake.calls.includes('resume r0'));
  const before = fake.calls.length;
  await client.call('secondary', { force: true });
  assert.equal(fake.calls.slice(before), [
    'startFrontend r0 ublk recover',
    'stopFrontend r0 force',
    'resume r0',
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
  const open = h.fake.open.bind(h.fake);
  h.fake.open = (spec) =>
    spec.name === 'r1' ? Promise.reject(new TidemarkError('LOCKED', 'r1')) : open(spec);
  h.fake.failures.set('stopFrontend', new TidemarkError('UBLK_BUSY', 'mounted'));
  assert.is((await failure(h.daemon.start())).code, 'LOCKED');
  assert.not(h.fake.calls.includes('close r0'));
  assert.not(h.fake.calls.includes('shutdown'));
  assert.ok(existsSync(join(h.runFolder, 'd.r0.ublk')));
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
