// The network between nodes: a TCP relay for each, under one hand. It can cut the link, stall it (nothing is
// forwarded and nothing is closed), make it slow, and counts what crosses it.
import { createConnection, createServer, type Server, type Socket } from 'node:net';

/** Bytes that may wait inside the relay for one direction of one connection. */
const HELD_BYTES_MAX = 1 << 20;

interface Pipe {
  from: Socket;
  to: Socket;
  /** Read and not forwarded yet, with the time at which each part may go. */
  held: Array<{ data: Buffer; dueMs: number }>;
  heldBytes: number;
  /** `from` ended; that is passed on behind the last byte. */
  ended: boolean;
  timer: NodeJS.Timeout | undefined;
  /** Index of the node that `from`'s bytes go to; null when it is not known. */
  towards: number | null;
}

export class LinkProxy {
  /** Bytes that were forwarded to each node, in the order of `targets`; with more than two, only of links that others dialled. */
  readonly bytesTo: number[];
  /** Bytes that were forwarded, all ways together. */
  bytes = 0;
  /** Connections that a node opened, also those that were refused. */
  attempts = 0;
  private readonly servers: Server[] = [];
  private readonly pipes = new Set<Pipe>();
  private readonly pairs = new Set<readonly [Socket, Socket]>();
  private whole = true;
  private stalled = false;
  private delayMs = 0;
  private readonly allowance: number[];

  private constructor(targets: readonly number[]) {
    this.bytesTo = targets.map(() => 0);
    this.allowance = targets.map(() => Number.POSITIVE_INFINITY);
  }

  /** One relay for each target, a loopback port: whoever connects to `ports[n]` reaches `targets[n]`. */
  static async start(targets: readonly number[]): Promise<LinkProxy> {
    const proxy = new LinkProxy(targets);
    for (const [index, target] of targets.entries()) {
      const server = createServer((socket) => proxy.accept(socket, index, target));
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', resolve);
      });
      proxy.servers.push(server);
    }
    return proxy;
  }

  get ports(): number[] {
    return this.servers.map((server) => {
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('the proxy is closed');
      return address.port;
    });
  }

  get connections(): number {
    return this.pairs.size;
  }

  /** Closes all connections, and every new one at once. What was on its way is lost. */
  cut(): void {
    this.whole = false;
    this.stalled = false;
    for (const pair of this.pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  /** Undoes cut(), stall() and holdAfter(). */
  join(): void {
    this.whole = true;
    this.stalled = false;
    this.allowance.fill(Number.POSITIVE_INFINITY);
    for (const pair of this.pairs) {
      if (pair.some((socket) => socket.destroyed)) for (const socket of pair) socket.destroy();
    }
    for (const pipe of this.pipes) this.pump(pipe);
  }

  /** From now on nothing is forwarded, and nothing is closed: new connections are accepted, too. */
  stall(): void {
    this.stalled = true;
    for (const { timer } of this.pipes) clearTimeout(timer);
  }

  /** Every byte takes so long to cross the link, one way. */
  setDelay(delayMs: number): void {
    this.delayMs = delayMs;
  }

  /** So many bytes more reach that node, then nothing does until join(); the other way goes on. */
  holdAfter(node: number, bytes: number): void {
    this.allowance[node] = bytes;
  }

  async close(): Promise<void> {
    this.cut();
    await Promise.all(
      this.servers.map((server) => new Promise((resolve) => server.close(resolve))),
    );
  }

  private accept(near: Socket, index: number, target: number): void {
    this.attempts += 1;
    near.on('error', () => {}); // 'close' follows.
    if (!this.whole) {
      near.resetAndDestroy();
      return;
    }
    const far = createConnection({ host: '127.0.0.1', port: target });
    far.on('error', () => {});
    // Who dialled is the other node, of two; of more it is not known.
    const dialler = this.bytesTo.length === 2 ? 1 - index : null;
    const pipes = [this.pipe(near, far, index), this.pipe(far, near, dialler)];
    const pair = [near, far] as const;
    this.pairs.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on('close', () => {
        for (const pipe of pipes) {
          clearTimeout(pipe.timer);
          this.pipes.delete(pipe);
        }
        // A stalled network does not tell one end that the other has gone.
        if (!this.stalled) for (const other of pair) other.destroy();
        if (pair.every((each) => each.destroyed)) this.pairs.delete(pair);
      });
    }
  }

  private pipe(from: Socket, to: Socket, towards: number | null): Pipe {
    const pipe: Pipe = {
      from,
      to,
      held: [],
      heldBytes: 0,
      ended: false,
      timer: undefined,
      towards,
    };
    this.pipes.add(pipe);
    from.on('data', (data: Buffer) => {
      pipe.held.push({ data, dueMs: performance.now() + this.delayMs });
      pipe.heldBytes += data.length;
      if (pipe.heldBytes > HELD_BYTES_MAX) from.pause();
      this.pump(pipe);
    });
    from.on('end', () => {
      pipe.ended = true;
      this.pump(pipe);
    });
    to.on('drain', () => this.pump(pipe));
    return pipe;
  }

  private pump(pipe: Pipe): void {
    clearTimeout(pipe.timer);
    if (this.stalled || !this.pipes.has(pipe)) return;
    for (let next = pipe.held[0]; next !== undefined; next = pipe.held[0]) {
      const waitMs = next.dueMs - performance.now();
      if (waitMs > 0) {
        pipe.timer = setTimeout(() => this.pump(pipe), waitMs);
        return;
      }
      if (pipe.to.writableNeedDrain) return; // 'drain' comes back here.
      if (pipe.towards !== null) {
        if (this.allowance[pipe.towards]! < next.data.length) return;
        this.allowance[pipe.towards]! -= next.data.length;
      }
      pipe.held.shift();
      pipe.heldBytes -= next.data.length;
      this.bytes += next.data.length;
      if (pipe.towards !== null) this.bytesTo[pipe.towards]! += next.data.length;
      pipe.to.write(next.data);
    }
    if (pipe.ended) pipe.to.end();
    else if (pipe.heldBytes <= HELD_BYTES_MAX) pipe.from.resume();
  }
}

/** Loopback ports that nobody uses, below the range from which the kernel takes ports for connections. */
export async function freePorts(count: number): Promise<number[]> {
  const first = 15_000;
  const range = 10_000;
  const ports: number[] = [];
  for (let tries = 0; ports.length < count; tries += 1) {
    if (tries > 1_000) throw new Error(`no ${count} free ports in ${first}..${first + range - 1}`);
    const port = first + Math.floor(Math.random() * range);
    if (!ports.includes(port) && (await isFree(port))) ports.push(port);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listening = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => resolve(true));
  });
  if (listening) await new Promise((resolve) => server.close(resolve));
  return listening;
}
