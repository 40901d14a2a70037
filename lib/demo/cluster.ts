/** Two daemons of the demo, run through the same command line that a person uses. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TidemarkError } from '../binding/errors.ts';
import type { StatusJson, VolumeJson } from '../control/status.ts';
import { statusOfNow } from '../control/status_now.ts';
import { freePort, Wire } from './wire.ts';

export const NODES = ['alpha', 'beta'] as const;
export type NodeName = (typeof NODES)[number];
export const VOLUME = 'demo';
export type FrontendKind = 'ublk' | 'nbd';

// lib/demo and dist/demo are equally deep below the package's top; what runs is always the compiled one.
const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const COMMAND_MS = 60_000;

export class Cluster {
  readonly directory: string;
  readonly frontend: FrontendKind;
  private readonly daemons = new Map<NodeName, ChildProcess>();
  private readonly wires: Wire[] = [];
  private readonly ports = new Map<NodeName, number>();
  private readonly protocol: 'A' | 'C';
  private readonly tell: (line: string) => void;

  private constructor(
    directory: string,
    frontend: FrontendKind,
    protocol: 'A' | 'C',
    tell: (line: string) => void,
  ) {
    this.directory = directory;
    this.frontend = frontend;
    this.protocol = protocol;
    this.tell = tell;
  }

  /** Backing files of `bytes` and a config script for each node; every link between them goes through a wire. */
  static async make(
    frontend: FrontendKind,
    bytes: number,
    tell: (line: string) => void,
    protocol: 'A' | 'C' = 'C',
  ): Promise<Cluster> {
    const directory = await mkdtemp(join(tmpdir(), 'tidemark-demo-'));
    const cluster = new Cluster(directory, frontend, protocol, tell);
    try {
      await cluster.prepare(bytes);
    } catch (error) {
      await cluster.remove();
      throw error;
    }
    return cluster;
  }

  private async prepare(bytes: number): Promise<void> {
    await mkdir(join(this.directory, 'run'), { mode: 0o700 });
    for (const node of NODES) this.ports.set(node, await freePort());
    const relays = new Map<NodeName, Wire>();
    for (const node of NODES) {
      const wire = await Wire.start(() => this.ports.get(node) ?? 0);
      this.wires.push(wire);
      relays.set(node, wire);
    }
    for (const node of NODES) {
      const file = await open(this.backing(node), 'w');
      await file.truncate(bytes);
      await file.close();
      await writeFile(this.config(node), this.script(node, relays));
    }
  }

  /** What a node's tidemark.config.ts says; the peer is reached through the wire. */
  private script(self: NodeName, relays: Map<NodeName, Wire>): string {
    const nodes = NODES.map((node) => {
      const address =
        node === self
          ? `127.0.0.1:${this.ports.get(node)}`
          : `127.0.0.1:${relays.get(node)?.port ?? 0}`;
      const offer =
        this.frontend === 'ublk'
          ? `{ kind: 'ublk' }`
          : `{ kind: 'nbd', socket: ${JSON.stringify(join(this.directory, `${node}.nbd`))} }`;
      return `    ${node}: { backing: ${JSON.stringify(this.backing(node))}, address: '${address}', frontend: ${offer} },`;
    });
    return [
      'export default {',
      `  node: '${self}',`,
      '  volumes: [{',
      `  name: '${VOLUME}',`,
      `  protocol: '${this.protocol}',`,
      '  nodes: {',
      ...nodes,
      '  },',
      `  timeouts: { retryMin: '100ms', retryMax: '500ms' },`,
      '  }],',
      '};',
      '',
    ].join('\n');
  }

  backing(node: NodeName): string {
    return join(this.directory, `${node}.img`);
  }

  config(node: NodeName): string {
    return join(this.directory, `${node}.config.ts`);
  }

  /** Bytes that crossed the wires so far, both ways. */
  get wireBytes(): number {
    return this.wires.reduce((sum, wire) => sum + wire.bytes, 0);
  }

  cut(): void {
    for (const wire of this.wires) wire.cut();
  }

  join(): void {
    for (const wire of this.wires) wire.join();
  }

  private environment(node: NodeName): NodeJS.ProcessEnv {
    return {
      ...process.env,
      TIDEMARK_RUN_DIR: join(this.directory, `run-${node}`),
      TIDEMARK_NODE: node,
    };
  }

  /** Runs `tidemark` for a node; returns what it printed. */
  async run(node: NodeName, args: string[], shown = true): Promise<string> {
    if (shown) this.tell(`${node}$ tidemark ${args.join(' ')}`);
    await mkdir(join(this.directory, `run-${node}`), { recursive: true, mode: 0o700 });
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [CLI, '--config', this.config(node), ...args], {
        env: this.environment(node),
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: COMMAND_MS,
      });
      let out = '';
      let err = '';
      child.stdout.on('data', (text) => {
        out += String(text);
      });
      child.stderr.on('data', (text) => {
        err += String(text);
      });
      child.once('error', reject);
      child.once('close', (code, signal) => {
        if (code === 0) resolve(out);
        else {
          const how = code === null ? `was ended by ${signal}` : `ended with status ${code}`;
          reject(
            new TidemarkError(
              'DEMO',
              `tidemark ${args.join(' ')} on ${node} ${how}: ${err.trim()}`,
            ),
          );
        }
      });
    });
  }

  /** `tidemark up` in the foreground, as a child; resolves when it answers. */
  async up(node: NodeName): Promise<void> {
    this.tell(`${node}$ tidemark up`);
    await mkdir(join(this.directory, `run-${node}`), { recursive: true, mode: 0o700 });
    const log = await open(join(this.directory, `${node}.log`), 'a');
    const child = spawn(process.execPath, [CLI, '--config', this.config(node), 'up'], {
      env: this.environment(node),
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    this.daemons.set(node, child);
    const ended = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => {
        reject(
          new TidemarkError(
            'DEMO',
            `the daemon of ${node} ended (${signal ?? code}) before it was up`,
          ),
        );
      });
    });
    ended.catch(() => {});
    await Promise.race([this.until(node, () => true, 'the daemon answers'), ended]);
  }

  /** Of no earlier than this call. */
  async status(node: NodeName): Promise<VolumeJson> {
    const ask = async () =>
      JSON.parse(await this.run(node, ['status', '--json'], false)) as StatusJson;
    const { volumes } = await statusOfNow(ask, COMMAND_MS);
    const volume = volumes.find(({ name }) => name === VOLUME);
    if (volume === undefined) throw new TidemarkError('DEMO', `${node} does not know the volume`);
    return volume;
  }

  /** Asks until `holds`; `seen` hears of every answer. */
  async until(
    node: NodeName,
    holds: (volume: VolumeJson) => boolean,
    what: string,
    seen?: (volume: VolumeJson) => void,
    deadlineMs = 60_000,
  ): Promise<VolumeJson> {
    const end = Date.now() + deadlineMs;
    let last = '';
    while (Date.now() < end) {
      try {
        const volume = await this.status(node);
        seen?.(volume);
        if (holds(volume)) return volume;
        last = JSON.stringify(volume.peers);
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
        const child = this.daemons.get(node);
        if (child !== undefined && child.exitCode !== null) break;
      }
    }
    throw new TidemarkError('DEMO', `not seen in time on ${node}: ${what}; last: ${last}`);
  }

  async down(node: NodeName): Promise<void> {
    const child = this.daemons.get(node);
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await this.run(node, ['down']);
    if (child.exitCode === null) await ended;
    this.daemons.delete(node);
  }

  /** Ends what still runs and removes the files. */
  async remove(): Promise<void> {
    for (const child of this.daemons.values()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(timer);
    }
    for (const wire of this.wires) await wire.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}
