/** Two simulated machines with nothing between them but bytes: what the tests of the machines need of a world. */

import type { NativeEvent, NativeVolume } from '../../../lib/binding/native.ts';
import { type MachineOptions, type MachineShape, SimMachine } from '../../sim/machine.ts';
import { type LinkDecision, linkParams } from '../binding/link_params.ts';

export const MIB = 1 << 20;

/** Small, with everything that a machine may have. */
export const SMALL: MachineShape = {
  volumeBytes: 12 * MIB,
  chunkBytes: 4096,
  extentBytes: MIB,
  logExtents: 7,
  blockBytes: 512,
  metadata: 'internal',
  volatileCache: true,
};

/** Not better than it has to be, but the same everywhere. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 <= result < 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }
}

export class Twin {
  readonly machine: SimMachine;
  readonly chance: Chance;
  volume: NativeVolume | null = null;
  readonly events: NativeEvent[] = [];
  readonly results = new Map<number, number>();
  /** Bytes on the wire to the other one. */
  wire: Uint8Array[] = [];
  linked = false;

  constructor(name: string, chance: Chance, options: Partial<MachineOptions> = {}) {
    this.chance = chance;
    this.machine = new SimMachine({
      name,
      seed: chance.below(2 ** 32),
      ...SMALL,
      ...options,
    });
  }

  open(): NativeVolume {
    this.volume = this.machine.addon.open(
      { name: this.machine.name, backing: '/sim' },
      {
        events: (events) => {
          this.events.push(...events);
          for (const { kind } of events) if (kind === 'linkDown') this.linked = false;
        },
        outgoing() {},
        room() {},
      },
    );
    this.volume.setLimits({ flushIntervalMs: 10 });
    return this.volume;
  }

  crash(kind: 'process' | 'power'): void {
    this.machine.crash(kind);
    this.volume = null;
    this.linked = false;
    this.wire = [];
  }

  close(): Promise<void> {
    const { volume } = this;
    this.linked = false;
    this.volume = null;
    return volume!.close();
  }

  /** One small thing. */
  step(now: number, other: Twin): void {
    const { machine, volume, chance } = this;
    if (!machine.open) return;
    if (chance.below(3) > 0) machine.completeIo(chance.next());
    if (this.linked && volume !== null && chance.below(2) === 0) {
      const bytes = volume.outgoing();
      if (bytes.length > 0) {
        const taken = 1 + chance.below(bytes.length);
        this.wire.push(bytes.slice(0, taken));
        volume.consumed(taken);
      }
    }
    if (other.wire.length > 0 && volume !== null && chance.below(2) === 0) {
      const first = other.wire[0]!;
      const taken = volume.feed(first);
      if (taken === first.length) other.wire.shift();
      else other.wire[0] = first.subarray(taken);
    }
    machine.poll(now);
    for (const { id, result } of machine.completions()) this.results.set(id, result);
  }
}

export class Twins {
  readonly a: Twin;
  readonly b: Twin;
  readonly chance: Chance;
  now = 1_000_000;
  steps = 0;
  /** After every step. */
  check: () => void = () => {};

  constructor(seed: number, options: Partial<MachineOptions> = {}) {
    this.chance = new Chance(seed);
    this.a = new Twin('a', this.chance, options);
    this.b = new Twin('b', this.chance, options);
  }

  async step(): Promise<void> {
    this.now += 1 + this.chance.below(200);
    this.steps += 1;
    this.a.step(this.now, this.b);
    this.b.step(this.now, this.a);
    this.check();
    for (const { machine } of [this.a, this.b]) {
      while (machine.deliver()) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async until(done: () => boolean): Promise<void> {
    for (let left = 200_000; left > 0; left--) {
      if (done()) return;
      await this.step();
    }
    throw new Error('nothing came of it');
  }

  async finish<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const end = () => {
      settled = true;
    };
    promise.then(end, end);
    await this.until(() => settled);
    return promise;
  }

  /** What a handshake would agree on. `source` null: nothing to do. */
  async link(source: Twin | null, full: boolean, protocol: 'A' | 'C' = 'C'): Promise<void> {
    const { a, b } = this;
    const state = async (one: Twin, other: Twin) => {
      for (;;) {
        const found = await this.finish(one.volume!.handshakeState(other.machine.nodeId));
        if (found.idle) return found;
        await this.step();
      }
    };
    const incarnation = 1 + this.chance.below(2 ** 30);
    const syncGeneration = (0x1000 + this.chance.below(2 ** 30)).toString(16).padStart(16, '0');
    const states = { a: await state(a, b), b: await state(b, a) };
    const prepare = (one: Twin, mine: typeof states.a, peer: typeof states.a) => {
      one.volume!.resetLinkBytes();
      one.wire = [];
      const side = source === null ? 'none' : source === one ? 'source' : 'target';
      const decision: LinkDecision = { incarnation, protocol, side, full, syncGeneration };
      return one.volume!.linkPrepare(linkParams(mine, peer, decision));
    };
    await this.finish(
      Promise.all([prepare(a, states.a, states.b), prepare(b, states.b, states.a)]),
    );
    await this.finish(Promise.all([a.volume!.linkStart(), b.volume!.linkStart()]));
    a.linked = true;
    b.linked = true;
  }

  connected(): boolean {
    return [this.a, this.b].every(({ volume }) => volume?.status().connection === 'Connected');
  }
}
