// One node of a cluster: its command line, its daemon, and what it says of itself.
import { join } from 'node:path';
import { ControlClient } from '../../lib/control/client.ts';
import type { PeerJson, StatusJson, VolumeJson } from '../../lib/control/status.ts';
import { statusOfNow } from '../../lib/control/status_now.ts';
import {
  type CommandOptions,
  type CommandResult,
  Daemon,
  type DaemonExit,
  type ScenarioContext,
  waitFor,
} from '../vm/guest/support.ts';
import type { DataArea } from './disks.ts';
import type { Device, Place } from './place.ts';

export interface NodePaths {
  /** The compiled command line. */
  cli: string;
  config: string;
  runFolder: string;
  backing: string;
  /** Of external metadata. */
  metadata: string | null;
}

/** What a probe looks at: the volume, and its first peer. */
export type Check = (volume: VolumeJson, peer: PeerJson) => boolean;

export class ClusterNode {
  readonly name: string;
  readonly volume: string;
  readonly paths: NodePaths;
  daemon: Daemon | null = null;
  /** In the environment of its daemons, and of nothing else. */
  daemonEnv: Record<string, string> = {};
  private readonly t: ScenarioContext;
  private readonly place: Place;
  private control: ControlClient | null = null;
  private area: DataArea | null = null;

  constructor(
    t: ScenarioContext,
    place: Place,
    options: { name: string; volume: string; paths: NodePaths },
  ) {
    this.t = t;
    this.place = place;
    this.name = options.name;
    this.volume = options.volume;
    this.paths = options.paths;
    t.undo(`close the control connection of ${this.name}`, () => this.control?.close());
  }

  private get env(): Record<string, string> {
    return { TIDEMARK_RUN_DIR: this.paths.runFolder, TIDEMARK_NODE: this.name };
  }

  argv(...words: string[]): [string, ...string[]] {
    return [process.execPath, this.paths.cli, '--config', this.paths.config, ...words];
  }

  /** Runs a verb to its end; throws with its output unless it succeeds. */
  cli(words: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.t.run(this.argv(...words), {
      timeoutMs: this.place.patienceMs * 2,
      ...options,
      env: { ...this.env, ...options.env },
    });
  }

  get socket(): string {
    return join(this.paths.runFolder, `${this.volume}-${this.name}.sock`);
  }

  /** Starts `up` and returns at once. */
  launch(...words: string[]): Daemon {
    this.daemon = Daemon.start(this.t, this.argv('up', ...words), {
      name: this.name,
      env: { ...this.env, ...this.daemonEnv },
    });
    return this.daemon;
  }

  /** Starts `up` and waits until it answers as running. */
  async up(...words: string[]): Promise<void> {
    const daemon = this.launch(...words);
    await this.running(daemon);
  }

  /** Waits until the daemon has opened its volumes; ends early, with its output, if it does. */
  async running(daemon: Daemon): Promise<void> {
    const options = { timeoutMs: this.place.patienceMs };
    const answer = await waitFor(
      this.t,
      `the daemon of ${this.name}`,
      async () => {
        if (daemon.exit) return 'ended';
        const { state, pid } = await this.call<{ state: string; pid: number }>('ping');
        return state === 'running' && pid === daemon.pid;
      },
      options,
    ).catch((error) => {
      throw new Error(`${error.message}\n${daemon.tail()}`);
    });
    if (answer === 'ended') {
      throw new Error(`the daemon of ${this.name} ended\n${daemon.tail()}`);
    }
  }

  /** Asks the daemon over its control socket. */
  async call<T>(method: string, params: Record<string, unknown> = {}): Promise<T> {
    for (;;) {
      const fresh = this.control === null;
      this.control ??= await ControlClient.connect(this.socket);
      try {
        return await this.control.call<T>(method, params, this.place.patienceMs);
      } catch (error) {
        if ((error as { code?: string }).code !== 'DISCONNECTED') throw error;
        // The connection was an earlier daemon's.
        this.control.close();
        this.control = null;
        if (fresh) throw error;
      }
    }
  }

