import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { loadAddon } from '../../../lib/binding/addon.ts';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { NativeLinkParams, NativeVolume } from '../../../lib/binding/native.ts';
import { makeBackingFile, NO_CALLBACKS, openScratch } from './scratch.ts';

const addon = loadAddon();
const test = suite('arguments');

const NOT_STRINGS = [undefined, null, 5, true, {}, [], Symbol('s'), 5n, () => {}];
const NOT_NUMBERS = [undefined, null, '5', true, {}, [5], Symbol('s'), 5n];
const NOT_INTEGERS = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0.5, 1e300];
const NOT_BOOLEANS = [undefined, null, 0, 1, 'true', {}];
const NOT_OBJECTS = [undefined, null, 5, 'x', true, Symbol('s'), 5n];
const NOT_UUIDS = [
  '',
  'x'.repeat(32),
  'A'.repeat(32),
  '0'.repeat(31),
  '0'.repeat(33),
  '0'.repeat(9000),
];
const NOT_GENERATIONS = [
  '',
  'x'.repeat(16),
  'F'.repeat(16),
  '0'.repeat(15),
  '0'.repeat(17),
  '0x12345678901234',
];

/** Calls, and expects the failure of the argument `name`, thrown or rejected. */
async function refuses(name: string, call: () => unknown): Promise<void> {
  try {
    await call();
  } catch (error) {
    assert.instance(error, TidemarkError);
    const { code, message, cause } = error as TidemarkError;
    assert.is(code, 'ARGUMENT', message);
    assert.ok(message.includes(`${name} is `), `'${message}' does not name ${name}`);
    assert.match(message, 'expected');
    assert.ok(cause instanceof TypeError || cause instanceof RangeError, String(cause));
    return;
  }
  throw new Error(`a wrong ${name} was taken`);
}

async function refusesEach(
  name: string,
  wrong: unknown[],
  call: (value: never) => unknown,
): Promise<void> {
  for (const value of wrong) await refuses(name, () => call(value as never));
}

const OPEN = { name: 'x', backing: '/nonexistent/disk' };
const open = (change: object) => () => addon.open({ ...OPEN, ...change } as never, NO_CALLBACKS);

test('open: each option has a type and a range', async () => {
  await refusesEach('options', NOT_OBJECTS, (value) => addon.open(value, NO_CALLBACKS));
  for (const value of [...NOT_STRINGS, '', 'x'.repeat(64)]) {
    await refuses('options.name', open({ name: value }));
  }
  for (const value of [...NOT_STRINGS, '', 'x'.repeat(4096), 'a\0b']) {
    await refuses('options.backing', open({ backing: value }));
  }
  for (const value of NOT_STRINGS.slice(1)) {
    await refuses('options.metadata', open({ metadata: value }));
  }
  for (const value of [null, 5, '', 'middle', 'END', 'end\0']) {
    await refuses('options.placement', open({ placement: value }));
  }
  for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), -4096, 2 ** 53, 4095]) {
    await refuses('options.metadataOffset', open({ placement: 'offset', metadataOffset: value }));
  }
  for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), -1, 600_001]) {
    await refuses('options.lockTimeoutMs', open({ lockTimeoutMs: value }));
  }
  for (const value of NOT_BOOLEANS.slice(1)) {
    await refuses('options.suspended', open({ suspended: value }));
  }
  for (const value of [null, 5, '0', {}, new Array(1025).fill(0)]) {
    await refuses('options.affinity', open({ affinity: value }));
  }
  for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS, -1, 1024]) {
    await refuses('options.affinity[1]', open({ affinity: [0, value] }));
  }
});

test('open: options that contradict each other', async () => {
  await refuses('options.metadata', open({ placement: 'external' }));
  await refuses('options.placement', open({ placement: 'end', metadata: '/m' }));
  await refuses('options.metadataOffset', open({ placement: 'offset' }));
  await refuses('options.placement', open({ metadataOffset: 4096 }));
});

test('open: the callbacks are functions', async () => {
  await refusesEach('callbacks', NOT_OBJECTS, (value) => addon.open(OPEN, value));
  for (const name of ['events', 'outgoing', 'room']) {
    for (const value of [undefined, null, 5, {}]) {
      await refuses(`callbacks.${name}`, () =>
        addon.open(OPEN, { ...NO_CALLBACKS, [name]: value } as never),
      );
    }
  }
});

test('open: a getter that throws is not called an argument', () => {
  const options = {
    name: 'x',
    get backing(): string {
      throw new Error('of the getter');
    },
  };
  assert.throws(
    () => addon.open(options, NO_CALLBACKS),
    (error: TidemarkError) => error.code === 'NATIVE' && error.message === 'of the getter',
  );
});

