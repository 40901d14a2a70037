/** Talks to a daemon over its control socket. */

import { createConnection, type Socket } from 'node:net';
import { TidemarkError } from '../binding/errors.ts';
import type { ControlEvent, Reply } from './protocol.ts';

export const CONNECT_MS = 5000;

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout | null;
}

export class ControlClient {
  /** Resolves when the connection is over: the daemon ended it, or its process ended. */
  readonly closed: Promise<void>;
  private readonly socket: Socket;
  private readonly path: string;
  private readonly waiting = new Map<number, Waiting>();
  private listener: ((event: ControlEvent) => void) | null = null;
  private nextId = 1;
  private rest = '';

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.socket = socket;
    socket.setEncoding('utf8').on('data', (text) => this.receive(String(text)));
    socket.on('error', () => socket.destroy());
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.failAll(new TidemarkError('DISCONNECTED', `the daemon at ${path} went away`));
        resolve();
      });
    });
  }

  /**
   * @throws TidemarkError NOT_RUNNING when nobody listens; CONTROL_SOCKET for other failures.
   */
  static connect(path: string, timeoutMs = CONNECT_MS): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(path);
      const timer = setTimeout(() => {
        socket.destroy();
        reject(
          new TidemarkError('CONTROL_SOCKET', `${path}: no connection within ${timeoutMs} ms`),
        );
      }, timeoutMs);
      socket.once('connect', () => {
        clearTimeout(timer);
        socket.removeAllListeners('error');
        resolve(new ControlClient(path, socket));
      });
      socket.once('error', (cause: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        const { code, errno, syscall } = cause;
        const gone = code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTSOCK';
        const options = {
          cause,
          ...(errno === undefined ? {} : { errno }),
          ...(syscall === undefined ? {} : { syscall }),
        };
        reject(
          gone
            ? new TidemarkError('NOT_RUNNING', `no daemon is running at ${path}`, options)
            : new TidemarkError('CONTROL_SOCKET', `${path}: ${cause.message}`, options),
        );
      });
    });
  }

  /**
   * @param timeoutMs without it, as long as the daemon lives.
   * @throws TidemarkError with the reply's code and message; DISCONNECTED; TIMEOUT.
   */
  call<T>(method: string, params: Record<string, unknown> = {}, timeoutMs?: number): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new TidemarkError('DISCONNECTED', `the daemon at ${this.path} went away`));
        return;
      }
      const id = this.nextId++;
      const timer =
        timeoutMs === undefined
          ? null
          : setTimeout(() => {
              this.waiting.delete(id);
              const message = `${method}: no answer from the daemon at ${this.path} within ${timeoutMs} ms: its main thread is stuck or busy, which its I/O does not depend on`;
              reject(new TidemarkError('TIMEOUT', message));
            }, timeoutMs);
      this.waiting.set(id, { resolve: resolve as (result: unknown) => void, reject, timer });
      this.socket.write(`${JSON.stringify({ id, method, params })}\n`);
    });
  }

  /** Hears all events from now on. */
  async subscribe(listener: (event: ControlEvent) => void): Promise<void> {
    this.listener = listener;
    await this.call('events');
  }

  close(): void {
    this.socket.destroy();
  }

  private receive(text: string): void {
    this.rest += text;
    for (;;) {
      const newline = this.rest.indexOf('\n');
      if (newline < 0) return;
      const line = this.rest.slice(0, newline);
      this.rest = this.rest.slice(newline + 1);
      if (line !== '') this.receiveLine(line);
    }
  }

  private receiveLine(line: string): void {
    const message = JSON.parse(line) as Reply | { event: ControlEvent };
    if ('event' in message) {
      this.listener?.(message.event);
      return;
    }
    if (message.id === null && 'error' in message) {
      this.failAll(new TidemarkError(message.error.code, message.error.message));
      return;
    }
    const waiting = this.waiting.get(message.id as number);
    if (waiting === undefined) return;
    this.waiting.delete(message.id as number);
    if (waiting.timer) clearTimeout(waiting.timer);
    if ('error' in message) {
      waiting.reject(new TidemarkError(message.error.code, message.error.message));
    } else waiting.resolve(message.result);
  }

  private failAll(error: Error): void {
    for (const { reject, timer } of this.waiting.values()) {
      if (timer) clearTimeout(timer);
      reject(error);
    }
    this.waiting.clear();
  }
}
