import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { loadAddon } from '../../../lib/binding/addon.ts';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { NativeEvent, NativeLinkParams, NativeVolume } from '../../../lib/binding/native.ts';
import {
  BACKING_BYTES,
  makeBacking,
  makeBackingFile,
  monotonicUs,
  NO_CALLBACKS,
  openScratch,
  scratchFolder,
  statusOfNow,
} from './scratch.ts';

const addon = loadAddon();
const test = suite('volume');
const PEER = '12'.repeat(16);

async function rejects(code: string, promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.instance(error, TidemarkError, `expected ${code}, but it went well`);
  assert.is((error as TidemarkError).code, code, (error as TidemarkError).message);
  return error as TidemarkError;
}

function throws(code: string, call: () => unknown): void {
  assert.throws(call, (error: unknown) => error instanceof TidemarkError && error.code === code);
}

test('create says what it made, and open finds it', async () => {
  const backing = makeBackingFile();
  const made = await addon.create({ backing, name: 'alpha', chunkBytes: 8192 });
  assert.match(made.nodeId, /^[0-9a-f]{32}$/);
  assert.is(made.volumeBytes + made.metadataBytes <= BACKING_BYTES, true);
  const volume = addon.open({ name: 'alpha', backing }, NO_CALLBACKS);
  try {
    assert.is(volume.attach.volumeBytes, made.volumeBytes);
    assert.is(volume.attach.crashed, false);
    const status = volume.status();
    assert.is(status.volumeBytes, made.volumeBytes);
    assert.is(status.chunkBytes, 8192);
    assert.is(status.role, 'secondary');
    assert.is(status.connection, 'StandAlone');
    assert.is(status.linkSlot, -1);
    assert.is(status.device, '');
    assert.is(status.resync, null);
    assert.equal(status.peers, []);
    assert.match(status.current, /^[0-9a-f]{16}$/);
    const state = await volume.handshakeState(PEER);
    assert.is(state.nodeId, made.nodeId);
    assert.is(state.slot, -1);
    assert.is(state.idle, true);
    assert.is(state.history.length, 8);
    assert.match(state.serial, /^[0-9a-f]{16}$/);
  } finally {
    await volume.close();
  }
});

test('create refuses metadata that is there, and dump shows it', async () => {
  const backing = await makeBacking('beta');
  const before = await addon.dump({ backing });
  assert.is(typeof JSON.parse(before), 'object');
  await rejects('EXISTS', addon.create({ backing, name: 'gamma' }));
  assert.is(await addon.dump({ backing }), before);
  await addon.create({ backing, name: 'gamma', force: true });
  assert.is.not(await addon.dump({ backing }), before);
});

test('dump shows what is damaged, and what is not', async () => {
  const backing = await makeBacking('delta');
  const disk = await open(backing, 'r+');
  try {
    const statuses = async () =>
      JSON.parse(await addon.dump({ backing })).metadata.superblocks.map(
        ({ status, name }: { status: string; name?: string }) => [status, name],
      );
    assert.equal(await statuses(), [
      ['good', 'delta'],
      ['good', 'delta'],
    ]);
    const last = BACKING_BYTES - 4096;
    await disk.write(Buffer.from([1]), 0, 1, last + 200);
    assert.equal(await statuses(), [
      ['good', 'delta'],
      ['checksum_wrong', undefined],
    ]);
    await disk.write(Buffer.alloc(4096), 0, 4096, last);
    assert.equal(await statuses(), [
      ['good', 'delta'],
      ['blank', undefined],
    ]);
  } finally {
    await disk.close();
  }
});

test('a failure of the system carries errno and syscall', async () => {
  const backing = '/nonexistent/disk';
  for (const failure of [
    rejects('BACKING_OPEN', addon.create({ backing, name: 'x' })),
    rejects('BACKING_OPEN', addon.dump({ backing })),
    rejects('BACKING_OPEN', (async () => addon.open({ backing, name: 'x' }, NO_CALLBACKS))()),
  ]) {
    const error = await failure;
    assert.is(error.errno, -2);
    assert.is(typeof error.syscall, 'string');
    assert.match(error.message, backing);
  }
});

test('a volume is opened once at a time', async () => {
  const backing = await makeBacking();
  const volume = addon.open({ name: 'x', backing }, NO_CALLBACKS);
  throws('BACKING_LOCKED', () =>
    addon.open({ name: 'x', backing, lockTimeoutMs: 0 }, NO_CALLBACKS),
  );
  await volume.close();
  await addon.open({ name: 'x', backing, lockTimeoutMs: 0 }, NO_CALLBACKS).close();
});