test('create and dump: each option has a type and a range', async () => {
  const backing = makeBackingFile();
  const create = (change: object) => () => addon.create({ backing, name: 'x', ...change } as never);
  await refusesEach('options', NOT_OBJECTS, (value) => addon.create(value));
  await refusesEach('options', NOT_OBJECTS, (value) => addon.dump(value));
  for (const value of [...NOT_STRINGS, '', 'x'.repeat(64)]) {
    await refuses('options.name', create({ name: value }));
  }
  for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), 0, 2048, 4097, 2 ** 27]) {
    await refuses('options.chunkBytes', create({ chunkBytes: value }));
  }
  for (const value of [...NOT_INTEGERS, 2 ** 19, 2 ** 20 + 4096, 2 ** 31]) {
    await refuses('options.extentBytes', create({ extentBytes: value }));
  }
  await refuses('options.extentBytes', create({ chunkBytes: 2 ** 22, extentBytes: 2 ** 21 }));
  for (const value of [...NOT_INTEGERS, 6, 65_535, -1]) {
    await refuses('options.logExtents', create({ logExtents: value }));
  }
  for (const value of NOT_BOOLEANS.slice(1)) {
    await refuses('options.force', create({ force: value }));
  }
  for (const value of [...NOT_STRINGS, '']) {
    await refuses('options.backing', () => addon.dump({ backing: value as never }));
  }
});

