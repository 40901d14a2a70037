import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadAddon } from '../../../lib/binding/addon.ts';
import { TidemarkError } from '../../../lib/binding/errors.ts';

const addon = loadAddon();
const HEADER_BYTES = 48;
const JSON_BYTES_MAX = 64 * 1024;
const JSON_TEXT = '{"name":"alpha","größe":1}';

function frameError(bytes: Uint8Array): TidemarkError {
  try {
    addon.parseHandshake(bytes);
  } catch (error) {
    assert.instance(error, TidemarkError);
    assert.is((error as TidemarkError).code, 'FRAME');
    return error as TidemarkError;
  }
  throw new Error('the frame was taken');
}

test('a handshake frame comes back as it was, and says how long it is', () => {
  const frame = addon.encodeHandshake(JSON_TEXT);
  assert.is(frame.length, HEADER_BYTES + Buffer.byteLength(JSON_TEXT));
  assert.is(Buffer.from(frame.subarray(0, 4)).toString(), 'TMF1');
  assert.equal(addon.parseHandshake(frame), { json: JSON_TEXT, bytes: frame.length });
});

test('bytes behind the frame are left alone', () => {
  const frame = addon.encodeHandshake(JSON_TEXT);
  const more = Buffer.concat([frame, Buffer.from('something else')]);
  assert.equal(addon.parseHandshake(more), { json: JSON_TEXT, bytes: frame.length });
});

test('a part of a buffer is read, not the whole buffer', () => {
  const frame = addon.encodeHandshake(JSON_TEXT);
  const padded = new Uint8Array(frame.length + 20);
  padded.set(frame, 10);
  const parsed = addon.parseHandshake(padded.subarray(10, 10 + frame.length));
  assert.is(parsed?.json, JSON_TEXT);
});

test('every beginning of a frame waits for more', () => {
  const frame = addon.encodeHandshake(JSON_TEXT);
  for (let length = 0; length < frame.length; ++length) {
    assert.is(addon.parseHandshake(frame.subarray(0, length)), null, `${length} bytes`);
  }
});

test('a frame with any one byte changed is refused', () => {
  const frame = addon.encodeHandshake(JSON_TEXT);
  for (let index = 0; index < frame.length; ++index) {
    for (const change of [0x01, 0x80, 0xff]) {
      const bad = frame.slice();
      bad[index]! ^= change;
      assert.throws(
        () => addon.parseHandshake(bad),
        (error: TidemarkError) => error.code === 'FRAME',
        `byte ${index} ^ ${change}`,
      );
    }
  }
});

test('the longest text fits, one byte more does not', () => {
  const longest = 'x'.repeat(JSON_BYTES_MAX);
  assert.is(addon.parseHandshake(addon.encodeHandshake(longest))?.json, longest);
  assert.throws(
    () => addon.encodeHandshake(`${longest}x`),
    (error: TidemarkError) => error.code === 'ARGUMENT' && /65536/.test(error.message),
  );
  assert.throws(
    () => addon.encodeHandshake(''),
    (error: TidemarkError) => error.code === 'ARGUMENT',
  );
});

test('something that is no frame is refused at its first byte', () => {
  assert.match(frameError(Buffer.from('G')).message, 'TMF1');
  assert.match(frameError(Buffer.from('TMFx')).message, 'TMF1');
});

// A header of ours with other fields and a right checksum, as an honest peer would never send it.
function header(fields: {
  type?: number;
  flags?: number;
  incarnation?: number;
  payloadBytes?: number;
  payloadCrc?: number;
  epoch?: number;
}): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write('TMF1');
  bytes[4] = fields.type ?? 1;
  bytes[5] = fields.flags ?? 0;
  bytes.writeUInt32LE(fields.incarnation ?? 0, 8);
  bytes.writeUInt32LE(fields.payloadBytes ?? 2, 12);
  bytes.writeUInt32LE(fields.epoch ?? 0, 36);
  bytes.writeUInt32LE(fields.payloadCrc ?? 1, 40);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 44)), 44);
  return bytes;
}

function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; ++bit) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

test('the error names what is wrong with the header', () => {
  assert.match(frameError(header({ type: 25 })).message, 'where a handshake was expected');
  assert.match(frameError(header({ type: 99 })).message, 'bad frame header');
  assert.match(frameError(header({ flags: 1 })).message, 'flags is 1, expected 0');
  assert.match(frameError(header({ incarnation: 7 })).message, 'incarnation is 7, expected 0');
  assert.match(frameError(header({ epoch: 3 })).message, 'epoch is 3, expected 0');
  assert.match(
    frameError(header({ payloadBytes: JSON_BYTES_MAX + 1 })).message,
    '65537 bytes, expected 1 to 65536',
  );
  assert.match(frameError(header({ payloadBytes: 0, payloadCrc: 0 })).message, '0 bytes');
  assert.match(frameError(header({ payloadBytes: 2 ** 31 })).message, 'bad frame header');
});

test('a payload that is not UTF-8 is refused although its checksum is right', () => {
  const broken = [
    [0x80],
    [0xc3],
    [0xc0, 0xaf],
    [0xe0, 0x80, 0x80],
    [0xed, 0xa0, 0x80],
    [0xf0, 0x80, 0x80, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0xff],
    [0x22, 0xe2, 0x82],
  ];
  for (const bytes of broken) {
    const payload = Buffer.from(bytes);
    const frame = Buffer.concat([
      header({ payloadBytes: payload.length, payloadCrc: crc32c(payload) }),
      payload,
    ]);
    assert.match(frameError(frame).message, 'not UTF-8', payload.toString('hex'));
  }
});

test('only a Uint8Array is parsed, only a string encoded', () => {
  for (const wrong of [undefined, null, 'TMF1', 5, {}, [1], new DataView(new ArrayBuffer(4))]) {
    assert.throws(
      () => addon.parseHandshake(wrong as never),
      (error: TidemarkError) => error.code === 'ARGUMENT' && /bytes is/.test(error.message),
    );
  }
  assert.throws(
    () => addon.parseHandshake(new Int8Array(4) as never),
    (error: TidemarkError) => error.code === 'ARGUMENT',
  );
  for (const wrong of [undefined, null, 5, {}, Symbol('x'), Buffer.from('{}')]) {
    assert.throws(
      () => addon.encodeHandshake(wrong as never),
      (error: TidemarkError) => error.code === 'ARGUMENT' && /json is/.test(error.message),
    );
  }
});

test.run();