test('events come in order, between the answers that they belong to', async () => {
  const heard: string[] = [];
  const volume = await openScratch({
    events(events: NativeEvent[]) {
      assert.ok(events.length > 0);
      for (const { kind, text } of events) {
        if (kind === 'ioSuspended' || kind === 'ioResumed') heard.push(`${kind} ${text}`.trim());
      }
    },
  });
  try {
    const expected: string[] = [];
    const calls: Promise<void>[] = [];
    for (let i = 0; i < 200; ++i) {
      calls.push(volume.suspend(`${i}`), volume.resume());
      expected.push(`ioSuspended ${i}`, 'ioResumed');
    }
    await Promise.all(calls);
    // Events of a call are posted before its answer.
    assert.equal(heard, expected);
  } finally {
    await volume.close();
  }
});

test('a status says how old it is, and is of now unless the thread does not answer', async () => {
  const volume = await openScratch();
  try {
    for (let i = 0; i < 100; ++i) {
      const askedUs = monotonicUs();
      const { nowUs, ageUs } = volume.status();
      const toldUs = monotonicUs();
      if (nowUs >= askedUs) assert.is(ageUs, 0);
      else assert.ok(ageUs > 0 && nowUs + ageUs <= toldUs && nowUs + ageUs >= askedUs);
    }
  } finally {
    await volume.close();
  }
});

test('promote, serve over NBD, stop, demote', async () => {
  const volume = await openScratch();
  const socketPath = join(scratchFolder(), 'serve');
  try {
    await rejects('NOT_PRIMARY', volume.startNbd({ socketPath, exportName: 'x' }));
    await volume.promote(true);
    assert.is(statusOfNow(volume).role, 'primary');
    assert.is(await volume.startNbd({ socketPath, exportName: 'x' }), socketPath);
    assert.is(statusOfNow(volume).device, socketPath);
    assert.is(existsSync(socketPath), true);
    await rejects('FRONTEND_EXISTS', volume.startNbd({ socketPath, exportName: 'x' }));
    await volume.stopFrontend(false);
    assert.is(statusOfNow(volume).device, '');
    await volume.demote();
    assert.is(statusOfNow(volume).role, 'secondary');
  } finally {
    await volume.close();
  }
});

test('what the core refuses has a code of its own', async () => {
  const volume = await openScratch();
  try {
    await rejects('REFUSED', volume.promote(false));
    await rejects('NO_SLOT', volume.invalidate(PEER));
    assert.is(await volume.linkStart(), false);
    assert.is(await volume.sendControl('{}'), false);
    volume.linkStop('there is none');
    const stale: NativeLinkParams = {
      serial: 'ffffffffffffffff',
      peerId: PEER,
      peerName: 'beta',
      incarnation: 1,
      protocol: 'C',
      side: 'none',
      full: false,
      syncGeneration: '0'.repeat(16),
      peerCurrent: '0'.repeat(16),
      peerBitmap: '0'.repeat(16),
      peerHistory: [],
      peerFlags: 0,
      peerRole: 'secondary',
      peerDisk: 'UpToDate',
    };
    await rejects('LINK_STALE', volume.linkPrepare(stale));
  } finally {
    await volume.close();
  }
});

test('link bytes: the receive ring fills up, the send ring shows what is there', async () => {
  const volume = await openScratch();
  try {
    assert.is(volume.outgoing().length, 0);
    assert.is(volume.feed(new Uint8Array(0)), 0);
    volume.resetLinkBytes();
    assert.is(volume.outgoing().length, 0);
    // Both are windows of one memory.
    assert.is(volume.outgoing().buffer, volume.outgoing().buffer);
  } finally {
    await volume.close();
  }
});

