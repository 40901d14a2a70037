/** The simulator's only source of chance: sfc32, seeded from a 53-bit number. Parts that draw for themselves get a fork, so that one more draw here moves nothing there. */

/** Spreads the bits of a number (splitmix32's finish). */
function mix(value: number): number {
  let z = (value + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
}

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed 0..2^53-1 */
  constructor(seed: number) {
    const low = (seed % 2 ** 32) >>> 0;
    const high = Math.floor(seed / 2 ** 32) >>> 0;
    this.#a = mix(low);
    this.#b = mix(high ^ 0x5bd1e995);
    this.#c = mix(low ^ high);
    for (let i = 0; i < 12; i++) this.u32();
  }

  u32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** 0 <= value < 1 */
  next(): number {
    return this.u32() / 2 ** 32;
  }

  /** 0 <= integer < limit; limit up to 2^32. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** Both ends belong to it. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  /** True once in so many; 0: never. */
  oneIn(count: number): boolean {
    return count > 0 && this.next() * count < 1;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** A key, with a chance that is its share of all values. */
  weighted<K extends string>(weights: Readonly<Partial<Record<K, number>>>): K {
    const entries = Object.entries(weights) as Array<[K, number]>;
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [key, weight] of entries) {
      left -= weight;
      if (left < 0) return key;
    }
    return entries.at(-1)![0];
  }

  shuffled<T>(values: readonly T[]): T[] {
    const result = [...values];
    for (let i = result.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [result[i], result[j]] = [result[j]!, result[i]!];
    }
    return result;
  }

  bytes(count: number): Buffer {
    const result = Buffer.alloc(count);
    for (let i = 0; i < count; i++) result[i] = this.u32() & 0xff;
    return result;
  }

  fork(): Random {
    return new Random(this.u32() * 2 ** 21 + (this.u32() >>> 11));
  }
}
