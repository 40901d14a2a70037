/** All volumes of the process, as the worker holds them. Behind the message port stands exactly this. */
import { randomBytes } from 'node:crypto';
import { TidemarkError } from '../binding/errors.ts';
import type { AttachReport, NativeAddon } from '../binding/native.ts';
import type {
  FrontendSpec,
  PolicyValues,
  Replication,
  ReplicationEvent,
  ReplicationStatus,
  VolumeSpec,
} from './api.ts';
import { type Clock, systemClock } from './clock.ts';
import { Listeners } from './listener.ts';
import { netTransport, type Transport } from './transport.ts';
import { ReplicatedVolume, type VolumeWorld } from './volume.ts';

export interface HostOptions {
  addon: NativeAddon;
  emit(event: ReplicationEvent): void;
  clock?: Clock;
  transport?: Transport;
  random?: () => number;
  randomBytes?: (bytes: number) => Buffer;
}

type Calls = Omit<Replication, 'onEvent' | 'onExit'>;

export class ReplicationHost implements Calls {
  readonly #world: VolumeWorld;
  /** An entry is there from the moment that open() begins. */
  readonly #volumes = new Map<string, Promise<ReplicatedVolume>>();
  #isShutDown = false;

  constructor(options: HostOptions) {
    const clock = options.clock ?? systemClock;
    const transport = options.transport ?? netTransport;
    this.#world = {
      addon: options.addon,
      clock,
      transport,
      random: options.random ?? Math.random,
      randomBytes: options.randomBytes ?? randomBytes,
      listeners: new Listeners({ addon: options.addon, clock, transport }),
      emit: options.emit,
    };
  }

  async open(spec: VolumeSpec): Promise<AttachReport> {
    if (this.#isShutDown) throw new TidemarkError('CLOSED', 'the replication worker is ending');
    if (this.#volumes.has(spec.name)) {
      throw new TidemarkError('EXISTS', `volume '${spec.name}' is open already`);
    }
    const opening = ReplicatedVolume.open(spec, this.#world);
    this.#volumes.set(spec.name, opening);
    try {
      return (await opening).attach;
    } catch (error) {
      this.#volumes.delete(spec.name);
      throw error;
    }
  }

  async startLinks(volume: string): Promise<void> {
    await (await this.#volume(volume)).startLinks();
  }

  async startFrontend(volume: string, frontend: FrontendSpec): Promise<string> {
    return (await this.#volume(volume)).startFrontend(frontend);
  }

  async stopFrontend(volume: string, force: boolean): Promise<void> {
    await (await this.#volume(volume)).stopFrontend(force);
  }

  async promote(volume: string, force: boolean): Promise<void> {
    await (await this.#volume(volume)).promote(force);
  }

  async demote(volume: string): Promise<void> {
    await (await this.#volume(volume)).demote();
  }

  async invalidate(volume: string, peer: string): Promise<void> {
    await (await this.#volume(volume)).invalidate(peer);
  }

  async disconnect(volume: string, peer?: string): Promise<void> {
    await (await this.#volume(volume)).disconnect(peer);
  }

  async connect(volume: string, peer?: string, discardMine?: boolean): Promise<void> {
    await (await this.#volume(volume)).connect(peer, discardMine);
  }

  async setPolicy(volume: string, values: PolicyValues): Promise<void> {
    await (await this.#volume(volume)).setPolicy(values);
  }

  async resume(volume: string): Promise<void> {
    await (await this.#volume(volume)).resume();
  }

  async status(volume: string): Promise<ReplicationStatus> {
    return (await this.#volume(volume)).status();
  }

  async askPeers(volume: string, deadlineMs: number): Promise<string | null> {
    return (await this.#volume(volume)).askPeers(deadlineMs);
  }

  /** Rejects when the volume's disk failed on the way; it is closed then, too. */
  async close(name: string): Promise<void> {
    const volume = await this.#volume(name);
    try {
      await volume.close();
    } finally {
      this.#volumes.delete(name);
    }
  }

  /** Closes all volumes; the first failure is thrown when all are closed. */
  async shutdown(): Promise<void> {
    this.#isShutDown = true;
    const results = await Promise.allSettled(
      [...this.#volumes.keys()].map((name) => this.close(name)),
    );
    const failed = results.find((each) => each.status === 'rejected');
    if (failed) throw failed.reason;
  }

  #volume(name: string): Promise<ReplicatedVolume> {
    const volume = this.#volumes.get(name);
    if (volume) return volume;
    return Promise.reject(new TidemarkError('VOLUME_UNKNOWN', `volume '${name}' is not open`));
  }
}
