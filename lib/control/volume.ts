/**
 * One volume of a running daemon: the order in which it is opened, recovered, promoted, demoted and closed. Role
 * changes run one after another; status never waits for them.
 *
 * Recovery (R18), when a ublk device waits for its successor or the replication worker died under a primary: open with
 * I/O suspended, dial the peers, promote, take the device over (an NBD export is made anew), ask the peers; when nothing
 * speaks against it, I/O goes on. Otherwise it stays suspended, status says why, and the question is asked again whenever
 * a peer comes or goes.
 */

import type { Logger } from 'pino';
import { TidemarkError } from '../binding/errors.ts';
import type { AttachReport } from '../binding/native.ts';
import type { VolumeConfig } from '../config/resolved.ts';
import { Evaluator, type PolicyCaller } from '../policy/evaluator.ts';
import type { FrontendSpec, Replication, ReplicationEvent } from '../replication/api.ts';
import { type Clock, systemClock } from '../replication/clock.ts';
import type { DeviceRecord } from './device_record.ts';
import { ResyncMeter } from './resync_meter.ts';
import { frontendSpec, volumeSpec } from './specs.ts';
import { type VolumeJson, volumeJson } from './status.ts';
import { StatusWatch } from './status_watch.ts';

/** Samples for policies and for the speed of a resync. */
const SAMPLE_MS = 1000;
/** A recovery that waits asks again after this time, if no peer event comes before. */
const RECOVERY_RETRY_MS = 2000;

const TAKES_AWAY = '--force takes its device away, and what waits on it fails';

const PEER_EVENTS = new Set(['peer-up', 'peer-down', 'peer-seen', 'peer-refused', 'link-state']);

/** A frontend whose I/O recovery has not let go on yet; null: the node serves none. */
interface Pending {
  frontend: FrontendSpec | null;
  /** For people. */
  device: string;
}

export interface VolumeContext {
  replication: Replication;
  record: Pick<DeviceRecord, 'read' | 'write' | 'remove' | 'deviceExists'>;
  callPolicy: PolicyCaller;
  secret: string | null;
  log: Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>;
  clock?: Clock;
}

export class ControlledVolume {
  readonly config: VolumeConfig;
  private readonly context: VolumeContext;
  private readonly evaluator: Evaluator;
  private readonly meter = new ResyncMeter();
  private readonly clock: Clock;
  private stopSampling: () => void = () => {};
  private sampling = false;
  private turn: Promise<unknown> = Promise.resolve();
  private attached = false;
  private recovers = false;
  private pending: Pending | null = null;
  /** Primary, or about to be again: what a new replication worker has to bring back. */
  private isServing = false;
  private readonly watch: StatusWatch;
  private closing = false;
  private wakeRecovery: (() => void) | null = null;
  private recoveryLoop: Promise<void> = Promise.resolve();
  /** Why what waits is not to go on, whatever the peers say now; null: nothing. */
  private overtaken: string | null = null;
  /** Why recovery has not let I/O go on; '' when it has. */
  private recovery = '';

  constructor(config: VolumeConfig, context: VolumeContext) {
    this.config = config;
    this.context = context;
    this.clock = context.clock ?? systemClock;
    this.watch = new StatusWatch(() => context.replication.status(config.name), this.clock);
    this.evaluator = new Evaluator(config, {
      call: context.callPolicy,
      apply: (values) => {
        context.log.debug({ volume: this.name, values }, 'policy changed');
        context.replication.setPolicy(this.name, values).catch((error: Error) => {
          context.log.warn({ volume: this.name }, `policy not applied: ${error.message}`);
        });
      },
      report: (message) => context.log.warn({ volume: this.name }, `policy: ${message}`),
      now: () => this.clock.now(),
    });
  }

  get name(): string {
    return this.config.name;
  }

  /** It is attached: it has a status. */
  get open(): boolean {
    return this.attached && !this.closing;
  }

  /** A crash is being recovered from, or was, since this daemon started. */
  get recovering(): boolean {
    return this.recovers;
  }

  /** Number of the device that waits for its successor; null: there is none. */
  private waitingDevice(): { id: number; noted: boolean } | null {
    const { frontend } = this.config.local;
    if (frontend?.kind !== 'ublk') return null;
    const { record } = this.context;
    const noted = record.read();
    const id = frontend.id >= 0 ? frontend.id : noted;
    if (id === null || !record.deviceExists(id)) return null;
    return { id, noted: noted === id };
  }

  /** It was primary, so that whoever opens it after its replication worker died has to bring that back. */
  get serving(): boolean {
    return this.isServing;
  }

