/**
 * Two plain Node processes and a socket on loopback: 64 KiB frames, 16 in flight, each acknowledged. What JavaScript can carry on this
 * machine, and so a measure for a resync.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { CarrierSubject } from '../subject.ts';

const ANSWER_MS_MAX = 30_000;
const END = fileURLToPath(new URL('./socket_end.ts', import.meta.url));

export class NodeSockets implements CarrierSubject {
  readonly id = 'node-sockets';
  readonly title = 'plain Node sockets, 64 KiB frames, 16 in flight';
  readonly bytes = 0;
  private readonly ends: ChildProcess[] = [];

  async start(): Promise<void> {
    const sender = this.fork();
    const port = await answer<number>(sender, { listen: true }, ANSWER_MS_MAX);
    await answer(this.fork(), { dial: port }, ANSWER_MS_MAX);
  }

  private fork(): ChildProcess {
    const child = fork(END, { execArgv: ['--import', 'tsx'], stdio: 'inherit' });
    this.ends.push(child);
    return child;
  }

  async carry(seconds: number): Promise<number> {
    return answer<number>(this.ends[0]!, { seconds }, seconds * 1000 + ANSWER_MS_MAX);
  }

  async stop(): Promise<void> {
    for (const child of this.ends.splice(0)) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      // Their parent's end of the channel is what keeps them.
      if (child.connected) child.disconnect();
      const late = setTimeout(() => child.kill('SIGKILL'), ANSWER_MS_MAX);
      if (child.exitCode === null && child.signalCode === null) await ended;
      clearTimeout(late);
    }
  }

  fio(): string[] {
    throw new Error(`${this.id} serves no device`);
  }

  pids(): number[] {
    return this.ends.map(({ pid }) => pid ?? 0);
  }
}

function answer<T>(child: ChildProcess, message: object, limitMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const forget = () => {
      clearTimeout(late);
      child.off('exit', ended);
      child.off('message', take);
    };
    const fail = (what: string) => {
      forget();
      reject(new Error(`a socket's end ${what}`));
    };
    const ended = (status: number | null) => fail(`ended: ${status}`);
    const take = (value: unknown) => {
      forget();
      resolve(value as T);
    };
    const late = setTimeout(() => fail(`gave no answer in ${limitMs} ms`), limitMs);
    child.once('exit', ended);
    child.once('message', take);
    child.send(message);
  });
}
