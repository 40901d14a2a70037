/**
 * A simulated machine for the simulator: disks with volatile caches, and the shipped core on them, which moves one step at a
 * time. docs/simulator.md says what the disks do and what the checks check; test/sim/native is the native half.
 *
 * Everything follows from the seed: no clock, no thread, no randomness of another source.
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { wrapAddon } from '../../lib/binding/addon.ts';
import type {
  HandshakeFrame,
  NativeAddon,
  NativeCallbacks,
  NativeVolume,
} from '../../lib/binding/native.ts';

/** What is made once, with the volume on it. */
export interface MachineShape {
  volumeBytes: number;
  chunkBytes: number;
  extentBytes: number;
  logExtents: number;
  blockBytes: 512 | 4096;
  /** External: on a second disk with a cache of its own. */
  metadata: 'internal' | 'external';
  /** False: every finished write is durable. */
  volatileCache: boolean;
}

export interface MachineOptions extends MachineShape {
  name: string;
  seed: bigint | number;
}

/** Faults of the disks from now on; all chances are "one in N", 0 = never. They count for open() too. */
export interface DiskFaults {
  dataWriteErrorOneIn: number;
  dataReadErrorOneIn: number;
  dataFlushErrorOneIn: number;
  metaWriteErrorOneIn: number;
  metaReadErrorOneIn: number;
  metaFlushErrorOneIn: number;
  /** No buffer for the core. */
  noBufferOneIn: number;
  /** No I/O ends. */
  hang: boolean;
  /** Bounds of the link rings, at most 2 MiB (0: that); a frame of the link's largest write and 64 KiB must fit. */
  sendRingBytes: number;
  receiveRingBytes: number;
}

export const NO_FAULTS: DiskFaults = {
  dataWriteErrorOneIn: 0,
  dataReadErrorOneIn: 0,
  dataFlushErrorOneIn: 0,
  metaWriteErrorOneIn: 0,
  metaReadErrorOneIn: 0,
  metaFlushErrorOneIn: 0,
  noBufferOneIn: 0,
  hang: false,
  sendRingBytes: 0,
  receiveRingBytes: 0,
};

export type SimOp = 'read' | 'write' | 'flush' | 'discard' | 'write-zeroes';

export interface SimRequest {
  op: SimOp;
  /** Whole sectors of 512 bytes. */
  offset: number;
  length: number;
  fua?: boolean;
  noUnmap?: boolean;
  /** Writes: every sector's content names the sector and this number, 1 to 2^48 - 1, so that any reader can judge it. */
  stamp?: number;
}

export interface SimCompletion {
  id: number;
  /** 0 or -errno. */
  result: number;
  /** Slot of the peer that the volume was linked with then; -1: none. */
  linkSlot: number;
  /** Of a read that went well, for each sector: the stamp found, 0 = zeroes, -1 = torn or foreign content. */
  stamps?: Float64Array;
}

export interface SimCounters {
  ioOut: number;
  /** Writes, discards and zeroes that are under way at the disk with the data. */
  dataWritesOut: number;
  /** Of the peer's bytes that have come, those that wait for something of this node. */
  linkBytesUnread: number;
  buffersOut: number;
  bufferBytesOut: number;
  sendRingUsed: number;
  transferWrites: number;
  /** Protocol A: of these what completed without waiting for the peer, and is not known to be there. */
  windowWrites: number;
  windowBytes: number;
}

interface NativeMachine {
  nodeId(): string;
  open: NativeAddon['open'];
  isOpen(): boolean;
  ioCount(): number;
  completeIo(pick: number): string;
  poll(nowUs: number): void;
  deliver(): boolean;
  nextDeadlineUs(): number;
  submit(request: SimRequest): number;
  completions(): SimCompletion[];
  requestsOut(): number;
  setFaults(faults: DiskFaults): void;
  crash(kind: 'process' | 'power'): SimRequest[];
  takeUnfinished(): SimRequest[];
  rot(what: 'map' | 'log' | 'superblock'): string;
  claimNewer(newer: boolean): void;
  replaceDisk(): void;
  readStamps(offset: number, length: number, durable: boolean): Float64Array;
  counters(): SimCounters;
  durableCurrent(): string;
  dump(): string;
  dispose(): void;
}

