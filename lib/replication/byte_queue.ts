/**
 * Bytes that came and are not used yet, in one piece. What is appended is copied into memory of its own that at least doubles when it is
 * full, so that bytes that come one at a time cost no more than their number.
 */
const EMPTY = Buffer.alloc(0);
const FIRST_BYTES = 4096;

export class ByteQueue {
  #room = EMPTY;
  #begin = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#begin;
  }

  /** Valid until the next append(). */
  get bytes(): Buffer {
    return this.#room.subarray(this.#begin, this.#end);
  }

  append(bytes: Buffer): void {
    if (this.#end + bytes.length > this.#room.length) this.#makeRoom(bytes.length);
    bytes.copy(this.#room, this.#end);
    this.#end += bytes.length;
  }

  /** The first `count` bytes are used. */
  consume(count: number): void {
    this.#begin += count;
    if (this.#begin === this.#end) this.clear();
  }

  /** Gives its memory back. */
  clear(): void {
    this.#room = EMPTY;
    this.#begin = 0;
    this.#end = 0;
  }

  #makeRoom(more: number): void {
    const { bytes } = this;
    const size = Math.max(FIRST_BYTES, 2 * (bytes.length + more));
    this.#room = Buffer.allocUnsafeSlow(size);
    bytes.copy(this.#room);
    this.#begin = 0;
    this.#end = bytes.length;
  }
}
