// The disk that a replay cuts, on metadata that the add-on made.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import { loadAddon } from '../../../lib/binding/addon.ts';
import { contentOf, SECTOR_BYTES } from '../../power/chronicle.ts';
import { ReplayDisk } from '../../power/disk.ts';
import { type LogEntry, LogFlag } from '../../power/log_writes.ts';
import { findMetadata, readMetadata } from '../../power/metadata.ts';
import { Random } from '../../power/numbers.ts';

interface Context {
  directory: string;
  content: Buffer;
}

const DISK_BYTES = 4 << 20;
/** Where the disk lies in the recorded device. */
const BEGIN = 1 << 20;

const test = suite<Context>('the disk of a replay');

test.before(async (context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'tidemark-disk-'));
  const backing = join(context.directory, 'made');
  writeFileSync(backing, '');
  truncateSync(backing, DISK_BYTES);
  await loadAddon().create({ backing, name: 'r0', placement: 'end' });
  context.content = readFileSync(backing);
});

test.after(({ directory }) => rmSync(directory, { recursive: true, force: true }));

function withDisk({ directory, content }: Context, action: (disk: ReplayDisk) => void): void {
  const disk = new ReplayDisk('primary', BEGIN, content, join(directory, 'image'));
  try {
    action(disk);
  } finally {
    disk.close();
  }
}

let next = 0;

/** A write of data, number `write`. */
function entry(sector: number, count: number, write: number, flags = 0): LogEntry {
  next += 1;
  const data = contentOf(sector, count, write, 0);
  const offset = BEGIN + sector * SECTOR_BYTES;
  return { index: next, offset, bytes: data.length, flags, data, mark: '' };
}

test('the reader of the metadata finds what the add-on says that it wrote', async (context) => {
  const place = findMetadata(context.content);
  const { areaOffset, areaBytes } = place;
  const found = readMetadata(context.content.subarray(areaOffset, areaOffset + areaBytes));
  const path = join(context.directory, 'made');
  const told = JSON.parse(await loadAddon().dump({ backing: path, placement: 'end' }));
  assert.deepEqual([areaOffset, areaBytes], [told.area_offset, told.area_bytes]);
  assert.equal(areaOffset + areaBytes, DISK_BYTES);
  assert.equal(found.dataOffset, 0);
  assert.equal(found.volumeBytes, areaOffset);
  assert.equal(found.chunkBytes, 4096);
  assert.deepEqual(found.slots, []);
});

test('a damaged superblock is not taken for one', ({ content }) => {
  const { areaOffset, areaBytes } = findMetadata(content);
  const area = Buffer.from(content.subarray(areaOffset, areaOffset + areaBytes));
  area.writeUInt8(area.readUInt8(200) ^ 1, 200);
  readMetadata(area);
  const last = area.length - 4096 + 200;
  area.writeUInt8(area.readUInt8(last) ^ 1, last);
  assert.throws(() => readMetadata(area), /neither copy/);
});

test('what was flushed stays, what was not is lost, or there, sector by sector', (context) => {
  withDisk(context, (disk) => {
    disk.cache(entry(0, 8, 1));
    disk.flush();
    disk.cache(entry(0, 8, 2));
    disk.cache(entry(16, 8, 3));
    disk.cut(null);
    assert.deepEqual([...disk.numbers.subarray(0, 8)], Array(8).fill(1));
    assert.equal(disk.numbers[16], 0);
    const seen = new Set<string>();
    for (let seed = 1; seed <= 60; seed += 1) {
      disk.cut(new Random(seed));
      for (const number of disk.numbers.subarray(0, 8)) assert.ok(number === 1 || number === 2);
      for (const number of disk.numbers.subarray(16, 24)) assert.ok(number === 0 || number === 3);
      assert.deepEqual(disk.imageNumbers(), disk.numbers);
      seen.add([...disk.numbers.subarray(0, 24)].join());
      disk.restore();
      assert.deepEqual(disk.imageNumbers(), disk.durableNumbers);
    }
    // Whole and torn, one without the other and the other way round.
    assert.ok(seen.size > 10, `${seen.size} different outcomes`);
  });
});

test('a write with FUA stays without a flush; one without FUA to the same place is refused', (context) => {
  withDisk(context, (disk) => {
    disk.force(entry(0, 8, 1, LogFlag.fua));
    assert.equal(disk.durableNumbers[7], 1);
    assert.throws(() => disk.cache(entry(7, 1, 2)), /overlap with no flush between/);
    disk.flush();
    disk.cache(entry(7, 1, 2));
  });
});

test('everything that others did to an image is undone', (context) => {
  withDisk(context, (disk) => {
    writeFileSync(disk.imagePath, Buffer.alloc(DISK_BYTES), { flag: 'r+' });
    disk.restoreAll();
    assert.deepEqual(readFileSync(disk.imagePath), context.content);
  });
});

test.run();