  /**
   * Opens the volume, starts its links and, after a crash, recovers it. It is secondary afterwards, or recovered.
   * `serving`: it was primary in this process, under a replication worker that died.
   * A command that comes meanwhile has its turn afterwards: it would take what waits for recovery to be nothing (R18).
   */
  start(serving = false): Promise<void> {
    return this.inTurn(() => this.startNow(serving));
  }

  private async startNow(serving: boolean): Promise<void> {
    const { replication, log } = this.context;
    const waiting = this.waitingDevice();
    const mayRecover = waiting !== null || serving;
    const report = await replication.open(volumeSpec(this.config, this.context.secret, mayRecover));
    this.attached = true;
    this.logAttach(report);
    await replication.setPolicy(this.name, this.evaluator.values);
    // Before the first dial, so that a function decides about the first peer too.
    this.evaluator.peersChanged(await this.watch.ask());
    await this.evaluator.settled();
    this.stopSampling = this.clock.every(SAMPLE_MS, () => void this.sample());
    // The crash of another volume's daemon leaves devices too: one that is neither noted as ours nor fits a crash of
    // ours is not touched.
    if (waiting !== null && (waiting.noted || report.crashedPrimary)) {
      log.info(
        { volume: this.name },
        `taking over /dev/ublkb${waiting.id} from a daemon that died`,
      );
      // A peer was told of the crash meanwhile: this copy has been a secondary since (rule 40 of the decision).
      if (!report.crashedPrimary) {
        this.overtaken = `what waits on /dev/ublkb${waiting.id} may be older than the data: since its daemon died, this node was linked as secondary`;
      }
      const frontend = frontendSpec(this.name, this.config.local.frontend!, waiting.id);
      await this.recover({ frontend, device: `/dev/ublkb${waiting.id}` });
      return;
    }
    if (serving && report.crashedPrimary) {
      const { frontend } = this.config.local;
      await this.recover({
        frontend: frontend && frontendSpec(this.name, frontend, null),
        device: frontend === null ? this.name : `the ${frontend.kind} device of ${this.name}`,
      });
      return;
    }
    // A node that served, and was told of another primary since, is a secondary like others (R18).
    if (mayRecover) await replication.resume(this.name);
    await replication.startLinks(this.name);
  }

  private logAttach(report: AttachReport): void {
    const { log } = this.context;
    const about = { volume: this.name };
    for (const warning of report.warnings) log.warn(about, warning);
    if (report.crashed) {
      log.warn(
        about,
        `was not stopped cleanly: ${report.replayedExtents} hot extents, ${report.replayedChunks} chunks marked`,
      );
    }
    log.info(about, `attached ${this.config.local.backing}, ${report.volumeBytes} bytes`);
  }

  private async recover(pending: Pending): Promise<void> {
    this.recovers = true;
    this.isServing = true;
    this.pending = pending;
    this.recovery = 'recovering after a crash: asking the peers';
    await this.context.replication.startLinks(this.name);
    await this.recoverOnce(false);
    this.recoveryLoop = this.retryRecovery();
  }

  private async retryRecovery(): Promise<void> {
    while (this.pending !== null && !this.closing) {
      await new Promise<void>((resolve) => {
        const cancel = this.clock.after(RECOVERY_RETRY_MS, resolve);
        this.wakeRecovery = () => {
          cancel();
          resolve();
        };
      });
      this.wakeRecovery = null;
      try {
        await this.inTurn(() => this.recoverOnce(false));
      } catch (error) {
        this.setRecovery(`recovery failed: ${(error as Error).message}`);
      }
    }
  }

  private setRecovery(reason: string): void {
    if (reason !== '' && reason !== this.recovery) {
      this.context.log.warn({ volume: this.name }, `I/O stays suspended: ${reason}`);
    }
    this.recovery = reason;
  }

