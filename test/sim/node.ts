/**
 * A node: its machine, the ublk device that outlives a daemon, and the daemon that runs now: a ControlledVolume over a ReplicationHost, started
 * and stopped as lib/control/daemon.ts does.
 */
import type {
  NativeEvent,
  NativeLinkParams,
  NativeStatus,
  NativeVolume,
} from '../../lib/binding/native.ts';
import type { VolumeConfig } from '../../lib/config/resolved.ts';
import { ControlledVolume } from '../../lib/control/volume.ts';
import type { Replication } from '../../lib/replication/api.ts';
import { ReplicationHost } from '../../lib/replication/host.ts';
import type { Address } from '../../lib/replication/transport.ts';
import { makeConfig } from './config.ts';
import type { Lineage } from './lineage.ts';
import { SimMachine, type SimRequest } from './machine.ts';
import type { LinkView, Pending } from './model.ts';
import { type Observer, observed } from './observe.ts';
import type { Plan } from './plan.ts';
import { type PolicyMood, policyCaller } from './policy.ts';
import { SimPort } from './port.ts';
import type { Random } from './random.ts';
import type { Simulation } from './simulation.ts';
import type { Life } from './time.ts';

export type NodeState = 'off' | 'starting' | 'running' | 'stopping' | 'failed';

/** A peer that has so long to answer answers, when nothing is wrong. */
export const ANSWER_MS = 1000;

interface Daemon {
  life: Life;
  port: SimPort;
  volume: ControlledVolume;
  native: NativeVolume | null;
  params: NativeLinkParams | null;
  /** It is the target of a resync, or was when its link went down, and has not been told to be whole. */
  copying: boolean;
  /** The link of `params` has gone down. */
  cut: boolean;
}

export class SimNode {
  readonly index: number;
  readonly machine: SimMachine;
  readonly address: Address;
  name: string;
  /** Metadata were made anew so often; the config's names follow. */
  replacements = 0;
  /** The machine runs. */
  up = true;
  state: NodeState = 'off';
  /** Why the last start failed. */
  failure = '';
  startedUs = 0;
  /** When it was promoted last. */
  promotedUs = Number.NEGATIVE_INFINITY;
  readonly mood: PolicyMood = { calm: false };
  /** Number of the ublk device that the kernel has, served or waiting; null: none. */
  device: number | null = null;
  noted: number | null = null;
  /** A frontend runs, and takes requests. */
  serving = false;
  /** Requests of the device that no daemon has completed: submitted again to the next one. */
  waiting: SimRequest[] = [];
  /** What the volume was when they were submitted first; null: none of them came again. */
  waitedFor: Lineage | null = null;
  readonly pending = new Map<number, Pending>();
  /** The config was changed since the daemon was started. */
  stale = false;
  /** A device was taken over, and recovery has not let its I/O go on. */
  recovering = false;
  /** Told to stay alone, or to yield; by command. */
  alone = false;
  /**
   * A flush of this disk failed once. What the disk forgot then cannot be known (R11), so that nothing is promised of it after a power cut
   * until it is replaced: it has none any more.
   */
  flushFailed = false;
  /** This disk has been Failed. */
  diskFailed = false;
  /** It let go of its disk, and works at its peer's (on-io-error 'detach'). */
  diskless = false;
  /** A write of this daemon failed: as primary it hangs up at its next sweep, so that what it marked is copied. */
  writeFailed = false;
  /** What its disk gets done of what one that is well does: 0..1. */
  diskSpeed = 1;
  /** An attach may be refused: a superblock copy was damaged, so that the other one alone may be left, or both are a newer program's. */
  rotten = false;
  /** Promoted with force since this daemon was started. */
  forced = false;
  readonly #sim: Simulation;
  readonly #plan: Plan;
  readonly #random: Random;
  #daemon: Daemon | null = null;
  #devices = 0;

  constructor(sim: Simulation, plan: Plan, index: number, random: Random) {
    this.#sim = sim;
    this.#plan = plan;
    this.#random = random;
    this.index = index;
    this.name = nameOf(index, 0);
    // Without a secret only loopback addresses are allowed.
    this.address =
      plan.secret === null
        ? { host: '127.0.0.1', port: 7000 + index }
        : { host: `10.0.0.${index + 1}`, port: 7000 };
    this.machine = new SimMachine({
      name: this.name,
      seed: random.u32(),
      volumeBytes: plan.volumeBytes,
      chunkBytes: plan.chunkBytes,
      extentBytes: plan.extentBytes,
      logExtents: plan.logExtents,
      blockBytes: plan.blockBytes,
      metadata: plan.metadata,
      volatileCache: plan.volatileCache,
    });
  }