  /** Of no earlier than this call. */
  async status(): Promise<VolumeJson> {
    const { volumes } = await statusOfNow(
      () => this.call<StatusJson>('status'),
      this.place.patienceMs,
    );
    const found = volumes.find(({ name }) => name === this.volume);
    if (!found) throw new Error(`${this.name} has no volume '${this.volume}'`);
    return found;
  }

  /** What `tidemark status --json` prints, of no earlier than this call. */
  statusJson(): Promise<StatusJson> {
    const ask = async () => {
      if (this.place.commandsAreSlow) return this.call<StatusJson>('status');
      return JSON.parse((await this.cli(['status', '--json'])).stdout) as StatusJson;
    };
    return statusOfNow(ask, this.place.patienceMs);
  }

  /** Waits until the status is as wanted; when it never is, the error has the last one. */
  async until(what: string, check: Check, timeoutMs?: number): Promise<VolumeJson> {
    let last: VolumeJson | undefined;
    try {
      return await waitFor(
        this.t,
        `${this.name}: ${what}`,
        async () => {
          last = await this.status();
          return check(last, last.peers[0]!) ? last : undefined;
        },
        { timeoutMs: timeoutMs ?? this.place.patienceMs },
      );
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${JSON.stringify(last, null, 1)}`);
    }
  }

  /** Waits until it is linked and nothing is left to resync, or on its way. Nobody may be writing. */
  synced(): Promise<VolumeJson> {
    return this.until(
      'connected and in step',
      (volume, peer) =>
        volume.disk === 'UpToDate' &&
        peer.connection === 'Connected' &&
        peer.disk === 'UpToDate' &&
        peer.dirty_chunks === 0 &&
        peer.in_flight_writes === 0 &&
        peer.resync === null,
      this.place.patienceMs * 3,
    );
  }

  unlinked(timeoutMs?: number): Promise<VolumeJson> {
    return this.until('without a link', (_, { connection }) => UNLINKED.has(connection), timeoutMs);
  }

  async open(): Promise<Device> {
    const { device, size_bytes } = await this.status();
    if (device === null) throw new Error(`${this.name} serves no device`);
    const opened = await this.place.open(device, this.volume, size_bytes);
    // Not waited for: requests may be out that end only with the device.
    this.t.undo(`close the device of ${this.name}`, () => void opened.close().catch(() => {}));
    return opened;
  }

  /** fio's options for this node's device. */
  async fio(): Promise<Record<string, string | number>> {
    const { device } = await this.status();
    if (device === null) throw new Error(`${this.name} serves no device`);
    return this.place.fio(device, this.volume);
  }

  /** SIGKILL; returns when the process is gone. */
  async kill(): Promise<void> {
    await this.daemon?.kill();
    this.daemon = null;
  }

  /** SIGTERM; returns how it ended. */
  async stop(): Promise<DaemonExit> {
    const daemon = this.daemon;
    if (daemon === null) throw new Error(`${this.name} does not run`);
    this.daemon = null;
    return daemon.stop(this.place.patienceMs);
  }

  /** Writes the metadata, and learns where the data lies. */
  async create(...words: string[]): Promise<void> {
    const { stdout } = await this.cli(['create', '--json', ...words]);
    const [report] = JSON.parse(stdout) as [{ size_bytes: number; data_offset_bytes: number }];
    this.area = {
      path: this.paths.backing,
      offset: report.data_offset_bytes,
      bytes: report.size_bytes,
    };
  }

  get dataArea(): DataArea {
    if (this.area === null) throw new Error(`${this.name} was not created`);
    return this.area;
  }

  /** What `tidemark dump-md --json` prints of the volume. */
  async dump(): Promise<Record<string, unknown>> {
    const { stdout } = await this.cli(['dump-md', '--json']);
    const [dump] = JSON.parse(stdout) as [Record<string, unknown>];
    return dump;
  }
}

const UNLINKED = new Set(['StandAlone', 'Unconnected', 'Connecting', 'Handshake']);
