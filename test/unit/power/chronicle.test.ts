import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import {
  Chronicle,
  type ChronicleDevice,
  type ChronicleJson,
  contentOf,
  Promises,
  readSector,
  SECTOR_BYTES,
} from '../../power/chronicle.ts';

const SECTORS = 4096;

/** A disk that answers at once. */
function memoryDevice(): ChronicleDevice & { content: Buffer; flushes: number } {
  const content = Buffer.alloc(SECTORS * SECTOR_BYTES);
  const device = {
    content,
    flushes: 0,
    sizeBytes: content.length,
    write: async (offset: number, data: Uint8Array) => content.set(data, offset),
    writeDurably: async (offset: number, data: Uint8Array) => content.set(data, offset),
    flush: async () => {
      device.flushes += 1;
    },
  };
  return device;
}

const test = suite('the chronicle of writes and promises');

test('every sector tells its place, its write and the promises until then', () => {
  const content = contentOf(100, 3, 7, 5);
  assert.equal(content.length, 3 * SECTOR_BYTES);
  for (let i = 0; i < 3; i += 1) {
    assert.deepEqual(readSector(content, i * SECTOR_BYTES, 100 + i), { write: 7, promises: 5 });
  }
  assert.deepEqual(readSector(Buffer.alloc(SECTOR_BYTES), 0, 9), { write: 0, promises: 0 });
});

test('a sector that is misplaced, torn or foreign is not taken for a write', () => {
  const content = contentOf(100, 2, 7, 5);
  assert.throws(() => readSector(content, 0, 101), /sector 101/);
  const torn = Buffer.from(content);
  contentOf(100, 1, 8, 5).copy(torn, 256, 256);
  assert.throws(() => readSector(torn, 0, 100), /at byte 256; expected write 7/);
  const zeroes = Buffer.alloc(SECTOR_BYTES);
  zeroes[511] = 1;
  assert.throws(() => readSector(zeroes, 0, 0), /at byte 496/);
});

test('a load leaves on the disk what it promises, and counts each flush and FUA', async () => {
  const device = memoryDevice();
  const options = { seed: 3, depth: 4, flushEvery: 10, fuaEvery: 2 };
  const chronicle = new Chronicle(device, options);
  chronicle.start();
  await chronicle.more(200);
  await chronicle.stop();
  const record = JSON.parse(JSON.stringify(chronicle)) as ChronicleJson;
  assert.ok(record.answered.length >= 200);
  const fua = record.promises.filter((promised) => 'write' in promised).length;
  assert.ok(fua > 20);
  assert.equal(record.promises.length, fua + device.flushes);
  const promises = new Promises(record);
  promises.set(record.promises.length);
  for (let sector = 0; sector < SECTORS; sector += 1) {
    const { write } = readSector(device.content, sector * SECTOR_BYTES, sector);
    // Nothing was lost here, so that the floor is exactly what is there.
    assert.equal(write, promises.floor[sector]);
  }
});

test('a flush promises what was answered before it began, a write with FUA itself', () => {
  const promises = new Promises({
    sectors: 8,
    writes: [
      [0, 2],
      [1, 2],
      [4, 1],
      [0, 1],
    ],
    answered: [1, 2, 4],
    promises: [{ answered: 2 }, { write: 3 }, { answered: 3 }],
  });
  promises.set(0);
  assert.deepEqual([...promises.floor], [0, 0, 0, 0, 0, 0, 0, 0]);
  promises.set(1);
  assert.deepEqual([...promises.floor], [1, 2, 2, 0, 0, 0, 0, 0]);
  promises.set(3);
  assert.deepEqual([...promises.floor], [4, 2, 2, 0, 3, 0, 0, 0]);
  promises.set(2);
  assert.deepEqual([...promises.floor], [1, 2, 2, 0, 3, 0, 0, 0]);
  assert.throws(() => promises.set(4), /4 promises; only 3 were made/);
});

test('a load whose device fails says so', async () => {
  const device = {
    ...memoryDevice(),
    flush: async () => {
      throw new Error('no flush');
    },
  };
  const chronicle = new Chronicle(device, { seed: 1, depth: 2, flushEvery: 4, fuaEvery: 0 });
  chronicle.start();
  await assert.rejects(chronicle.more(100), /no flush/);
});

test.run();
