/** Two daemons over large sparse volumes that are in step, and a wire between them that counts. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ControlClient } from '../lib/control/client.ts';
import type { PeerJson, StatusJson, VolumeJson } from '../lib/control/status.ts';
import { freePort, Wire } from '../lib/demo/wire.ts';
import { memoryOf } from '../test/tools/memory.ts';
import { NbdClient } from '../test/tools/nbd-client.ts';
import { BLOCK_BYTES, type Copy, type ScalePlace, VOLUME } from './scale_place.ts';

const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const DEADLINE_MS = 120_000;
const POLL_MS = 5;

export const NODES = ['alpha', 'beta'] as const;
export type NodeName = (typeof NODES)[number];

interface Running {
  child: ChildProcess;
  control: ControlClient;
}

export class ScalePair {
  private readonly place: ScalePlace;
  private readonly wires: Wire[];
  private readonly folder: string;
  private readonly running = new Map<NodeName, Running>();

  private constructor(place: ScalePlace, folder: string, wires: Wire[]) {
    this.place = place;
    this.folder = folder;
    this.wires = wires;
  }

  /** Writes the configs; no daemon runs yet. */
  static async make(place: ScalePlace, copies: Record<NodeName, Copy>): Promise<ScalePair> {
    const folder = mkdtempSync(join(place.folder, 'pair-'));
    mkdirSync(join(folder, 'run'), { mode: 0o700 });
    const ports = [await freePort(), await freePort()];
    const wires = await Promise.all(ports.map((port) => Wire.start(() => port)));
    const nodes = Object.fromEntries(
      NODES.map((name, index) => [
        name,
        {
          backing: copies[name].backing,
          metadata: { file: copies[name].metadata },
          address: `127.0.0.1:${wires[index]!.port}`,
          listen: `127.0.0.1:${ports[index]}`,
          frontend: { kind: 'nbd', socket: join(place.folder, `${name}.nbd`) },
        },
      ]),
    );
    const config = { name: VOLUME, nodes, timeouts: { retryMin: 20, retryMax: 100 } };
    writeFileSync(join(folder, 'config.mjs'), `export default ${JSON.stringify(config)};\n`);
    return new ScalePair(place, folder, wires);
  }

  /** Bytes that crossed the wire so far, both ways. */
  get wireBytes(): number {
    return this.wires.reduce((sum, wire) => sum + wire.bytes, 0);
  }

  /** Starts a daemon; returns the seconds until it had attached and answered as running. */
  async up(node: NodeName, ...words: string[]): Promise<number> {
    const log = join(this.folder, `${node}.log`);
    const fd = openSync(log, 'a');
    const begin = performance.now();
    const child = spawn(
      process.execPath,
      [CLI, '--config', join(this.folder, 'config.mjs'), 'up', ...words],
      {
        env: {
          ...process.env,
          TIDEMARK_RUN_DIR: join(this.folder, 'run'),
          TIDEMARK_NODE: node,
        },
        stdio: ['ignore', fd, fd],
      },
    );
    closeSync(fd);
    this.place.adopt(child);
    const control = await this.until(`the daemon of ${node}`, async () => {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`the daemon of ${node} ended:\n${readFileSync(log, 'utf8')}`);
      }
      const client = await ControlClient.connect(
        join(this.folder, 'run', `${VOLUME}-${node}.sock`),
      ).catch(() => null);
      if (client === null) return null;
      const pong = await client.call<{ state: string; pid: number }>('ping').catch(() => null);
      if (pong?.state === 'running' && pong.pid === child.pid) return client;
      client.close();
      return null;
    });
    this.running.set(node, { child, control });
    return (performance.now() - begin) / 1000;
  }

  private of(node: NodeName): Running {
    const running = this.running.get(node);
    if (running === undefined) throw new Error(`${node} does not run`);
    return running;
  }

  call<T>(node: NodeName, method: string, params: Record<string, unknown> = {}): Promise<T> {
    return this.of(node).control.call<T>(method, { volume: VOLUME, ...params });
  }

  async status(node: NodeName): Promise<VolumeJson> {
    return (await this.call<StatusJson>(node, 'status')).volumes[0]!;
  }

  /** Polls until the answer is not null. */
  private async until<T>(what: string, ask: () => Promise<T | null>): Promise<T> {
    const end = performance.now() + DEADLINE_MS;
    while (performance.now() < end) {
      const answer = await ask();
      if (answer !== null) return answer;
      await delay(POLL_MS);
    }
    throw new Error(`not within ${DEADLINE_MS / 1000} s: ${what}`);
  }

  see(
    node: NodeName,
    what: string,
    check: (volume: VolumeJson, peer: PeerJson) => boolean,
  ): Promise<VolumeJson> {
    return this.until(`${node}: ${what}`, async () => {
      const volume = await this.status(node);
      return check(volume, volume.peers[0]!) ? volume : null;
    });
  }

  inStep(): Promise<VolumeJson> {
    return this.see(
      'alpha',
      'in step',
      (_, peer) =>
        peer.connection === 'Connected' && peer.disk === 'UpToDate' && peer.dirty_chunks === 0,
    );
  }

  /** Writes a block at each offset. */
  async write(node: NodeName, offsets: number[]): Promise<void> {
    const { device } = await this.status(node);
    const client = await NbdClient.connect(device!, VOLUME);
    const block = Buffer.alloc(BLOCK_BYTES, 0x5a);
    await Promise.all(offsets.map((offset) => client.write(offset, block)));
    await client.close();
  }

  peakBytes(node: NodeName): number {
    return memoryOf(this.of(node).child.pid!).mostBytes;
  }

  async end(node: NodeName, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const { child, control } = this.of(node);
    const ended = once(child, 'exit');
    child.kill(signal);
    const [code] = (await ended) as [number | null];
    control.close();
    this.running.delete(node);
    if (signal === 'SIGTERM' && code !== 0) throw new Error(`${node} ended with status ${code}`);
  }

  async close(): Promise<void> {
    for (const node of [...this.running.keys()]) await this.end(node, 'SIGTERM');
    for (const wire of this.wires) await wire.close();
  }
}
