import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import {
  LOG_MAGIC,
  LogFlag,
  LogFormatError,
  measureLog,
  parseLog,
} from '../../power/log_writes.ts';

interface Made {
  sector?: number;
  sectors?: number;
  flags?: number;
  text?: string;
  data?: Buffer;
}

/** A log as the kernel writes it, by hand. */
function makeLog(entries: readonly Made[], sectorBytes = 512): Buffer {
  const head = Buffer.alloc(sectorBytes);
  head.writeBigUInt64LE(LOG_MAGIC, 0);
  head.writeBigUInt64LE(1n, 8);
  head.writeBigUInt64LE(BigInt(entries.length), 16);
  head.writeUInt32LE(sectorBytes, 24);
  const parts: Buffer[] = [head];
  for (const { sector = 0, sectors = 0, flags = 0, text = '', data } of entries) {
    const entry = Buffer.alloc(sectorBytes);
    entry.writeBigUInt64LE(BigInt(sector), 0);
    entry.writeBigUInt64LE(BigInt(sectors), 8);
    entry.writeBigUInt64LE(BigInt(flags), 16);
    entry.writeBigUInt64LE(BigInt(text.length), 24);
    entry.write(text, 32);
    parts.push(entry);
    if (data !== undefined) parts.push(data);
  }
  return Buffer.concat(parts);
}

const test = suite('the log of dm-log-writes');

test('entries come in the order of the log, with place, flags and data', () => {
  const data = Buffer.alloc(1024, 7);
  const log = makeLog([
    { sector: 8, sectors: 2, data },
    { flags: LogFlag.flush },
    { sector: 40, sectors: 1, flags: LogFlag.fua | LogFlag.metadata, data: Buffer.alloc(512, 9) },
    { flags: LogFlag.mark, text: 'formed' },
    { sector: 16, sectors: 100, flags: LogFlag.discard },
    { sector: 3, sectors: 1, data: Buffer.alloc(512, 1) },
  ]);
  const entries = parseLog(log);
  assert.deepEqual(
    entries.map(({ index, offset, bytes, flags, mark }) => [index, offset, bytes, flags, mark]),
    [
      [0, 4096, 1024, 0, ''],
      [1, 0, 0, LogFlag.flush, ''],
      [2, 20_480, 512, LogFlag.fua | LogFlag.metadata, ''],
      [3, 0, 0, LogFlag.mark, 'formed'],
      [4, 8192, 51_200, LogFlag.discard, ''],
      [5, 1536, 512, 0, ''],
    ],
  );
  assert.deepEqual(entries[0]!.data, data);
  assert.equal(entries[4]!.data.length, 0);
  assert.equal(entries[5]!.data[511], 1);
});

test('sectors are the recorded device’s logical blocks', () => {
  const log = makeLog([{ sector: 3, sectors: 2, data: Buffer.alloc(8192, 5) }], 4096);
  const [entry] = parseLog(log);
  assert.deepEqual([entry!.offset, entry!.bytes, entry!.data.length], [12_288, 8192, 8192]);
});

test('what lies behind the last entry is not read', () => {
  const log = makeLog([{ flags: LogFlag.flush }]);
  assert.equal(parseLog(Buffer.concat([log, Buffer.alloc(4096, 0xff)])).length, 1);
});

test('the length of a log on a device is found without reading its data', () => {
  const log = makeLog([
    { sector: 0, sectors: 64, data: Buffer.alloc(64 * 512, 1) },
    { sector: 0, sectors: 64, flags: LogFlag.discard },
    { flags: LogFlag.mark, text: 'end' },
  ]);
  let bytesRead = 0;
  const bytes = measureLog((offset, length) => {
    bytesRead += length;
    return Buffer.concat([log, Buffer.alloc(512)]).subarray(offset, offset + length);
  });
  assert.equal(bytes, log.length);
  assert.equal(bytesRead, 4 * 512);
});

function refuses(log: Buffer, expected: RegExp): void {
  assert.throws(
    () => parseLog(log),
    (error: Error) => error instanceof LogFormatError && expected.test(error.message),
  );
}

test('what is no log, or not one of this version, is refused', () => {
  refuses(Buffer.alloc(10), /10 bytes/);
  refuses(Buffer.alloc(512), /magic 0x0/);
  const newer = makeLog([]);
  newer.writeBigUInt64LE(2n, 8);
  refuses(newer, /version 2; expected 1/);
  const odd = makeLog([]);
  odd.writeUInt32LE(1000, 24);
  refuses(odd, /1000 bytes; expected 512 or 4096/);
});

test('a log that ends too early, and entries that contradict themselves, are refused', () => {
  const log = makeLog([{ sectors: 2, data: Buffer.alloc(1024) }]);
  refuses(log.subarray(0, 512), /ends before entry 0 of 1/);
  refuses(log.subarray(0, -1), /ends in the data of entry 0/);
  refuses(makeLog([{ flags: 32 }]), /flags 0x20/);
  refuses(makeLog([{ flags: LogFlag.mark, sectors: 1, text: 'x' }]), /a mark of a write/);
  refuses(makeLog([{ text: 'private' }]), /7 bytes of private data/);
});

test.run();