interface NativeSim {
  version: string;
  SimMachine: new (options: Omit<MachineOptions, 'seed'> & { seed: number }) => NativeMachine;
  setMutant(name: string): void;
  mutants: string[];
  encodeHandshake(json: string): Uint8Array;
  parseHandshake(bytes: Uint8Array): HandshakeFrame | null;
  differing(a: NativeMachine, b: NativeMachine): Uint32Array;
  uncovered(a: NativeMachine, b: NativeMachine): Uint32Array;
  uncoveredAfterCrash(
    a: NativeMachine,
    b: NativeMachine,
    seed: number,
    cutA: boolean,
    cutB: boolean,
  ): Uint32Array;
  explain(a: NativeMachine, b: NativeMachine, chunk: number): string;
}

const ADDON = join('build', 'simulator', 'tidemark_sim.node');

/** The add-on of the checkout that this file, or the copy of it that has mutants, lies in. */
function loadSim(): NativeSim {
  const named = process.env.TIDEMARK_SIM_ADDON;
  let path = named;
  for (let folder = dirname(fileURLToPath(import.meta.url)); path === undefined; ) {
    if (existsSync(join(folder, ADDON))) path = join(folder, ADDON);
    const above = dirname(folder);
    if (above === folder) break;
    folder = above;
  }
  if (path === undefined) {
    throw new Error(`${ADDON} does not exist: run 'bash scripts/setup.sh sim'`);
  }
  return createRequire(import.meta.url)(path) as NativeSim;
}

const sim = loadSim();

/** Mutants of the native part of this build. */
export const nativeMutants: readonly string[] = sim.mutants;

/** '' = none. @throws Error for an unknown name. */
export function setMutant(name: string): void {
  sim.setMutant(name);
}

/** The native part takes what a number holds exactly; more of a seed is folded into it. */
function seedNumber(seed: bigint | number): number {
  const bits = BigInt.asUintN(64, BigInt(seed));
  return Number((bits ^ (bits >> 53n)) & ((1n << 53n) - 1n));
}

export class SimMachine {
  readonly nodeId: string;
  readonly name: string;
  readonly options: MachineOptions;
  /**
   * For lib/replication: open() attaches to this machine's disks, whatever paths it is given, or throws as the real one.
   * Promises settle, and callbacks come, in deliver() only. One volume at a time.
   */
  readonly addon: NativeAddon;
  #native: NativeMachine;
  #volume: NativeVolume | null = null;
  #faults: DiskFaults = { ...NO_FAULTS };

  /** Creates metadata as `tidemark create` does. */
  constructor(options: MachineOptions) {
    this.options = options;
    this.name = options.name;
    this.#native = new sim.SimMachine({ ...options, seed: seedNumber(options.seed) });
    this.nodeId = this.#native.nodeId();
    const native = this.#native;
    this.addon = wrapAddon({
      version: sim.version,
      open: (options, callbacks: NativeCallbacks) => {
        // Kept: when the garbage is collected must be no part of the seed.
        this.#volume = native.open(options, callbacks);
        return this.#volume;
      },
      create: () => Promise.reject(new Error('a SimMachine makes its own metadata')),
      dump: () => Promise.resolve(native.dump()),
      features: () => '{}',
      encodeHandshake: (json) => sim.encodeHandshake(json),
      parseHandshake: (bytes) => sim.parseHandshake(bytes),
    });
  }

  /** Of SimChecks; not for others. */
  get native(): unknown {
    return this.#native;
  }

  /** A daemon runs: from open() until its close() has ended, or a crash. */
  get open(): boolean {
    return this.#native.isOpen();
  }

  /** I/Os under way at the disks. */
  get ioCount(): number {
    return this.#native.ioCount();
  }

  /** Ends the I/O chosen by pick (0 <= pick < 1, oldest to newest). Text for the trace; '': there is none, or the disk hangs. */
  completeIo(pick: number): string {
    return this.#native.completeIo(pick);
  }

  /** One turn of the daemon's loop: calls made by JavaScript, bytes of the peer, Volume::poll. Time only goes forward. */
  poll(nowUs: number): void {
    this.#native.poll(nowUs);
  }

  /**
   * One turn of JavaScript, as the real add-on takes it: settles promises or calls `events`, then `outgoing` and `room`. What is
   * behind it comes with the next call, after the microtasks of this one. False: there was nothing to tell.
   */
  deliver(): boolean {
    return this.#native.deliver();
  }

