/**
 * The daemon of one config on one node: the replication worker, the policy worker, the volumes and the control socket.
 *
 * Start: claim the control socket (so that a second daemon is refused at once) -> start the replication worker -> open
 * and, after a crash, recover each volume -> promote if asked. Stop: the other way round, device by device. Whatever
 * fails half way is undone; a killed daemon leaves its ublk devices to its successor.
 *
 * A replication worker that dies takes the volumes with it, as if the daemon had been killed. It is started again, and
 * each volume is opened and recovered as after a crash; nobody has to come for that.
 */

import type { Logger } from 'pino';
import { TidemarkError } from '../binding/errors.ts';
import type { VolumeConfig } from '../config/resolved.ts';
import { readSecret } from '../config/secret.ts';
import type { ScriptHost } from '../policy/script_host.ts';
import type { Replication, ReplicationEvent } from '../replication/api.ts';
import { DeviceRecord } from './device_record.ts';
import { type ControlEvent, Params, type Request } from './protocol.ts';
import { RestartPause } from './restart_pause.ts';
import { ControlServer } from './server.ts';
import type { StatusJson } from './status.ts';
import { ControlledVolume } from './volume.ts';

export interface DaemonOptions {
  version: string;
  node: string;
  /** Part of file names in the run folder. */
  name: string;
  runFolder: string;
  socketPath: string;
  volumes: readonly VolumeConfig[];
  scripts: Pick<ScriptHost, 'call' | 'close'>;
  startReplication(): Promise<Replication>;
  /** Promote all volumes once they are open; those that were recovered are primary already. */
  primary: boolean;
  /** Promote a copy that is not known to be good, too. */
  force: boolean;
  /** The control socket is claimed: from here on this is the daemon of its config and node. */
  onListening?: () => void;
  log: Logger;
  /** Where ublk devices show; for tests. */
  sysfs?: string;
}

/** How a daemon came to its end; null: it was told to stop. */
export type DaemonEnd = Error | null;

type State = 'starting' | 'running' | 'recovering' | 'stopping' | 'stopped';

const METHODS = [
  'ping',
  'status',
  'connect',
  'disconnect',
  'primary',
  'secondary',
  'invalidate',
  'resume',
  'down',
  'events',
];

export class Daemon {
  /** Resolves when nothing runs any more. */
  readonly ended: Promise<DaemonEnd>;
  private readonly options: DaemonOptions;
  private readonly volumes = new Map<string, ControlledVolume>();
  private end!: (end: DaemonEnd) => void;
  private state: State = 'starting';
  private starting: Promise<void> | null = null;
  private stopRequest: Promise<void> | null = null;
  private server: ControlServer | null = null;
  private replication: Replication | null = null;
  private secrets: Array<string | null> = [];
  private restarts = 0;
  private lastDeath = '';
  private readonly restartPause = new RestartPause();
  private recovering: Promise<void> | null = null;
  /** Told to stop while it recovers. */
  private stopWanted = false;

