/** The control socket's server: framing, limits and replies. What the methods do is the daemon's. */

import type { Server, Socket } from 'node:net';
import { TidemarkError } from '../binding/errors.ts';
import {
  BACKLOG_BYTES_MAX,
  BadRequest,
  CONNECTIONS_MAX,
  type ControlEvent,
  LINE_BYTES_MAX,
  parseRequest,
  REQUESTS_MAX,
  type Reply,
  type Request,
  type RequestId,
} from './protocol.ts';
import { claimSocket, releaseSocket } from './socket_claim.ts';

/** Answers a request; what it throws becomes the reply's error. `events` never reaches it. */
export type RequestHandler = (request: Request) => Promise<unknown>;

const NEWLINE = 0x0a;

/** Cuts what arrives into lines; a line that is too long is skipped to its end. */
class LineReader {
  private parts: Uint8Array[] = [];
  private bytes = 0;
  private skipping = false;

  /** `null` stands for a line that was too long; it comes once, as soon as that is known. */
  *push(chunk: Uint8Array): Generator<Uint8Array | null> {
    let start = 0;
    while (start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline < 0 ? chunk.length : newline;
      if (!this.skipping) {
        this.parts.push(chunk.subarray(start, end));
        this.bytes += end - start;
        if (this.bytes > LINE_BYTES_MAX) {
          this.reset();
          this.skipping = true;
          yield null;
        }
      }
      if (newline < 0) return;
      if (this.skipping) this.skipping = false;
      else {
        const line = Buffer.concat(this.parts);
        this.reset();
        yield line;
      }
      start = newline + 1;
    }
  }

  private reset(): void {
    this.parts = [];
    this.bytes = 0;
  }
}

class Connection {
  subscribed = false;
  private readonly socket: Socket;
  private readonly handle: RequestHandler;
  private readonly reader = new LineReader();
  private underWay = 0;
  private ended = false;

  constructor(socket: Socket, handle: RequestHandler) {
    this.socket = socket;
    this.handle = handle;
    socket.on('data', (chunk) => this.receive(chunk));
    socket.on('end', () => {
      this.ended = true;
      this.finish();
    });
    // A client that goes away is no event of ours.
    socket.on('error', () => socket.destroy());
  }

  send(message: Reply | { event: ControlEvent }): void {
    if (this.socket.destroyed || !this.socket.writable) return;
    this.socket.write(`${JSON.stringify(message)}\n`);
    if (this.socket.writableLength > BACKLOG_BYTES_MAX) this.socket.destroy();
  }

  private receive(chunk: Uint8Array): void {
    for (const line of this.reader.push(chunk)) {
      if (this.socket.destroyed) return;
      if (line === null) {
        const message = `a line is longer than ${LINE_BYTES_MAX} bytes`;
        this.send({ id: null, error: { code: 'LINE_TOO_LONG', message } });
      } else if (line.length > 0) this.receiveLine(line);
    }
  }

  private receiveLine(line: Uint8Array): void {
    const request = parseRequest(line);
    if (request instanceof BadRequest) {
      this.fail(request.requestId, request);
      return;
    }
    if (request.method === 'events') {
      this.subscribed = true;
      this.send({ id: request.id, result: { subscribed: true } });
      return;
    }
    if (this.underWay >= REQUESTS_MAX) {
      const message = `more than ${REQUESTS_MAX} requests of one connection are under way`;
      this.fail(request.id, new TidemarkError('BUSY', message));
      return;
    }
    this.underWay += 1;
    this.handle(request)
      .then(
        (result) => this.send({ id: request.id, result: result ?? null }),
        (error: unknown) => this.fail(request.id, error),
      )
      .finally(() => {
        this.underWay -= 1;
        this.finish();
      });
  }

  /** Nothing more can be asked: the connection ends with the last answer. */
  private finish(): void {
    if (this.ended && this.underWay === 0) this.socket.end();
  }

  private fail(id: RequestId, error: unknown): void {
    const code = error instanceof TidemarkError ? error.code : 'INTERNAL';
    const message = error instanceof Error ? error.message : String(error);
    this.send({ id, error: { code, message } });
  }
}

export class ControlServer {
  readonly path: string;
  private readonly server: Server;
  private readonly connections = new Map<Socket, Connection>();

  private constructor(path: string, server: Server, handle: RequestHandler) {
    this.path = path;
    this.server = server;
    server.on('connection', (socket) => {
      if (this.connections.size >= CONNECTIONS_MAX) {
        const message = `${CONNECTIONS_MAX} connections are open`;
        socket.on('error', () => undefined);
        // What it sends is not read, but its end is.
        socket.resume();
        socket.end(
          `${JSON.stringify({ id: null, error: { code: 'TOO_MANY_CONNECTIONS', message } })}\n`,
        );
        return;
      }
      this.connections.set(socket, new Connection(socket, handle));
      socket.on('close', () => this.connections.delete(socket));
    });
  }

  /**
   * Listens on the path, mode 0600. The socket of a daemon that died is replaced.
   * @throws TidemarkError ALREADY_RUNNING when a daemon answers there; CONTROL_SOCKET when it cannot be made.
   */
  static async listen(path: string, handle: RequestHandler): Promise<ControlServer> {
    return new ControlServer(path, await claimSocket(path), handle);
  }

  publish(event: ControlEvent): void {
    for (const connection of this.connections.values()) {
      if (connection.subscribed) connection.send({ event });
    }
  }

  /**
   * Accepts nobody any more and removes the socket. Connections stay until the process ends, which is how a client
   * that asked for `down` knows that it has.
   */
  stopListening(): void {
    releaseSocket(this.path);
    this.server.close();
  }

  /** Ends all connections too. */
  async close(): Promise<void> {
    this.stopListening();
    for (const socket of this.connections.keys()) socket.destroy();
    this.connections.clear();
  }
}