  /** The earliest time at which poll() must be called, in us; at most the last poll's time when it is due; Infinity when not open. */
  get nextDeadlineUs(): number {
    return this.#native.nextDeadlineUs();
  }

  /** Legal while a frontend runs (startNbd, startUblk). Returns its id. */
  submit(request: SimRequest): number {
    return this.#native.submit(request);
  }

  completions(): SimCompletion[] {
    return this.#native.completions();
  }

  /** Submitted and not completed. */
  get requestsOut(): number {
    return this.#native.requestsOut();
  }

  get faults(): DiskFaults {
    return this.#faults;
  }

  set faults(faults: DiskFaults) {
    this.#native.setFaults(faults);
    this.#faults = { ...faults };
  }

  /**
   * The daemon dies: its NativeVolume is dead, its promises never settle. I/O in flight happened, in part, or not. 'power': what
   * was not flushed is lost, kept and torn as well. Returns the requests that were not completed, oldest first. When no daemon runs, the disks
   * lose power all the same.
   */
  crash(kind: 'process' | 'power'): SimRequest[] {
    return this.#native.crash(kind);
  }

  /** Requests that were out when the volume was closed by force. */
  takeUnfinished(): SimRequest[] {
    return this.#native.takeUnfinished();
  }

  /** Damages one durable block of the metadata; of the log never the newest, whose loss looks like a torn tail. Text for the trace. */
  rot(what: 'map' | 'log' | 'superblock'): string {
    return this.#native.rot(what);
  }

  /** The metadata as a newer program would have left them, all else being in order; or as they were. While no daemon runs. */
  claimNewer(newer: boolean): void {
    this.#native.claimNewer(newer);
  }

  /** Empty disks with new metadata and a new identity; not while open. */
  replaceDisk(): void {
    this.#native.replaceDisk();
    (this as { nodeId: string }).nodeId = this.#native.nodeId();
  }

  /** Stamps as the running system would read them, one for each sector. */
  readStamps(offset: number, length: number): Float64Array {
    return this.#native.readStamps(offset, length, false);
  }

  /** What would be there after a power cut now, with everything lost that is not flushed. */
  readDurableStamps(offset: number, length: number): Float64Array {
    return this.#native.readStamps(offset, length, true);
  }

  counters(): SimCounters {
    return this.#native.counters();
  }

  /** The generation, in 16 hex digits, that would be the current one after a power cut now. */
  durableCurrent(): string {
    return this.#native.durableCurrent();
  }

  /** Gives its memory back at once; nothing of it may be used afterwards, and nothing comes of what its daemon still waits for. */
  dispose(): void {
    this.#native.dispose();
    this.#volume = null;
    const { name } = this;
    this.#native = new Proxy({} as NativeMachine, {
      get() {
        throw new Error(`machine ${name} was disposed of`);
      },
    });
  }
}

const native = (machine: SimMachine) => machine.native as NativeMachine;

/**
 * The sentence that must always hold: what may differ between two copies is marked, durably, on a node that will be asked.
 * All answers are chunk numbers, of a's chunk size; empty is good.
 */
export const SimChecks = {
  /** Chunks whose content differs between the machines, as the running systems would read them. */
  differing(a: SimMachine, b: SimMachine): Uint32Array {
    return sim.differing(native(a), native(b));
  },

  /**
   * Differing chunks that would be forgotten if both machines died now (durable maps and logs count), or if only the link went
   * (the maps in RAM count, the transfer logs, and what is being written at this moment). Cheap enough for every step.
   */
  uncovered(a: SimMachine, b: SimMachine): Uint32Array {
    return sim.uncovered(native(a), native(b));
  },

  /**
   * On clones of the disks: those that are cut lose power, with what was in flight; a daemon that runs on the other one goes on,
   * or is killed, by the seed. What died attaches, with replay of the log. Lists the chunks that differ then and that neither side's map has.
   * @throws Error when a clone refuses to attach.
   */
  uncoveredAfterCrash(
    a: SimMachine,
    b: SimMachine,
    seed: number,
    cutA: boolean,
    cutB: boolean,
  ): Uint32Array {
    return sim.uncoveredAfterCrash(native(a), native(b), seed, cutA, cutB);
  },

  /** What maps, logs and transfer logs say about a chunk now, for a trace. */
  explain(a: SimMachine, b: SimMachine, chunk: number): string {
    return sim.explain(native(a), native(b), chunk);
  },
};
