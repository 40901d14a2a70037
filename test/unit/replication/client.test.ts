import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadAddon } from '../../../lib/binding/addon.ts';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { VolumeSpec } from '../../../lib/replication/api.ts';
import { startReplication } from '../../../lib/replication/client.ts';
import { fromRecord, toRecord } from '../../../lib/replication/rpc.ts';

const spec = (backing: string): VolumeSpec => ({
  name: 'r0',
  node: 'alpha',
  onIoError: 'pass-on',
  native: { name: 'r0', backing },
  listen: null,
  peers: [],
  secret: null,
  pingIntervalMs: 1000,
  peerTimeoutMs: 6000,
  connectTimeoutMs: 5000,
  retryMinMs: 100,
  retryMaxMs: 1000,
});

async function rejection(promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.instance(error, TidemarkError);
  return error as TidemarkError;
}

test('an error crosses the port with code, errno, syscall and causes', () => {
  const system = Object.assign(new Error('no such file'), { code: 'ENOENT', errno: -2 });
  const error = new TidemarkError('BACKING_OPEN', 'cannot open', {
    cause: system,
    errno: 2,
    syscall: 'open',
  });
  const again = fromRecord(structuredClone(toRecord(error)));
  assert.instance(again, TidemarkError);
  assert.is(again.code, 'BACKING_OPEN');
  assert.is(again.message, 'cannot open');
  assert.is(again.errno, 2);
  assert.is(again.syscall, 'open');
  assert.is(again.stack, error.stack);
  assert.is((again.cause as TidemarkError).code, 'ENOENT');
  assert.is(fromRecord(toRecord('a text')).message, 'a text');
  const endless = new Error('round and round');
  endless.cause = endless;
  assert.ok(toRecord(endless).cause);
});

test('a worker opens a volume, answers, and ends when it is told to', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-client-'));
  const backing = join(folder, 'disk');
  await writeFile(backing, '');
  await truncate(backing, 8 << 20);
  await loadAddon().create({ name: 'r0', backing });
  const replication = startReplication();
  const exits: Error[] = [];
  replication.onExit((error) => exits.push(error));
  try {
    assert.is((await rejection(replication.status('r0'))).code, 'VOLUME_UNKNOWN');
    const missing = await rejection(replication.open(spec(join(folder, 'missing'))));
    assert.match(missing.message, /missing/);
    assert.is(missing.errno, -2);
    const report = await replication.open(spec(backing));
    assert.ok(report.volumeBytes > 7 << 20);
    const { native, links } = await replication.status('r0');
    assert.is(native.role, 'secondary');
    assert.equal(links, []);
    await replication.promote('r0', true);
    assert.is((await replication.status('r0')).native.role, 'primary');
    assert.is((await rejection(replication.open(spec(backing)))).code, 'EXISTS');
  } finally {
    await replication.shutdown();
    await rm(folder, { recursive: true });
  }
  assert.equal(exits, [], 'told to, not by itself');
  assert.is((await rejection(replication.status('r0'))).code, 'WORKER_EXITED');
});

test.run();
