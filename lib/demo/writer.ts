/** The demo's load: writes of a reproducible pattern at reproducible places, several at once. */

import { createCipheriv } from 'node:crypto';
import type { Device } from './device.ts';

const SEED = Buffer.alloc(32, 'tidemark');
const PATTERN_BYTES = 4 << 20;

export class Writer {
  writes = 0;
  bytes = 0;
  private readonly device: Device;
  private readonly volumeBytes: number;
  private readonly pattern: Buffer;
  private state = 0x9e3779b9;

  constructor(device: Device, volumeBytes: number) {
    this.device = device;
    this.volumeBytes = volumeBytes;
    const cipher = createCipheriv('aes-256-ctr', SEED, Buffer.alloc(16));
    this.pattern = cipher.update(Buffer.alloc(PATTERN_BYTES));
  }

  /** One write after another, front to back, then a flush. */
  async fill(offset: number, bytes: number): Promise<void> {
    const step = 256 << 10;
    let next = offset;
    await this.parallel(8, () => {
      if (next >= offset + bytes) return null;
      const at = next;
      next += step;
      return { at, length: Math.min(step, offset + bytes - at) };
    });
    await this.device.flush();
  }

  /** Random writes of 4 to 64 KiB inside the first `span` bytes, until told to stop. */
  async load(span: number, stopped: () => boolean): Promise<void> {
    await this.parallel(16, () => {
      if (stopped()) return null;
      const length = 4096 << (this.random() % 5);
      const slots = Math.floor((Math.min(span, this.volumeBytes) - length) / 4096);
      return { at: (this.random() % slots) * 4096, length };
    });
  }

  private async parallel(
    depth: number,
    next: () => { at: number; length: number } | null,
  ): Promise<void> {
    const lane = async (): Promise<void> => {
      for (let one = next(); one !== null; one = next()) {
        const from = this.random() % (PATTERN_BYTES - one.length);
        await this.device.write(one.at, this.pattern.subarray(from, from + one.length));
        this.writes += 1;
        this.bytes += one.length;
      }
    };
    await Promise.all(Array.from({ length: depth }, lane));
  }

  private random(): number {
    // xorshift32: reproducible, and good enough for choosing places.
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x >>> 0;
  }
}
