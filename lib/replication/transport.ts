/**
 * Streams of bytes between nodes, as the connections use them: node's sockets here, a simulated network in the simulator. A
 * stream has one handler, which is told of everything that happens to it.
 */
import { connect, createServer, type Server, Socket, type SocketConstructorOpts } from 'node:net';

export interface Address {
  host: string;
  port: number;
}

export interface StreamHandler {
  /** A dialled stream is there. */
  opened(): void;
  /** The memory may be used again after the call, so that what is kept is copied. Returns false to pause the stream. */
  received(bytes: Buffer): boolean;
  /** Why the end is near: an error, or the other side's end. */
  ending(reason: string): void;
  /** The last call: no memory that was given to write() is used any more. */
  closed(): void;
}

export interface Stream {
  handler: StreamHandler | null;
  readonly localAddress: string | undefined;
  readonly remoteAddress: string | undefined;
  readonly writable: boolean;
  /** Its descriptor, for others who go on with it while it is paused; undefined: it has none, or has not sent everything. */
  readonly descriptor?: number | undefined;
  /** The memory is the stream's until `done`. */
  write(bytes: Uint8Array, done?: (error?: Error | null) => void): void;
  pause(): void;
  resume(): void;
  /** Closes after what was written has left. */
  destroySoon(): void;
  /** Closes at once. */
  destroy(): void;
}

export interface Listening {
  /** Takes no more connections; resolves when the address is free. Those that were taken go on. */
  close(): Promise<void>;
}

export interface ListenHandler {
  listening(): void;
  /** It does not listen (any more). */
  failed(error: NodeJS.ErrnoException): void;
  connection(stream: Stream): void;
}

export interface Transport {
  /** Returns at once; `opened` or `closed` of the handler follows, never from inside this call. */
  dial(address: Address): Stream;
  listen(address: Address, handler: ListenHandler): Listening;
}

/** A socket reads into one buffer of this size, which costs less than a buffer for each read. */
const READ_BUFFER_BYTES = 256 * 1024;

/** What `net.Socket` is told about reading; `node:net` types it for sockets that dial only. */
interface Reading {
  onread: { buffer: Uint8Array; callback: (bytes: number) => boolean };
}

/** `stream` is asked for at each read: it is made of the very socket. */
function readingInto(stream: () => Stream | null): Reading {
  const buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  const callback = (bytes: number) =>
    stream()?.handler?.received(buffer.subarray(0, bytes)) ?? true;
  return { onread: { buffer, callback } };
}

class SocketStream implements Stream {
  handler: StreamHandler | null = null;
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('error', (error) => this.handler?.ending(error.message));
    socket.on('end', () => this.handler?.ending('the peer closed the connection'));
    socket.on('close', () => this.handler?.closed());
  }

  get localAddress(): string | undefined {
    return this.#socket.localAddress;
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  get writable(): boolean {
    return this.#socket.writable;
  }

  get descriptor(): number | undefined {
    const { _handle: handle } = this.#socket as unknown as { _handle: { fd?: number } | null };
    const isFree = this.#socket.writableLength === 0 && handle?.fd !== undefined && handle.fd >= 0;
    return isFree ? handle.fd : undefined;
  }

  write(bytes: Uint8Array, done?: (error?: Error | null) => void): void {
    this.#socket.write(bytes, done);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroySoon(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function dial(address: Address): Stream {
  let stream: Stream | null = null;
  const socket = connect({ ...address, ...readingInto(() => stream) });
  stream = new SocketStream(socket);
  socket.on('connect', () => stream.handler?.opened());
  return stream;
}

/**
 * A socket that came in as a stream. A server's sockets make a buffer for each read, and garbage of it, so that collecting it costs more
 * than the reading: another socket takes the handle over, as if it had dialled.
 */
export function acceptedStream(accepted: Socket): Stream {
  const taken = accepted as unknown as { _handle: object | null };
  // Gone already.
  if (taken._handle === null) return new SocketStream(accepted);
  let stream: Stream | null = null;
  const options = { handle: taken._handle, ...readingInto(() => stream) };
  taken._handle = null;
  // Its server counts it no longer.
  accepted.destroy();
  stream = new SocketStream(new Socket(options as SocketConstructorOpts));
  return stream;
}

function listen(address: Address, handler: ListenHandler): Listening {
  // Paused: nothing is read before another socket has taken the handle over.
  const server: Server = createServer({ pauseOnConnect: true }, (socket) =>
    handler.connection(acceptedStream(socket)),
  );
  server.on('error', (error) => {
    server.close();
    handler.failed(error);
  });
  server.listen({ host: address.host, port: address.port }, () => handler.listening());
  return {
    close: () => {
      // The callback of close() would wait for every connection; the address is free before.
      server.close();
      return new Promise((resolve) => setImmediate(resolve));
    },
  };
}

export const netTransport: Transport = { dial, listen };