test('close: one promise for all, and everything fails with CLOSED from then on', async () => {
  const volume = await openScratch();
  const view = volume.outgoing();
  const waiting = [volume.suspend('x'), volume.handshakeState(PEER)];
  const closed = volume.close();
  assert.is(volume.close(true), closed);
  const calls: Array<() => unknown> = [
    () => volume.status(),
    () => volume.setLimits({}),
    () => volume.resetLinkBytes(),
    () => volume.linkStop('x'),
    () => volume.feed(new Uint8Array(1)),
    () => volume.outgoing(),
    () => volume.consumed(0),
  ];
  const promises: Array<() => Promise<unknown>> = [
    () => volume.promote(true),
    () => volume.demote(),
    () => volume.invalidate(PEER),
    () => volume.suspend('x'),
    () => volume.resume(),
    () => volume.outdatePeer(),
    () => volume.startNbd({ socketPath: '/tmp/never', exportName: '' }),
    () => volume.startUblk({ deviceId: -1 }),
    () => volume.stopFrontend(true),
    () => volume.handshakeState(PEER),
    () => volume.linkStart(),
    () => volume.sendControl('{}'),
  ];
  const all = async () => {
    for (const call of calls) throws('CLOSED', call);
    for (const call of promises) await rejects('CLOSED', call());
  };
  await all();
  await closed;
  await all();
  assert.is(volume.close(), closed);
  // Answered before the end, or overtaken by it; but not left open.
  for (const result of await Promise.allSettled(waiting)) {
    if (result.status === 'rejected') assert.is(result.reason.code, 'CLOSED');
  }
  // Views stay usable memory.
  new Uint8Array(view.buffer).fill(1);
});

test('an NBD client that says nothing does not hold up the stop', async () => {
  const volume = await openScratch();
  await volume.promote(true);
  const socketPath = join(scratchFolder(), 'silent');
  await volume.startNbd({ socketPath, exportName: 'x' });
  const client = connect(socketPath);
  await new Promise((resolve) => client.once('data', resolve));
  const disconnected = new Promise((resolve) => client.once('close', resolve));
  client.resume();
  const before = performance.now();
  await volume.close();
  await disconnected;
  // The volume's own timers, which it must not wait for, are at 5 s.
  assert.ok(performance.now() - before < 3000);
});

test('close inside a callback: no callback runs afterwards', async () => {
  let volume: NativeVolume | undefined;
  let closed: Promise<void> | undefined;
  let late = 0;
  let heard: (() => void) | undefined;
  const first = new Promise<void>((resolve) => {
    heard = resolve;
  });
  volume = await openScratch({
    events() {
      if (closed !== undefined) late += 1;
      closed ??= volume!.close();
      heard!();
    },
  });
  await Promise.allSettled([volume.suspend('a'), volume.resume(), volume.suspend('b')]);
  await first;
  await closed;
  assert.is(late, 0);
});

test('what a callback throws is an uncaught exception', async () => {
  const before = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const caught = new Promise((resolve) => process.once('uncaughtException', resolve));
  const volume = await openScratch({
    events() {
      throw new Error('of the callback');
    },
  });
  try {
    await volume.suspend('x');
    const error = (await caught) as Error;
    assert.is(error.message, 'of the callback');
    // And the volume goes on.
    assert.is(await volume.linkStart(), false);
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of before) process.on('uncaughtException', listener);
    await volume.close();
  }
});

test('a clean stop leaves nothing to replay, an abandoned one is seen', async () => {
  const backing = await makeBacking();
  const reopen = () => addon.open({ name: 'x', backing }, NO_CALLBACKS);
  await reopen().close();
  const second = reopen();
  assert.is(second.attach.crashed, false);
  await second.close(true);
  const third = reopen();
  assert.is(third.attach.crashed, true);
  assert.is(third.attach.crashedPrimary, false);
  await third.close();
});

test('two workers load the add-on at once and use a volume each', async () => {
  const program = `
    const { parentPort, workerData } = require('node:worker_threads');
    const native = require(workerData.loader)(workerData.folder);
    const nothing = () => {};
    const volume = native.open(
      { name: 'x', backing: workerData.backing },
      { events: nothing, outgoing: nothing, room: nothing },
    );
    (async () => {
      for (let i = 0; i < 100; ++i) {
        await Promise.all([volume.suspend('x'), volume.resume(), volume.linkStart()]);
      }
      await volume.close();
      const frame = native.encodeHandshake('{}');
      parentPort.postMessage(native.parseHandshake(frame).json + native.version);
    })();
  `;
  const { createRequire } = await import('node:module');
  const { fileURLToPath } = await import('node:url');
  const loader = createRequire(import.meta.url).resolve('node-gyp-build');
  const folder = fileURLToPath(new URL('../../../', import.meta.url));
  const answers = await Promise.all(
    [0, 1].map(async () => {
      const workerData = { loader, folder, backing: await makeBacking() };
      const worker = new Worker(program, { eval: true, execArgv: [], workerData });
      const answer = await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      const code = await new Promise((resolve) => worker.once('exit', resolve));
      assert.is(code, 0);
      return answer;
    }),
  );
  assert.equal(answers, [`{}${addon.version}`, `{}${addon.version}`]);
});

test.run();