  /**
   * One attempt, in turn; afterwards `recovery` says what speaks against going on, or is ''. Forced, nobody is asked.
   * @throws what the takeover of the device failed with.
   */
  private async recoverOnce(force: boolean): Promise<void> {
    const { replication, log } = this.context;
    const { pending } = this;
    if (pending === null || this.closing) return;
    if (this.overtaken !== null && !force) {
      // It stays secondary, so that whoever opens it after another crash knows that, too.
      this.setRecovery(this.overtaken);
      return;
    }
    const { native } = await replication.status(this.name);
    if (native.role !== 'primary') {
      try {
        await replication.promote(this.name, force);
      } catch (error) {
        this.setRecovery(`cannot become primary again: ${(error as Error).message}`);
        return;
      }
    }
    if (native.device === '' && pending.frontend !== null) {
      const gone = await this.takeOver(pending.frontend);
      if (gone !== null) {
        await this.letGo(gone);
        return;
      }
    }
    if (!force) {
      const reason = await replication.askPeers(this.name, this.config.timeouts.recoveryTimeout);
      if (this.closing) return;
      if (reason !== null) {
        this.setRecovery(reason);
        return;
      }
    }
    await replication.resume(this.name);
    this.pending = null;
    this.setRecovery('');
    log.info({ volume: this.name }, `recovered: I/O on ${pending.device} goes on`);
  }

  /** Resolves with null, or with why there is no such device any more. */
  private async takeOver(frontend: FrontendSpec): Promise<string | null> {
    const { replication, record } = this.context;
    try {
      record.write(await replication.startFrontend(this.name, frontend));
      return null;
    } catch (error) {
      if ((error as TidemarkError).code !== 'UBLK_GONE') throw error;
      record.remove();
      return (error as Error).message;
    }
  }

  /** The daemon died while its device was being made or taken away: nobody waits for anything. */
  private async letGo(why: string): Promise<void> {
    const { replication, log } = this.context;
    this.pending = null;
    this.recovers = false;
    this.setRecovery('');
    await replication.resume(this.name);
    await replication.demote(this.name);
    this.isServing = false;
    log.warn({ volume: this.name }, `${why}; the volume is secondary`);
  }