  get native(): NativeVolume | null {
    return this.machine.open ? (this.#daemon?.native ?? null) : null;
  }

  /** Null while no volume is open. */
  get status(): NativeStatus | null {
    try {
      return this.native?.status() ?? null;
    } catch {
      // It is being closed.
      return null;
    }
  }

  get linkParams(): NativeLinkParams | null {
    return this.#daemon?.params ?? null;
  }

  get volume(): ControlledVolume | null {
    return this.#daemon?.volume ?? null;
  }

  get replication(): Replication | null {
    return this.#daemon?.port.replication ?? null;
  }

  /** It asked this one after a crash, within reach, and got an answer of what this one still is. */
  asked(other: SimNode): boolean {
    const { network, disturbedUs, time } = this.#sim;
    if (other === this || !network.healthy || this.alone || other.alone) return false;
    if (this.startedUs <= disturbedUs || other.startedUs > this.startedUs) return false;
    // It may have answered before it was promoted.
    return time.nowUs - other.promotedUs >= ANSWER_MS * 1000;
  }

  get running(): boolean {
    return this.state === 'running';
  }

  get primary(): boolean {
    return this.status?.role === 'primary';
  }

  /** Starts a daemon; what it does goes on by itself. */
  start(primary = false): void {
    if (this.state !== 'off' && this.state !== 'failed') return;
    this.up = true;
    this.state = 'starting';
    this.failure = '';
    this.stale = false;
    this.alone = false;
    this.forced = false;
    this.diskless = false;
    this.writeFailed = false;
    this.recovering = false;
    this.#sim.diskErrors.reset(this);
    this.startedUs = this.#sim.time.nowUs;
    const daemon = this.#makeDaemon();
    this.#daemon = daemon;
    this.#trace('daemon starts');
    this.#begin(daemon, primary).then(
      () => {
        if (!daemon.life.alive) return;
        this.state = 'running';
        this.#trace('daemon runs');
      },
      async (error: Error) => {
        if (!daemon.life.alive) return;
        this.#trace(`daemon failed to start: ${error.message}`);
        await this.#tearDown(daemon, true);
        this.failure = error.message;
        this.state = 'failed';
      },
    );
  }

