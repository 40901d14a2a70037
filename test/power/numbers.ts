// Little-endian numbers of 64 bits that must fit what JavaScript counts exactly.

export type BufferLike = Pick<Buffer, 'readBigUInt64LE' | 'readUInt32LE'>;

export function u64(bytes: BufferLike, at: number): number {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new RangeError(`the number at byte ${at} is 0x${value.toString(16)}: too large`);
  }
  return Number(value);
}

/** CRC32C (Castagnoli), reflected; the checksum of docs/METADATA.md. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!;
  return ~crc >>> 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value >>> 0;
});

/** A generator whose numbers depend on its seed alone (xorshift32). */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = (seed ^ 0x9e3779b9) >>> 0 || 1;
    for (let i = 0; i < 8; i += 1) this.word();
  }

  word(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>> 0;
    return this.state;
  }

  below(limit: number): number {
    return this.word() % limit;
  }
}
