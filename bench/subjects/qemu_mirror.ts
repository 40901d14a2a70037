/**
 * qemu-storage-daemon that mirrors with write-blocking to an NBD target over TCP: a write is complete when both disks have it, which
 * is protocol C.
 */

import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { freePort } from '../../lib/demo/wire.ts';
import { endAll } from '../ends.ts';
import { FILL, pass } from '../fio.ts';
import { need, type Place } from '../place.ts';
import { Program } from '../program.ts';
import type { Subject } from '../subject.ts';
import { answers } from './nbd_server.ts';

const EXPORT = 'bench';
const ANSWER_MS_MAX = 30_000;

export class QemuMirror implements Subject {
  readonly id = 'qemu-mirror';
  readonly title = 'qemu mirror, write-blocking';
  readonly bytes: number;
  private readonly programs: Program[] = [];
  private monitor: Monitor | null = null;
  private uri = '';

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  async start(place: Place): Promise<void> {
    const folder = place.subfolder();
    const daemon = await need('qemu-storage-daemon', 'qemu-system-x86');
    const port = await freePort();
    const target = Program.start(
      [
        daemon,
        ...blockFile('disk', await place.disk(this.bytes)),
        ...['--nbd-server', `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`],
        ...['--export', `nbd,id=e,node-name=disk,name=${EXPORT},writable=on`],
      ],
      { name: `${this.id}, target`, log: join(folder, 'target.log') },
    );
    this.programs.push(target);
    await answers(target, `nbd://127.0.0.1:${port}/${EXPORT}`, place.patienceMs);

    const [socket, qmp] = [join(folder, 'nbd'), join(folder, 'qmp')];
    const source = Program.start(
      [
        daemon,
        ...blockFile('disk', await place.disk(this.bytes)),
        '--blockdev',
        `nbd,node-name=target,server.type=inet,server.host=127.0.0.1,server.port=${port},export=${EXPORT}`,
        ...['--nbd-server', `addr.type=unix,addr.path=${socket},max-connections=16`],
        ...['--export', `nbd,id=e,node-name=disk,name=${EXPORT},writable=on`],
        ...['--chardev', `socket,id=qmp,path=${qmp},server=on,wait=off`],
        ...['--monitor', 'chardev=qmp'],
      ],
      { name: this.id, log: join(folder, 'source.log') },
    );
    this.programs.push(source);
    this.uri = `nbd+unix:///${EXPORT}?socket=${socket}`;
    await answers(source, this.uri, place.patienceMs);
    this.monitor = await Monitor.connect(qmp);
    await this.monitor.call('blockdev-mirror', {
      'job-id': 'mirror',
      device: 'disk',
      target: 'target',
      sync: 'full',
      'copy-mode': 'write-blocking',
      // With the default of 64 KiB it copies as much again for every small write.
      granularity: 4096,
    });
    await source.until('the mirror is ready', () => this.mirrored(), place.patienceMs);
    await pass(this, FILL);
    await source.until('the mirror is ready', () => this.mirrored(), place.patienceMs);
  }

  private async mirrored(): Promise<boolean> {
    const jobs = await this.monitor?.call<Array<{ status: string; error?: string }>>('query-jobs');
    const [job] = jobs ?? [];
    if (job === undefined) throw new Error(`${this.id}: the mirror has ended`);
    return job.status === 'ready';
  }

  async stop(): Promise<void> {
    this.monitor?.close();
    this.monitor = null;
    // The source first: it would wait for a target that is gone.
    const programs = this.programs.splice(0).reverse();
    await endAll(programs.map((program) => () => program.end()));
  }

  fio(): string[] {
    return ['--ioengine=nbd', `--uri=${this.uri}`];
  }

  pids(): number[] {
    return this.programs.map(({ pid }) => pid);
  }
}

function blockFile(name: string, path: string): string[] {
  // Past the page cache, as Tidemark's own disk is.
  return [
    '--blockdev',
    `file,node-name=${name},filename=${path},aio=threads,cache.direct=on,discard=unmap`,
  ];
}

/** qemu's monitor: one JSON object a line. */
class Monitor {
  private readonly socket: Socket;
  private readonly waiting: Array<{
    resolve(value: unknown): void;
    reject(error: Error): void;
  }> = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } };
      if (message.error !== undefined) this.waiting.shift()?.reject(new Error(message.error.desc));
      else if ('return' in message) this.waiting.shift()?.resolve(message.return);
    });
    socket.on('close', () => {
      for (const { reject } of this.waiting) reject(new Error('qemu closed its monitor'));
    });
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const monitor = new Monitor(socket);
    await monitor.call('qmp_capabilities');
    return monitor;
  }

  call<T>(execute: string, parameters: Record<string, unknown> = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`qemu: no answer to ${execute} in ${ANSWER_MS_MAX} ms`)),
        ANSWER_MS_MAX,
      );
      this.waiting.push({
        resolve(value) {
          clearTimeout(late);
          resolve(value as T);
        },
        reject(error) {
          clearTimeout(late);
          reject(error);
        },
      });
      this.socket.write(`${JSON.stringify({ execute, arguments: parameters })}\n`);
    });
  }

  close(): void {
    this.socket.destroy();
  }
}