  /** Role changes one after another. */
  private inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.turn.then(task);
    this.turn = result.catch(() => undefined);
    return result;
  }

  /**
   * Makes this node primary and offers the device. When the device cannot be offered the volume is demoted again.
   * While recovery keeps I/O suspended, `force` ends that, and without it the reason is the error (SUSPENDED).
   */
  promote(force: boolean): Promise<{ device: string | null }> {
    return this.inTurn(async () => {
      this.refuseWhileClosing();
      const { replication, record, log } = this.context;
      if (this.pending !== null) await this.recoverOnce(force);
      if (this.pending !== null) {
        throw this.suspended(this.recovery, '--force lets its I/O go on all the same');
      }
      const { native } = await replication.status(this.name);
      // By a status that is old it may have been demoted since; a primary has nothing to do for it.
      const wasPrimary = native.role === 'primary' && native.ageUs === 0;
      if (!wasPrimary) await replication.promote(this.name, force);
      this.isServing = true;
      const { frontend } = this.config.local;
      if (frontend === null) return { device: null };
      if (native.device !== '') return { device: native.device };
      try {
        const device = await replication.startFrontend(
          this.name,
          frontendSpec(this.name, frontend, null),
        );
        record.write(device);
        log.info({ volume: this.name }, `primary, serving ${device}`);
        return { device };
      } catch (error) {
        if (!wasPrimary) {
          await replication.demote(this.name).then(
            () => {
              this.isServing = false;
            },
            (failure: Error) => {
              log.error({ volume: this.name }, `not demoted again: ${failure.message}`);
            },
          );
        }
        throw error;
      }
    });
  }

  /**
   * Takes the device away (refused while it is in use) and makes this node secondary. While recovery keeps I/O suspended
   * only `force` does: what waits on the device fails then.
   */
  demote(force: boolean): Promise<void> {
    return this.inTurn(async () => {
      this.refuseWhileClosing();
      if (this.pending !== null && !force) throw this.suspended(this.recovery, TAKES_AWAY);
      await this.stopFrontendNow(force);
      if (this.pending !== null) {
        // The device and what waited on it are gone: there is no I/O left that an answer could be asked for.
        this.pending = null;
        await this.context.replication.resume(this.name);
        this.setRecovery('');
      }
      const { native } = await this.context.replication.status(this.name);
      // What waited has failed with the device: an error of the disk suspends nothing any more.
      if (native.suspended && native.disk !== 'Diskless') {
        await this.context.replication.resume(this.name);
      }
      // Whatever the status says, which may be old: a secondary has nothing to do for it.
      await this.context.replication.demote(this.name);
      this.isServing = false;
      this.context.log.info({ volume: this.name }, 'secondary');
    });
  }

  /**
   * Lets suspended I/O go on.
   * @throws SUSPENDED while it waits for something that only that something can end; NOT_SUSPENDED.
   */
  resume(): Promise<void> {
    return this.inTurn(async () => {
      this.refuseWhileClosing();
      if (this.pending !== null) {
        const wayOut = `'tidemark primary --force' lets its I/O go on all the same`;
        throw this.suspended(this.recovery, wayOut);
      }
      const { native } = await this.context.replication.status(this.name);
      if (!native.suspended) {
        throw new TidemarkError('NOT_SUSPENDED', `${this.name}: its I/O is not suspended`);
      }
      if (native.disk === 'Diskless') {
        const wayOut = `'tidemark secondary --force' lets what waits fail`;
        throw this.suspended(native.suspendReason, wayOut);
      }
      await this.context.replication.resume(this.name);
    });
  }

  private refuseWhileClosing(): void {
    if (this.closing) throw new TidemarkError('STOPPING', `${this.name}: the daemon is stopping`);
  }

  private suspended(why: string, wayOut: string): TidemarkError {
    return new TidemarkError('SUSPENDED', `${this.name} stays suspended: ${why}; ${wayOut}`);
  }

  private async stopFrontendNow(force: boolean): Promise<boolean> {
    if (!this.attached) return false;
    const { replication, record } = this.context;
    const { native } = await replication.status(this.name);
    if (native.device === '') {
      const waiting = this.pending?.frontend;
      const isLeft = waiting?.kind === 'ublk' && waiting.options.recover;
      // Who waits on a device that was not taken over yet learns only from it that nothing will come.
      if (!force || !isLeft || (await this.takeOver(waiting)) !== null) return false;
    }
    if ((this.pending !== null || native.suspended) && !force) {
      // A device is synced before it goes, and that would wait for what is suspended.
      throw this.suspended(this.recovery || native.suspendReason, TAKES_AWAY);
    }
    await replication.stopFrontend(this.name, force);
    record.remove();
    return true;
  }

  /**
   * Resolves with whether there was a device.
   * @throws UBLK_BUSY, NBD_BUSY while it is mounted or open, SUSPENDED while recovery keeps its I/O waiting; unless forced.
   */
  stopFrontend(force: boolean): Promise<boolean> {
    return this.inTurn(() => this.stopFrontendNow(force));
  }

  /** How long the replication worker has owed an answer, once that is too long; 0: it answers. */
  get stuckMs(): number {
    return this.watch.stuckMs;
  }

  async status(): Promise<VolumeJson> {
    const { status, ageMs } = await this.watch.latest();
    this.meter.learn(status.native);
    return volumeJson({
      config: this.config,
      status,
      ageMs,
      values: this.evaluator.values,
      failures: this.evaluator.failures,
      meter: this.meter,
      recovery: this.recovery,
    });
  }

  /** The peer with the given name, or the only one. */
  peerName(name: string | undefined): string {
    const names = this.config.peers.map((peer) => peer.name);
    if (name === undefined) {
      if (names.length === 1) return names[0]!;
      const message =
        names.length === 0
          ? `${this.name} has no peers`
          : `${this.name} has several peers: name one of ${names.join(', ')}`;
      throw new TidemarkError('NO_PEER', message);
    }
    if (names.includes(name)) return name;
    throw new TidemarkError(
      'NO_PEER',
      `${this.name}: '${name}' is not a peer (${names.join(', ')})`,
    );
  }

  /** An event of this volume, told by replication. */
  onEvent(event: ReplicationEvent): void {
    if (this.closing) return;
    if (!PEER_EVENTS.has(event.kind)) return;
    this.wakeRecovery?.();
    if (!this.evaluator.active) return;
    this.context.replication.status(this.name).then(
      (status) => this.evaluator.peersChanged(status),
      () => undefined,
    );
  }

  private async sample(): Promise<void> {
    if (this.sampling) return;
    this.sampling = true;
    try {
      const status = await this.watch.ask();
      this.meter.learn(status.native);
      if (this.evaluator.active) this.evaluator.sample(status);
    } catch {
      // Only while it is being closed, or after the worker died, which the daemon hears itself.
    } finally {
      this.sampling = false;
    }
  }

  /** Its replication worker is gone, and with it all that it had opened; nothing is done with this volume any more. */
  abandon(): void {
    this.closing = true;
    this.wakeRecovery?.();
    this.evaluator.stop();
    this.stopSampling();
  }

  /** Clean stop, without the frontend: that was stopped before. */
  async close(): Promise<void> {
    this.closing = true;
    this.wakeRecovery?.();
    this.evaluator.stop();
    this.stopSampling();
    await this.recoveryLoop;
    if (!this.attached) return;
    await this.inTurn(() => this.context.replication.close(this.name));
  }
}
