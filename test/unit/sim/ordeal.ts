/** A short life of two copies under one seed: writes, cut links, dead daemons and power cuts, with every check of SimChecks. */

import type { MachineOptions } from '../../sim/machine.ts';
import { SimChecks } from '../../sim/machine.ts';
import { MIB, type Twin, Twins } from './twins.ts';

const ROUNDS = 6;
const WRITES_MAX = 16;
const CRASH_CHECK_STEPS = 20;
const PROTOCOLS = ['A', 'C', 'C'] as const;

function options(seed: number): Partial<MachineOptions> {
  return {
    metadata: seed % 2 === 0 ? 'external' : 'internal',
    chunkBytes: seed % 3 === 0 ? 65536 : 4096,
    blockBytes: seed % 5 === 0 ? 4096 : 512,
    logExtents: 7 + (seed % 3),
  };
}

export class Ordeal extends Twins {
  readonly #protocol: 'A' | 'C';
  #stamp = 1;

  constructor(seed: number) {
    super(seed, options(seed));
    this.#protocol = PROTOCOLS[seed % PROTOCOLS.length]!;
    this.check = () => this.#check();
  }

  #fail(what: string, chunks: Uint32Array): void {
    if (chunks.length === 0) return;
    const why = SimChecks.explain(this.a.machine, this.b.machine, chunks[0]!);
    throw new Error(`step ${this.steps}: ${what}: chunks ${[...chunks].slice(0, 5)}...: ${why}`);
  }

  #check(): void {
    const { a, b, steps } = this;
    this.#fail('uncovered', SimChecks.uncovered(a.machine, b.machine));
    if (steps % CRASH_CHECK_STEPS !== 0) return;
    const [cutA, cutB] = [steps % 3 !== 0, steps % 3 !== 1];
    const left = SimChecks.uncoveredAfterCrash(a.machine, b.machine, steps, cutA, cutB);
    this.#fail('uncovered after a crash', left);
  }

  #write(): void {
    const { machine } = this.a;
    const { chance } = this;
    if (!machine.open || machine.requestsOut >= WRITES_MAX || chance.below(2) === 0) return;
    const kind = chance.below(20);
    if (kind === 0) {
      machine.submit({ op: 'flush', offset: 0, length: 0 });
      return;
    }
    const length = 512 * (1 + chance.below(kind < 5 ? 256 : 16));
    const offset = 512 * chance.below((machine.options.volumeBytes - length) / 512);
    const op = kind === 1 ? 'discard' : kind === 2 ? 'write-zeroes' : 'write';
    machine.submit({ op, offset, length, stamp: this.#stamp++, fua: kind === 3 });
  }

  async #steps(count: number): Promise<void> {
    for (let at = 0; at < count; at++) {
      this.#write();
      await this.step();
    }
  }

  async #serve(): Promise<void> {
    const volume = this.a.open();
    await this.finish(volume.promote(true));
    await this.finish(volume.startUblk({ deviceId: 0 }));
  }

  #blow(): void {
    const { a, b, chance } = this;
    const kind = () => (chance.below(2) === 0 ? 'power' : 'process');
    const gone = (twin: Twin) => twin.volume?.linkStop('gone');
    const what = chance.below(4);
    if (what !== 0 && what !== 1) a.crash(kind());
    if (what !== 0 && what !== 2) b.crash(kind());
    gone(a);
    gone(b);
  }

  /** @throws Error for the first thing that is wrong. */
  async run(): Promise<void> {
    const { a, b, chance } = this;
    await this.#serve();
    b.open();
    await this.link(a, true, this.#protocol);
    for (let round = 0; round < ROUNDS; round++) {
      await this.#steps(400);
      this.#blow();
      await this.#steps(150);
      if (!a.machine.open) await this.#serve();
      if (!b.machine.open) b.open();
      await this.link(a, false, this.#protocol);
      if (chance.below(2) === 0) await this.until(() => this.connected());
    }
    await this.until(() => a.machine.requestsOut === 0 && this.connected());
    await this.until(() => SimChecks.differing(a.machine, b.machine).length === 0);
    await this.finish(a.close());
    await this.finish(b.close());
  }
}

/** Where a sector's content differs, if the two disks are read whole; to check what keeps count of it. */
export function differingBytes({ a, b }: Twins): number[] {
  const [left, right] = [a, b].map(({ machine }) => machine.readStamps(0, 12 * MIB));
  const sectors: number[] = [];
  left!.forEach((stamp, sector) => {
    if (stamp !== right![sector]) sectors.push(sector);
  });
  return sectors;
}
