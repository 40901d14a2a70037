/** The wire between the two nodes: a TCP relay that can be cut and joined, and that counts what crosses it. */

import { createConnection, createServer, type Server, type Socket } from 'node:net';

export class Wire {
  /** Bytes that crossed, both ways together. */
  bytes = 0;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private joined = true;

  private constructor(server: Server) {
    this.server = server;
  }

  /** Listens on a free loopback port and relays to `target`, a loopback port. */
  static async start(target: () => number): Promise<Wire> {
    const server = createServer();
    const wire = new Wire(server);
    server.on('connection', (near) => wire.relay(near, target()));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return wire;
  }

  get port(): number {
    const address = this.server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  cut(): void {
    this.joined = false;
    for (const socket of this.sockets) socket.destroy();
  }

  join(): void {
    this.joined = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private relay(near: Socket, target: number): void {
    if (!this.joined) {
      near.destroy();
      return;
    }
    const far = createConnection({ host: '127.0.0.1', port: target });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.sockets.add(from);
      from.setNoDelay(true);
      from.on('data', (data: Buffer) => {
        this.bytes += data.length;
        if (!to.write(data)) from.pause();
      });
      to.on('drain', () => from.resume());
      from.on('error', () => {});
      from.on('close', () => {
        this.sockets.delete(from);
        to.destroy();
      });
    }
  }
}

/** A loopback port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}
