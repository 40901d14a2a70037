// Frames of the link protocol as docs/PROTOCOL.md has them, made by hand: also such as no peer of ours sends.

export const FRAME_HEADER_BYTES = 48;
export const FRAME_TYPES = {
  handshake: 1,
  control: 2,
  data: 16,
  zeroes: 17,
  discard: 18,
  barrier: 19,
  written: 20,
  epochDone: 21,
  map: 22,
  syncDone: 23,
  syncDoneAck: 24,
  ping: 25,
  outdate: 26,
  outdateAck: 27,
  role: 28,
  disk: 29,
  detach: 30,
  detachAck: 31,
  read: 32,
  readReply: 33,
  readFailed: 34,
} as const;
export type FrameName = keyof typeof FRAME_TYPES;

export interface FrameFields {
  flags?: number;
  incarnation?: number;
  sequence?: bigint | number;
  offset?: bigint | number;
  length?: number;
  epoch?: number;
  payload?: Uint8Array;
  /** What the header says of the payload instead of the truth. */
  payloadBytes?: number;
  /** Bits of the payload's and the header's checksum that are turned round. */
  spoilPayload?: number;
  spoilHeader?: number;
}

const MAGIC = 0x31464d54;
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

export function encodeFrame(name: FrameName, fields: FrameFields = {}): Buffer {
  const payload = fields.payload ?? new Uint8Array();
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt8(FRAME_TYPES[name], 4);
  bytes.writeUInt8(fields.flags ?? 0, 5);
  bytes.writeUInt32LE(fields.incarnation ?? 0, 8);
  bytes.writeUInt32LE(fields.payloadBytes ?? payload.length, 12);
  bytes.writeBigUInt64LE(BigInt(fields.sequence ?? 0), 16);
  bytes.writeBigUInt64LE(BigInt(fields.offset ?? 0), 24);
  bytes.writeUInt32LE(fields.length ?? 0, 32);
  bytes.writeUInt32LE(fields.epoch ?? 0, 36);
  const crc = payload.length === 0 ? 0 : crc32c(payload) ^ (fields.spoilPayload ?? 0);
  bytes.writeUInt32LE(crc >>> 0, 40);
  bytes.writeUInt32LE((crc32c(bytes.subarray(0, 44)) ^ (fields.spoilHeader ?? 0)) >>> 0, 44);
  bytes.set(payload, FRAME_HEADER_BYTES);
  return bytes;
}

/** A payload of 'written': ranges of first sequence, count and error. */
export function writtenRanges(...ranges: Array<[bigint | number, number, number]>): Buffer {
  const bytes = Buffer.alloc(16 * ranges.length);
  for (const [index, [first, count, error]] of ranges.entries()) {
    bytes.writeBigUInt64LE(BigInt(first), 16 * index);
    bytes.writeUInt32LE(count, 16 * index + 8);
    bytes.writeInt32LE(error, 16 * index + 12);
  }
  return bytes;
}

export interface Frame {
  type: number;
  flags: number;
  sequence: bigint;
  offset: bigint;
  length: number;
  epoch: number;
  payload: Buffer;
  /** All of it. */
  bytes: number;
}

/** The first frame, or null when not all of it is there. Nothing is checked: it comes from the node under test. */
export function decodeFrame(bytes: Buffer): Frame | null {
  if (bytes.length < FRAME_HEADER_BYTES) return null;
  const whole = FRAME_HEADER_BYTES + bytes.readUInt32LE(12);
  if (bytes.length < whole) return null;
  return {
    type: bytes.readUInt8(4),
    flags: bytes.readUInt8(5),
    sequence: bytes.readBigUInt64LE(16),
    offset: bytes.readBigUInt64LE(24),
    length: bytes.readUInt32LE(32),
    epoch: bytes.readUInt32LE(36),
    payload: bytes.subarray(FRAME_HEADER_BYTES, whole),
    bytes: whole,
  };
}