  async #begin({ volume }: Daemon, primary: boolean): Promise<void> {
    await volume.start();
    if (primary && !volume.recovering) await volume.promote(false);
  }

  /** A clean stop. Resolves with whether it was one; refused while the device is in use only by the kernel itself. */
  async stop(): Promise<boolean> {
    const daemon = this.#daemon;
    if (!this.running || daemon === null) return false;
    this.state = 'stopping';
    this.#trace('daemon stops');
    try {
      await daemon.volume.stopFrontend(false);
    } catch (error) {
      // Suspended by recovery: the daemon goes on.
      this.#trace(`not stopped: ${(error as Error).message}`);
      this.state = 'running';
      return false;
    }
    const clean = await this.#tearDown(daemon, false);
    this.state = 'off';
    this.#trace(`daemon has stopped${clean ? '' : ', not cleanly'}`);
    return clean;
  }

  async #tearDown({ volume, port, life }: Daemon, failed: boolean): Promise<boolean> {
    let clean = true;
    const step = async (what: string, task: () => Promise<unknown>) => {
      try {
        await task();
      } catch (error) {
        clean = false;
        this.#trace(`${what}: ${(error as Error).message}`);
      }
    };
    let left = false;
    if (failed) {
      try {
        await volume.stopFrontend(false);
      } catch {
        left = true;
      }
    }
    if (!left) {
      await step('close', () => volume.close());
      await step('shutdown', () => port.host!.shutdown());
    }
    // A daemon that leaves its device to a successor ends as if it had been killed.
    if (left || this.machine.open) this.crash('process');
    else this.#end(life);
    return clean;
  }

  #end(life: Life): void {
    life.alive = false;
    this.#daemon = null;
    // Those that a stop which was not clean left are of a device that was taken away before.
    const unfinished = this.machine.takeUnfinished();
    if (unfinished.length !== this.pending.size) {
      this.#sim.fail(
        'requests',
        `${this.pending.size} are out at ${this.name}, whose daemon has stopped, and ${unfinished.length} were given back`,
      );
    }
    this.pending.clear();
    this.serving = false;
    this.diskless = false;
    this.#sim.network.died(this.index, 'process');
  }

  /** The daemon is killed, or the machine loses its power. */
  crash(wanted: 'process' | 'power'): void {
    const kind = this.flushFailed ? 'process' : wanted;
    if (kind === 'power') this.up = false;
    const daemon = this.#daemon;
    if (daemon !== null) daemon.life.alive = false;
    this.#daemon = null;
    this.state = 'off';
    this.#trace(`CRASH (${kind})`);
    // The event may be on its way.
    const { dataFlushErrorOneIn, metaWriteErrorOneIn, metaFlushErrorOneIn } = this.machine.faults;
    this.diskFailed ||= dataFlushErrorOneIn + metaWriteErrorOneIn + metaFlushErrorOneIn > 0;
    const open = this.machine.open;
    const unfinished = this.machine.crash(kind);
    this.#sim.network.died(this.index, kind);
    if (this.serving && unfinished.length !== this.pending.size) {
      this.#sim.fail(
        'requests',
        `${this.pending.size} were out at ${this.name}, ${unfinished.length} were given back`,
      );
    }
    // The kernel keeps a ublk device and what waits on it, unless the machine went down with it.
    if (this.#plan.frontend === 'ublk' && this.serving && kind === 'process') {
      this.waiting.push(...[...this.pending.values()].map(({ request }) => request));
      this.waitedFor ??= this.#sim.model.copy(this.index).lineage;
    }
    if (kind === 'power') {
      this.device = null;
      this.noted = null;
      this.waiting = [];
    }
    this.pending.clear();
    this.serving = false;
    this.diskless = false;
    if (open || kind === 'power') this.#sim.check(() => this.#sim.model.crashed(this.index, kind));
  }

  /** The seed is over. */
  abandon(): void {
    if (this.#daemon !== null) this.#daemon.life.alive = false;
    this.#daemon = null;
  }

  /** Another disk, empty, with metadata of its own; the node gets a new name with it. */
  replaceDisk(): void {
    this.machine.replaceDisk();
    this.replacements += 1;
    this.flushFailed = false;
    this.diskFailed = false;
    this.rotten = false;
    this.name = nameOf(this.index, this.replacements);
    this.device = null;
    this.noted = null;
    this.waiting = [];
    this.#sim.model.diskReplaced(this.index);
    this.#sim.duties.isCurrent(this);
    this.#trace(`has a new disk, and is ${this.name} from now on`);
    for (const other of this.#sim.nodes) if (other !== this) other.stale = true;
  }

  #makeDaemon(): Daemon {
    const sim = this.#sim;
    const life: Life = { alive: true };
    const clock = sim.time.clockOf(life);
    const random = this.#random;
    const broken = (error: Error) =>
      sim.fail('exception', `${this.name}: ${error.stack ?? error.message}`);
    const port = new SimPort(clock, this.#plan.slowPort ? random : null, broken);
    const link = { params: null, copying: false, cut: false };
    const daemon: Partial<Daemon> = { life, port, native: null, ...link };
    port.host = new ReplicationHost({
      addon: observed(this.machine.addon, this.#observer(daemon as Daemon)),
      clock,
      transport: sim.network.transportOf(this, life),
      random: () => random.next(),
      randomBytes: (bytes) => random.bytes(bytes),
      emit: (event) => {
        this.#trace(`event ${event.kind}${event.peer ? ` of ${event.peer}` : ''}: ${event.text}`);
        if (event.kind === 'peer-refused') sim.check(() => sim.duties.refused(this, event.text));
        port.emit(event);
      },
    });
    const log = (level: string) => (about: object | string, text?: string) =>
      this.#trace(`${level}: ${typeof about === 'string' ? about : (text ?? '')}`);
    const volume = new ControlledVolume(this.config(), {
      replication: port.replication,
      record: {
        read: () => this.noted,
        write: (path) => {
          if (this.#plan.frontend === 'ublk' && path !== '') this.noted = this.device;
        },
        remove: () => {
          this.noted = null;
        },
        deviceExists: (id) => this.device === id,
      },
      callPolicy: policyCaller(this.#plan.policy, random, clock, this.mood),
      secret: this.#plan.secret,
      log: { debug: () => {}, info: log('info'), warn: log('warn'), error: log('error') },
      clock,
    });
    port.replication.onEvent((event) => volume.onEvent(event));
    return Object.assign(daemon, { volume }) as Daemon;
  }

  config(): VolumeConfig {
    return makeConfig(this.#plan, this, this.#sim.nodes);
  }

  #trace(text: string): void {
    this.#sim.trace.add(this.name, text);
  }

  #observer(daemon: Daemon): Observer {
    const { model } = this.#sim;
    const { duties } = this.#sim;
    /** Null: it was no primary, and nothing comes of it. */
    let demotedFrom: LinkView | null = null;
    let demotedUs = 0;
    let wasInconsistent = false;
    let writesOut = 0;
    const { index } = this;
    const check = (work: () => void) => this.#sim.check(work);
    return {
      opened: (native) => {
        daemon.native = native;
        this.#trace(`attached: ${JSON.stringify(native.attach)}`);
      },
      events: (events) => {
        for (const event of events) this.#onEvent(daemon, event);
        check(() => duties.told(this, events));
      },
      preparing: () => {
        // Of a primary they are its application's.
        writesOut = this.primary ? 0 : this.machine.counters().dataWritesOut;
      },
      prepared: (params) => {
        Object.assign(daemon, { params, cut: false, copying: params.side === 'target' });
        check(() => duties.prepared(this, writesOut));
        const { side, full, incarnation } = params;
        this.#trace(`link prepared: ${side}${full ? ', full' : ''}, incarnation ${incarnation}`);
        if (side === 'none') check(() => duties.nothingToDo(this, params.peerId));
        const peer = this.#sim.nodeById(params.peerId);
        if (peer && side === 'target') check(() => model.becomesTarget(index, peer.index));
      },
      starting: (params) => check(() => this.#sim.linkStarting(this, params)),
      started: ({ incarnation, side }) => {
        this.#trace(`link started, incarnation ${incarnation}`);
        if (side === 'none') duties.isCurrent(this);
      },
      before: (what) => {
        if (what === 'resume') {
          this.recovering = false;
          this.#sim.diskErrors.resuming(this);
        }
        if (what === 'demote') {
          demotedFrom = this.primary ? model.view(index) : null;
          demotedUs = this.#sim.disturbedUs;
        }
        if (what === 'promote') wasInconsistent = daemon.native!.status().disk === 'Inconsistent';
      },
      after: (what, force, error) => {
        const result = error === null ? 'done' : error.message;
        this.#trace(`${what}${force ? ' with force' : ''}: ${result}`);
        if (what === 'resume') this.#sim.diskErrors.resumed(this);
        if (error !== null) return;
        check(() => {
          if (what === 'promote') {
            this.promotedUs = this.#sim.time.nowUs;
            // Whatever it was being given before, by force it is the truth.
            daemon.copying = false;
            duties.promoted(this, force);
            model.promoted(index, force, force && wasInconsistent);
          } else if (what === 'demote') {
            if (demotedFrom === null) return;
            duties.demoted(this, demotedFrom, demotedUs);
            model.demoted(index, demotedFrom);
          } else if (what === 'invalidate') model.invalidated(index);
          else this.#sim.resumed(this);
        });
      },
      frontend: (path, recovered) => this.#frontend(path, recovered),
      frontendStopping: () => {
        this.serving = false;
        this.#sim.diskErrors.stopping(this);
      },
      frontendKept: () => {
        this.serving = true;
        this.#sim.diskErrors.kept(this);
      },
      toldPeer: () => duties.toldPeer(this),
    };
  }

  #onEvent(daemon: Daemon, { kind, text }: NativeEvent): void {
    this.#trace(`native ${kind} ${text}`);
    if (kind === 'diskState' && text === 'Failed') this.diskFailed = true;
    if (kind === 'ioError' && text.includes('flush')) this.flushFailed = true;
    if (kind === 'ioError' && text.startsWith('write of')) this.writeFailed = true;
    if (daemon.params?.side !== 'target') return;
    if (kind === 'linkDown') daemon.cut = true;
    // Without a link nobody says that the resync has finished; with force a person says that it need not.
    const alone = kind === 'diskState' && text === 'UpToDate' && daemon.cut && !this.primary;
    if (kind === 'syncFinished' || (alone && daemon.copying)) this.#synced(daemon, daemon.params);
  }

  /** The copy is what its source's was. */
  #synced(daemon: Daemon, { peerId, incarnation }: NativeLinkParams): void {
    daemon.copying = false;
    this.#sim.duties.isCurrent(this);
    const peer = this.#sim.nodeById(peerId);
    // Another daemon of its node began with what was there, and not with what was on its way.
    const source = peer?.linkParams?.incarnation === incarnation ? peer.index : -1;
    this.#sim.check(() => this.#sim.model.synced(this.index, source, incarnation));
  }

  #frontend(path: string | null, recovered: boolean): void {
    this.serving = path !== null;
    this.recovering = path !== null && recovered;
    this.#trace(path === null ? 'frontend stopped' : `serves ${path}`);
    if (this.#plan.frontend === 'nbd') return;
    const again = recovered ? this.#random.shuffled(this.waiting) : [];
    if (again.length === 0) this.waitedFor = null;
    this.waiting = [];
    if (path === null) this.device = null;
    else if (!recovered) {
      this.#devices += 1;
      this.device = this.#devices;
    }
    // The kernel submits again what the last daemon left, in any order.
    for (const request of again) this.#sim.submit(this, request);
  }
}

export function nameOf(index: number, replacements: number): string {
  const name = String.fromCharCode(97 + index).repeat(3);
  return replacements === 0 ? name : `${name}-${replacements + 1}`;
}
