/** Two Tidemark daemons and the link between them, through the same command line and control socket that a person uses. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlClient } from '../../lib/control/client.ts';
import type { PeerJson, StatusJson, VolumeJson } from '../../lib/control/status.ts';
import { statusOfNow } from '../../lib/control/status_now.ts';
import { freePort } from '../../lib/demo/wire.ts';
import { run } from '../../test/vm/command.ts';
import { endAll } from '../ends.ts';
import { besideId } from '../figures.ts';
import { FILL, pass } from '../fio.ts';
import { threadsRanNs } from '../meters.ts';
import type { Place } from '../place.ts';
import { Program } from '../program.ts';
import type { Progress, ResyncSubject, Worked } from '../subject.ts';

export const CLI = 'dist/cli/main.js';
const VOLUME = 'bench';
const NODES = ['alpha', 'beta'] as const;
type Node = (typeof NODES)[number];
const MIB = 1 << 20;
/** Beside the data, on each disk; more than the metadata of the largest disk here takes. */
export const METADATA_BYTES = 64 * MIB;
const POLL_MS = 20;
const VOLUME_THREAD = /^tidemark\/bench/;

export interface TidemarkOptions {
  id: string;
  title: string;
  bytes: number;
  protocol: 'A' | 'C';
  /** Its peer goes away before anything is measured. */
  away?: boolean;
  /** Fields of the volume's config that differ from the defaults. */
  volume?: Record<string, unknown>;
  /** Whose command line it runs; default: this one's. */
  checkout?: string;
  /** fio's options for what is written before anything is measured; default: the whole device once. */
  fill?: string[];
}

export class Tidemark implements ResyncSubject {
  readonly id: string;
  readonly title: string;
  readonly bytes: number;
  readonly threadsLast = true;
  private readonly options: TidemarkOptions;
  private place: Place | null = null;
  private folder = '';
  private device = '';
  private readonly daemons: Program[] = [];
  private readonly clients = new Map<Node, ControlClient>();

  constructor(options: TidemarkOptions) {
    this.options = options;
    this.id = options.id;
    this.title = options.title;
    this.bytes = options.bytes;
  }

  /** The same by another checkout. */
  beside(checkout: string): Tidemark {
    const { id, title } = this.options;
    return new Tidemark({
      ...this.options,
      id: besideId(id),
      title: `${title}, the other checkout`,
      checkout,
    });
  }

  async start(place: Place): Promise<void> {
    this.place = place;
    this.folder = place.subfolder();
    await this.writeConfig(place);
    await Promise.all(NODES.map((node) => this.cli(node, ['create'])));
    this.launch('alpha', ['--primary', '--force']);
    this.launch('beta', []);
    const { device } = await this.until('in step', inStep, 4 * place.patienceMs);
    if (device === null) throw new Error(`${this.id}: no device is served`);
    this.device = device;
    await pass(this, this.options.fill ?? FILL, 4 * place.patienceMs);
    if (this.options.away) await this.leaveAlone();
    else await this.until('in step', inStep);
  }

  private async writeConfig(place: Place): Promise<void> {
    const nodes: Record<string, unknown> = {};
    for (const node of NODES) {
      nodes[node] = {
        backing: await place.disk(this.bytes + METADATA_BYTES),
        address: `127.0.0.1:${await freePort()}`,
        ...(node === 'alpha' ? { frontend: place.frontend(this.folder) } : {}),
      };
    }
    const volume = {
      name: VOLUME,
      protocol: this.options.protocol,
      timeouts: { retryMin: '100ms', retryMax: '500ms' },
      ...this.options.volume,
      nodes,
    };
    // Plain JavaScript: that needs no transformation, which takes most of a start under emulation.
    writeFileSync(this.config, `export default ${JSON.stringify(volume, null, 2)};\n`);
  }

  private get config(): string {
    return join(this.folder, 'tidemark.config.mjs');
  }

  private environment(node: Node): Record<string, string> {
    return { TIDEMARK_RUN_DIR: this.folder, TIDEMARK_NODE: node };
  }

  private argv(words: readonly string[]): [string, ...string[]] {
    const cli = join(this.options.checkout ?? this.place?.checkout ?? '', CLI);
    return [process.execPath, cli, '--config', this.config, ...words];
  }

  private async cli(node: Node, words: readonly string[]): Promise<void> {
    await run(this.argv(words), {
      env: this.environment(node),
      timeoutMs: this.place?.patienceMs ?? 0,
    });
  }