  constructor(options: DaemonOptions) {
    this.options = options;
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  /**
   * Resolves when all volumes are up. When it fails, what was begun is undone first.
   * @throws ALREADY_RUNNING, CONTROL_SOCKET, SECRET, STOPPING, and what opening, recovering or promoting fails with.
   */
  start(): Promise<void> {
    this.starting ??= this.startAll().catch(async (error: Error) => {
      await this.tearDown(error);
      throw error;
    });
    return this.starting;
  }

  private async startAll(): Promise<void> {
    const { options } = this;
    // Read before anything is touched.
    this.secrets = options.volumes.map((volume) => readSecret(volume.secret));
    this.server = await ControlServer.listen(options.socketPath, (request) => this.answer(request));
    options.onListening?.();
    this.checkStopping();
    await this.openAll(new Set());
    for (const volume of this.volumes.values()) {
      this.checkStopping();
      if (!options.primary) break;
      if (volume.recovering) continue;
      await volume.promote(options.force);
    }
    this.checkStopping();
    this.state = 'running';
  }

  /** Starts the replication worker and opens all volumes; those in `serving` are recovered as primaries. */
  private async openAll(serving: ReadonlySet<string>): Promise<void> {
    const { options } = this;
    const replication = await options.startReplication();
    this.replication = replication;
    this.restartPause.born();
    replication.onEvent((event) => this.onEvent(event));
    replication.onExit((error) => void this.onWorkerExit(replication, error));
    for (const [index, config] of options.volumes.entries()) {
      this.checkStopping();
      const volume = new ControlledVolume(config, {
        replication,
        record: new DeviceRecord(
          options.runFolder,
          `${options.name}.${config.name}`,
          options.sysfs,
        ),
        callPolicy: (name, policy, facts, deadlineMs) =>
          options.scripts.call(name, policy, facts, deadlineMs),
        secret: this.secrets[index]!,
        log: options.log,
      });
      this.volumes.set(config.name, volume);
      await volume.start(serving.has(config.name));
    }
  }

  private checkStopping(): void {
    if (this.state === 'stopping' || this.state === 'stopped') {
      throw new TidemarkError('STOPPING', 'the daemon was told to stop while it started');
    }
  }

  /**
   * Stops cleanly: devices first, then volumes, workers and the socket.
   * @throws UBLK_BUSY, NBD_BUSY while a device is mounted or open, unless forced; the daemon goes on then.
   */
  stop(force: boolean): Promise<void> {
    if (this.state === 'stopped') return Promise.resolve();
    this.stopRequest ??= this.stopAll(force).finally(() => {
      this.stopRequest = null;
    });
    return this.stopRequest;
  }

  private async stopAll(force: boolean): Promise<void> {
    const before = this.state;
    if (before === 'starting') {
      this.state = 'stopping';
      // It ends with STOPPING, or with a failure of its own, and has torn everything down.
      await this.starting?.catch(() => undefined);
      return;
    }
    if (before === 'recovering') {
      // One more attempt: what is open again is stopped like anything else.
      this.stopWanted = true;
      this.restartPause.cancel();
      await this.recovering;
      if (this.state !== 'running') return;
    }
    const stopped: ControlledVolume[] = [];
    try {
      for (const volume of this.volumes.values()) {
        if (await volume.stopFrontend(force)) stopped.push(volume);
      }
    } catch (error) {
      // Refused: all of them go on, or none.
      for (const volume of stopped) {
        await volume.promote(false).catch((failure: Error) => {
          this.options.log.error(`${volume.name}: device not started again: ${failure.message}`);
        });
      }
      throw error;
    }
    this.state = 'stopping';
    await this.tearDown(null);
  }

  /** Undoes everything that was begun, in the other order. Failures are logged: there is nobody left to hear them. */
  private async tearDown(why: DaemonEnd): Promise<void> {
    if (this.state === 'stopped') return;
    // The worker's end is expected from here on.
    this.state = 'stopping';
    const { log, scripts } = this.options;
    const step = async (what: string, task: () => Promise<unknown>) => {
      try {
        await task();
      } catch (error) {
        log.error(`${what}: ${(error as Error).message}`);
      }
    };
    const replication = this.replication;
    let left = false;
    if (replication !== null) {
      for (const volume of [...this.volumes.values()].reverse()) {
        if (why !== null && !(await this.letGo(volume))) left = true;
        else await step(`${volume.name}: close`, () => volume.close());
      }
      // A device that was left ends with the process, as if it had been killed, and waits for a successor.
      if (!left) await step('replication worker', () => replication.shutdown());
    }
    await step('policy worker', () => scripts.close());
    this.state = 'stopped';
    this.server?.stopListening();
    this.end(why);
  }

  /**
   * Takes away the device of a volume whose daemon fails to start. One that is in use, which only a recovered one can
   * be, is left as it is.
   */
  private async letGo(volume: ControlledVolume): Promise<boolean> {
    try {
      await volume.stopFrontend(false);
      return true;
    } catch (error) {
      this.options.log.error(`${volume.name}: left to a successor: ${(error as Error).message}`);
      // Its recovery must not keep the process alive, which the device waits for.
      volume.abandon();
      return false;
    }
  }

  /** Ends the control connections as well; a process that exits need not. */
  async closeConnections(): Promise<void> {
    await this.server?.close();
  }

  private async onWorkerExit(replication: Replication, error: Error): Promise<void> {
    // Of a worker that was given up already, or one whose end is expected.
    if (replication !== this.replication) return;
    if (this.state === 'stopping' || this.state === 'stopped') return;
    const { log, scripts } = this.options;
    log.error(`the replication worker died: ${error.message}`);
    this.lastDeath = error.message;
    if (this.state === 'starting') {
      this.state = 'stopped';
      this.server?.stopListening();
      await scripts.close();
      this.end(
        new TidemarkError('WORKER', `the replication worker died: ${error.message}`, {
          cause: error,
        }),
      );
      return;
    }
    // While it recovers, the attempt that is under way fails with the same error, and is repeated.
    if (this.state === 'recovering') return;
    this.state = 'recovering';
    const text = `the replication worker died and is started again: ${error.message}`;
    for (const name of this.volumes.keys()) this.tell({ volume: name, kind: 'error', text });
    this.recovering = this.recoverWorker();
  }

  /** Until all volumes are open again, the daemon is told to stop, or a volume cannot be opened. */
  private async recoverWorker(): Promise<void> {
    const { log } = this.options;
    const serving = new Set<string>();
    for (;;) {
      for (const volume of this.volumes.values()) {
        if (volume.serving) serving.add(volume.name);
        volume.abandon();
      }
      this.volumes.clear();
      this.replication = null;
      if (this.stopWanted) return this.tearDown(null);
      await this.restartPause.wait();
      this.restarts += 1;
      try {
        await this.openAll(serving);
        this.state = 'running';
        log.info('the replication worker runs again, and all volumes are open');
        return;
      } catch (error) {
        const { code, message } = error as TidemarkError;
        if (code !== 'WORKER_EXITED' && code !== 'WORKER_FAILED') {
          log.fatal(`not recovered from the death of the replication worker: ${message}`);
          return this.tearDown(error as Error);
        }
      }
    }
  }

  private onEvent(event: ReplicationEvent): void {
    const { volume, kind, peer, text } = event;
    const level = kind === 'error' || kind === 'frontend-failed' ? 'error' : 'info';
    const about = { volume, event: kind, ...(peer === undefined ? {} : { peer }) };
    this.options.log[level](about, text === '' ? kind : text);
    this.volumes.get(volume)?.onEvent(event);
    this.tell(event);
  }

  private tell({ volume, kind, peer, text }: ReplicationEvent): void {
    const told: ControlEvent = {
      volume,
      kind,
      peer: peer ?? null,
      text,
      time_unix_ms: Date.now(),
    };
    this.server?.publish(told);
  }

  private async answer(request: Request): Promise<unknown> {
    const { method } = request;
    if (method === 'ping') {
      new Params(request, []);
      const { version, node } = this.options;
      return { version, node, pid: process.pid, state: this.state };
    }
    if (method === 'down') {
      const force = new Params(request, ['force']).flag('force');
      await this.stop(force);
      return { pid: process.pid };
    }
    if (method === 'status') return this.status(new Params(request, ['volume']).text('volume'));
    if (!METHODS.includes(method)) {
      throw new TidemarkError('NO_METHOD', `no method '${method}' (${METHODS.join(', ')})`);
    }
    if (this.state === 'starting') {
      throw new TidemarkError('STARTING', `${method}: the daemon is still starting`);
    }
    if (this.state === 'recovering') {
      throw new TidemarkError('RECOVERING', `${method}: ${this.problem()}`);
    }
    return this.change(request);
  }

  /** Requests that change a volume. */
  private async change(request: Request): Promise<unknown> {
    const { method } = request;
    const replication = this.replication!;
    const params = new Params(request, ['volume', 'peer', 'force', 'discardMyData']);
    const volume = this.volume(params.text('volume'));
    const peer = params.text('peer');
    const force = params.flag('force');
    const discardMine = params.flag('discardMyData');
    const { name } = volume;
    switch (method) {
      case 'primary':
        return { volume: name, ...(await volume.promote(force)) };
      case 'secondary':
        await volume.demote(force);
        return { volume: name };
      case 'resume':
        await volume.resume();
        return { volume: name };
      case 'connect':
        // Which side yields is said of one peer, never of all.
        await replication.connect(
          name,
          peer === undefined && !discardMine ? undefined : volume.peerName(peer),
          discardMine,
        );
        return { volume: name };
      case 'disconnect':
        await replication.disconnect(name, peer === undefined ? undefined : volume.peerName(peer));
        return { volume: name };
      case 'invalidate':
        await replication.invalidate(name, volume.peerName(peer));
        return { volume: name };
      default:
        throw new TidemarkError('NO_METHOD', `no method '${method}' (${METHODS.join(', ')})`);
    }
  }

  /** The volume with the given name, or the only one. */
  private volume(name: string | undefined): ControlledVolume {
    const names = [...this.volumes.keys()];
    if (name === undefined && names.length !== 1) {
      throw new TidemarkError('NO_VOLUME', `several volumes: name one of ${names.join(', ')}`);
    }
    const volume = this.volumes.get(name ?? names[0]!);
    if (volume !== undefined) return volume;
    throw new TidemarkError('NO_VOLUME', `'${name}' is not a volume here (${names.join(', ')})`);
  }

  async status(name?: string): Promise<StatusJson> {
    const chosen = name === undefined ? [...this.volumes.values()] : [this.volume(name)];
    const volumes = [];
    for (const volume of chosen) {
      // One that is still being opened has no status yet.
      if (volume.open) volumes.push(await volume.status());
    }
    const { version, node } = this.options;
    const { restarts, lastDeath } = this;
    const replication = { problem: this.problem(), restarts, last_death: lastDeath };
    return { version, node, pid: process.pid, replication, volumes };
  }

  /** What is wrong with the replication worker, for people; '' when nothing is. */
  private problem(): string {
    if (this.state === 'recovering') {
      return `the replication worker died (${this.lastDeath}) and is being started again; each volume is recovered as after a crash`;
    }
    const stuckMs = Math.max(0, ...[...this.volumes.values()].map((volume) => volume.stuckMs));
    if (stuckMs === 0) return '';
    return (
      `the replication worker has not answered for ${(stuckMs / 1000).toFixed(1)} s: links are given up by their timeouts, ` +
      'and local I/O goes on; what is told here is old. Should it never answer again, end the daemon (SIGKILL) and start it anew'
    );
  }
}
