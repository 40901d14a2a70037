/**
 * Two plain Node processes and a socket on loopback: 64 KiB frames, 16 in flight, each acknowledged. What JavaScript can carry on this
 * machine, and so a measure for a resync.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { CarrierSubject } from '../subject.ts';

const END = fileURLToPath(new URL('./socket_end.ts', import.meta.url));

export class NodeSockets implements CarrierSubject {
  readonly id = 'node-sockets';
  readonly title = 'plain Node sockets, 64 KiB frames, 16 in flight';
  readonly bytes = 0;
  private readonly ends: ChildProcess[] = [];

  async start(): Promise<void> {
    const sender = this.fork();
    const port = await answer<number>(sender, { listen: true });
    await answer(this.fork(), { dial: port });
  }

  private fork(): ChildProcess {
    const child = fork(END, { execArgv: ['--import', 'tsx'], stdio: 'inherit' });
    this.ends.push(child);
    return child;
  }

  async carry(seconds: number): Promise<number> {
    return answer<number>(this.ends[0]!, { seconds });
  }

  async stop(): Promise<void> {
    for (const child of this.ends.splice(0)) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      // Their parent's end of the channel is what keeps them.
      if (child.connected) child.disconnect();
      if (child.exitCode === null) await ended;
    }
  }

  fio(): string[] {
    throw new Error(`${this.id} serves no device`);
  }

  pids(): number[] {
    return this.ends.map(({ pid }) => pid ?? 0);
  }
}

function answer<T>(child: ChildProcess, message: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (status: number | null) => reject(new Error(`a socket's end ended: ${status}`));
    child.once('exit', ended);
    child.once('message', (value) => {
      child.off('exit', ended);
      resolve(value as T);
    });
    child.send(message);
  });
}