const PARAMS: NativeLinkParams = {
  serial: '0000000000000001',
  peerId: '1'.repeat(32),
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

async function withVolume(use: (volume: NativeVolume) => Promise<void>): Promise<void> {
  const volume = await openScratch();
  try {
    await use(volume);
  } finally {
    await volume.close();
  }
}

test('linkPrepare: each parameter has a type and a range', () =>
  withVolume(async (volume) => {
    const prepare = (change: object) => () => volume.linkPrepare({ ...PARAMS, ...change } as never);
    await refusesEach('params', NOT_OBJECTS, (value) => volume.linkPrepare(value));
    for (const name of ['serial', 'syncGeneration', 'peerCurrent', 'peerBitmap']) {
      for (const value of [...NOT_STRINGS, ...NOT_GENERATIONS]) {
        await refuses(`params.${name}`, prepare({ [name]: value }));
      }
    }
    for (const value of [...NOT_STRINGS, ...NOT_UUIDS, '0'.repeat(32)]) {
      await refuses('params.peerId', prepare({ peerId: value }));
    }
    for (const value of [...NOT_STRINGS, '', 'x'.repeat(256)]) {
      await refuses('params.peerName', prepare({ peerName: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS, 0, -1, 2 ** 32]) {
      await refuses('params.incarnation', prepare({ incarnation: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS, -1, 2 ** 32]) {
      await refuses('params.peerFlags', prepare({ peerFlags: value }));
    }
    for (const name of ['protocol', 'side', 'peerRole', 'peerDisk']) {
      for (const value of [...NOT_STRINGS, '', 'c', 'PRIMARY', 'uptodate', 'x'.repeat(9000)]) {
        await refuses(`params.${name}`, prepare({ [name]: value }));
      }
    }
    for (const value of NOT_BOOLEANS) await refuses('params.full', prepare({ full: value }));
    for (const value of [undefined, null, 5, {}, 'x', new Array(9).fill('0'.repeat(16))]) {
      await refuses('params.peerHistory', prepare({ peerHistory: value }));
    }
    for (const value of [...NOT_STRINGS, ...NOT_GENERATIONS]) {
      await refuses('params.peerHistory[1]', prepare({ peerHistory: ['0'.repeat(16), value] }));
    }
  }));

test('setLimits: each limit has a range, and what is not given stays', () =>
  withVolume(async (volume) => {
    await refusesEach('limits', NOT_OBJECTS, (value) => volume.setLimits(value));
    const wrong = [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), -1, 0, Number.MAX_SAFE_INTEGER];
    for (const name of [
      'windowWrites',
      'windowBytes',
      'flushIntervalMs',
      'peerTimeoutMs',
      'pingIntervalMs',
      'resyncRequests',
    ]) {
      for (const value of wrong) {
        await refuses(`limits.${name}`, () => volume.setLimits({ [name]: value as never }));
      }
    }
    volume.setLimits({});
    volume.setLimits({
      windowWrites: 65_536,
      windowBytes: 4096,
      flushIntervalMs: undefined as never,
    });
  }));

test('startNbd: each option has a type and a range', () =>
  withVolume(async (volume) => {
    const good = { socketPath: '/tmp/never', exportName: '' };
    const start = (change: object) => () => volume.startNbd({ ...good, ...change } as never);
    await refusesEach('options', NOT_OBJECTS, (value) => volume.startNbd(value));
    for (const value of [...NOT_STRINGS.slice(1), '', 'x'.repeat(108), 'a\0b']) {
      await refuses('options.socketPath', start({ socketPath: value }));
    }
    for (const value of [...NOT_STRINGS, 'x'.repeat(4097)]) {
      await refuses('options.exportName', start({ exportName: value }));
    }
    await refuses('options.port', start({ port: 10809 }));
    await refuses('options.host', start({ host: '127.0.0.1' }));
    for (const value of [...NOT_NUMBERS, ...NOT_INTEGERS, -1, 65_536]) {
      await refuses('options.port', start({ socketPath: undefined, port: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), 0, 1025]) {
      await refuses('options.maxConnections', start({ maxConnections: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), 0, 4097]) {
      await refuses('options.queueDepth', start({ queueDepth: value }));
    }
  }));

test('startUblk: each option has a type and a range', () =>
  withVolume(async (volume) => {
    const start = (change: object) => () => volume.startUblk({ deviceId: -1, ...change } as never);
    await refusesEach('options', NOT_OBJECTS, (value) => volume.startUblk(value));
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS, -2, 2 ** 20]) {
      await refuses('options.deviceId', start({ deviceId: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), 0, 4097]) {
      await refuses('options.queueDepth', start({ queueDepth: value }));
    }
    for (const value of [...NOT_INTEGERS, ...NOT_NUMBERS.slice(1), 0, 4097, 2 ** 20 + 4096]) {
      await refuses('options.maxIoBytes', start({ maxIoBytes: value }));
    }
    for (const value of NOT_BOOLEANS.slice(1)) {
      await refuses('options.recover', start({ recover: value }));
    }
    await refuses('options.deviceId', start({ recover: true }));
  }));

test('the other methods check theirs', () =>
  withVolume(async (volume) => {
    await refusesEach('force', NOT_BOOLEANS, (value) => volume.promote(value));
    await refusesEach('force', NOT_BOOLEANS, (value) => volume.stopFrontend(value));
    const uuids = [...NOT_STRINGS, ...NOT_UUIDS];
    await refusesEach('peerId', uuids, (value) => volume.invalidate(value));
    await refusesEach('peerId', uuids, (value) => volume.handshakeState(value));
    const reasons = [...NOT_STRINGS, 'x'.repeat(1025)];
    await refusesEach('why', reasons, (value) => volume.suspend(value));
    await refusesEach('why', reasons, (value) => volume.linkStop(value));
    const texts = [...NOT_STRINGS, '', 'x'.repeat(2 ** 20 + 1)];
    await refusesEach('json', texts, (value) => volume.sendControl(value));
    const arrays = [...NOT_OBJECTS, {}, [1], new Uint16Array(2), new ArrayBuffer(4)];
    await refusesEach('bytes', arrays, (value) => volume.feed(value));
    // Nothing is in the ring, so that nothing can be consumed.
    const counts = [...NOT_INTEGERS, ...NOT_NUMBERS, -1, 1, 2 ** 32, 2 ** 53];
    await refusesEach('bytes', counts, (value) => volume.consumed(value));
    volume.consumed(0);
    await refusesEach('abandon', NOT_BOOLEANS.slice(1), (value) => volume.close(value));
    assert.is(volume.status().role, 'secondary');
  }));

test('methods want their own object, and nobody constructs one', async () => {
  const { createRequire } = await import('node:module');
  const { fileURLToPath } = await import('node:url');
  const native = createRequire(import.meta.url)('node-gyp-build')(
    fileURLToPath(new URL('../../../', import.meta.url)),
  );
  const { makeBacking } = await import('./scratch.ts');
  const volume = native.open({ name: 'raw', backing: await makeBacking() }, NO_CALLBACKS);
  try {
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(volume));
    assert.ok(methods.includes('feed'));
    for (const name of methods) {
      if (name === 'constructor') continue;
      for (const receiver of [{}, [], Object.create(volume), new Map(), native]) {
        assert.throws(() => volume[name].call(receiver), TypeError, name);
      }
    }
    assert.throws(() => new volume.constructor(), /open\(options, callbacks\)/);
    assert.throws(() => volume.constructor());
    assert.throws(() => {
      volume.attach = 5;
    }, TypeError);
  } finally {
    await volume.close();
  }
});

test.run();