  private launch(node: Node, words: readonly string[]): void {
    const daemon = Program.start(this.argv(['up', ...words]), {
      name: `${this.id}, ${node}`,
      log: join(this.folder, `${node}.log`),
      env: this.environment(node),
    });
    this.daemons.push(daemon);
  }

  private async call<T>(node: Node, method: string, params = {}): Promise<T> {
    let client = this.clients.get(node);
    if (client === undefined) {
      client = await ControlClient.connect(join(this.folder, `${VOLUME}-${node}.sock`));
      this.clients.set(node, client);
    }
    return client.call<T>(method, params, this.place?.patienceMs);
  }

  /** undefined: the daemon has not opened it yet. */
  private async volume(): Promise<VolumeJson | undefined> {
    return (await this.call<StatusJson>('alpha', 'status')).volumes[0];
  }

  private async status(): Promise<VolumeJson> {
    const volume = await this.volume();
    if (volume === undefined) throw new Error(`${this.id}: no volume`);
    return volume;
  }

  /** Waits until alpha says so of itself and its peer; ends early if a daemon does. */
  private async until(
    what: string,
    holds: (volume: VolumeJson, peer: PeerJson) => boolean,
    limitMs = this.place?.patienceMs ?? 0,
  ): Promise<VolumeJson> {
    const deadline = performance.now() + limitMs;
    for (let last = 'no answer'; ; await delay(POLL_MS)) {
      try {
        const volume = await this.volume();
        last = JSON.stringify(volume?.peers);
        const peer = volume?.peers[0];
        if (volume !== undefined && peer !== undefined && holds(volume, peer)) return volume;
      } catch (error) {
        const code = (error as { code?: string }).code;
        // It is still starting.
        if (code !== 'NOT_RUNNING' && code !== 'CONTROL_SOCKET' && code !== 'STARTING') throw error;
      }
      for (const daemon of this.daemons) daemon.alive(what);
      if (performance.now() > deadline)
        throw new Error(`${this.id}: not ${what} in ${limitMs} ms: ${last}`);
    }
  }

  async stop(): Promise<void> {
    for (const client of this.clients.values()) client.close();
    this.clients.clear();
    await endAll(this.daemons.splice(0).map((daemon) => () => daemon.end()));
  }

  fio(): string[] {
    if (this.device.startsWith('/dev/ublk')) {
      return ['--ioengine=libaio', '--direct=1', `--filename=${this.device}`];
    }
    return ['--ioengine=nbd', `--uri=nbd+unix:///${VOLUME}?socket=${this.device}`];
  }

  threadNs(): number {
    return this.daemons.reduce((ns, { pid }) => ns + threadsRanNs(pid, VOLUME_THREAD), 0);
  }

  pids(): number[] | null {
    return this.place?.where === 'vm' ? null : this.daemons.map(({ pid }) => pid);
  }

  /** The peer's daemon ends too: one that keeps calling would cost whatever is measured meanwhile, and most where all is emulated. */
  private async leaveAlone(): Promise<void> {
    await this.disconnect();
    await this.daemons.pop()?.end();
  }

  async disconnect(): Promise<void> {
    await this.call('alpha', 'disconnect');
    await this.until('apart', (_, { connection }) => connection === 'StandAlone');
  }

  async connect(): Promise<void> {
    await this.call('alpha', 'connect');
  }

  async progress(): Promise<Progress> {
    const volume = await this.status();
    const peer = volume.peers[0]!;
    return {
      done: inStep(volume, peer),
      copying: peer.connection === 'SyncSource',
      dirty_bytes: peer.dirty_bytes,
    };
  }

  async writes(): Promise<number> {
    return (await this.status()).io.writes;
  }

  async worked(): Promise<Worked | undefined> {
    const ask = () => this.call<StatusJson>('alpha', 'status');
    const { io, thread } = (await statusOfNow(ask, this.place?.patienceMs ?? 0)).volumes[0]!;
    // A checkout beside this one may be older than these counts.
    if ((thread as typeof thread | undefined) === undefined) return undefined;
    const requests = io.reads + io.writes + io.flushes + io.discards;
    return { requests, ...thread };
  }
}

/** Nothing is left to copy; applications may be writing. */
function inStep(volume: VolumeJson, peer: PeerJson): boolean {
  return (
    volume.disk === 'UpToDate' &&
    peer.connection === 'Connected' &&
    peer.disk === 'UpToDate' &&
    peer.resync === null
  );
}
