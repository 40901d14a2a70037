/**
 * Listening sockets, shared by all volumes of the process: one socket serves every volume whose config names its
 * address, and the first message of a connection (HELLO) says which volume it is for.
 *
 * Whoever connects can cost a socket and 10 s, and no more: the number of connections that did not yet prove themselves
 * is bounded, and so is what each of them may send. Beyond the bound the oldest gives way, first of those that said nothing: so
 * strangers that fill it do not keep a peer out, whose HELLO comes with its connection.
 */
import { Connection, type ConnectionWorld } from './connection.ts';
import { type HelloMessage, parseMessage, type RefusalCode } from './messages.ts';
import { HANDSHAKE_MS } from './session.ts';
import type { Address, Listening, Stream } from './transport.ts';

/** Connections of one listening socket that did not yet prove themselves. */
export const HALF_OPEN_MAX = 64;
/** How long after a failure to listen it is tried again. */
export const LISTEN_RETRY_MS = 1_000;

/** A volume that takes connections. */
export interface Acceptor {
  readonly name: string;
  /** `settled` is to be called when the connection proved itself or ended. */
  accept(connection: Connection, hello: HelloMessage, settled: () => void): void;
  /** The socket cannot listen (text), or now can (null). */
  listening(error: string | null): void;
}

interface Door {
  address: Address;
  acceptors: Map<string, Acceptor>;
  server: Listening | null;
  cancelRetry: () => void;
  /** Oldest first; true: its HELLO named a volume. */
  halfOpen: Map<Connection, boolean>;
  /** Why it does not listen. */
  error: string | null;
}

const doorKey = (address: Address) => `${address.host}\n${address.port}`;

function explain(address: Address, error: NodeJS.ErrnoException): string {
  const where = `${address.host}:${address.port}`;
  if (error.code === 'EADDRINUSE') {
    return `cannot listen on ${where}: another program uses this address (EADDRINUSE)`;
  }
  if (error.code === 'EADDRNOTAVAIL') {
    return `cannot listen on ${where}: this machine does not have this address (EADDRNOTAVAIL)`;
  }
  return `cannot listen on ${where}: ${error.message}`;
}

function makeRoom(door: Door): void {
  let [oldest] = door.halfOpen.keys();
  for (const [connection, greeted] of door.halfOpen) {
    if (greeted) continue;
    oldest = connection;
    break;
  }
  if (oldest === undefined) return;
  door.halfOpen.delete(oldest);
  oldest.destroy();
}

export class Listeners {
  readonly #world: ConnectionWorld;
  readonly #doors = new Map<string, Door>();

  constructor(world: ConnectionWorld) {
    this.#world = world;
  }

  /** Resolves when the first attempt to listen has succeeded or failed; a failed one is tried again. */
  add(address: Address, acceptor: Acceptor): Promise<void> {
    const key = doorKey(address);
    const known = this.#doors.get(key);
    if (known) {
      known.acceptors.set(acceptor.name, acceptor);
      acceptor.listening(known.error);
      return Promise.resolve();
    }
    const door: Door = {
      address,
      acceptors: new Map([[acceptor.name, acceptor]]),
      server: null,
      cancelRetry: () => {},
      halfOpen: new Map(),
      error: null,
    };
    this.#doors.set(key, door);
    return this.#listen(door);
  }

  /** Resolves when the address is free again, if this was its last volume. */
  async remove(address: Address, acceptor: Acceptor): Promise<void> {
    const key = doorKey(address);
    const door = this.#doors.get(key);
    if (!door || door.acceptors.get(acceptor.name) !== acceptor) return;
    door.acceptors.delete(acceptor.name);
    if (door.acceptors.size > 0) return;
    this.#doors.delete(key);
    door.cancelRetry();
    for (const connection of door.halfOpen.keys()) connection.destroy();
    await door.server?.close();
  }

  #listen(door: Door): Promise<void> {
    return new Promise((resolve) => {
      const isRemoved = () => this.#doors.get(doorKey(door.address)) !== door;
      const tell = (error: string | null) => {
        const changed = door.error !== error;
        door.error = error;
        if (changed) for (const acceptor of door.acceptors.values()) acceptor.listening(error);
        resolve();
      };
      const { clock, transport } = this.#world;
      const server = transport.listen(door.address, {
        listening: () => {
          tell(null);
          // Removed while the name was looked up.
          if (isRemoved()) void server.close();
        },
        failed: (error) => {
          tell(explain(door.address, error));
          if (isRemoved()) return;
          door.cancelRetry = clock.after(LISTEN_RETRY_MS, () => void this.#listen(door));
        },
        connection: (stream) => this.#connected(door, stream),
      });
      door.server = server;
    });
  }

  #connected(door: Door, stream: Stream): void {
    if (door.halfOpen.size >= HALF_OPEN_MAX) makeRoom(door);
    const connection = Connection.accepted(stream, this.#world);
    door.halfOpen.set(connection, false);
    const cancelTimer = this.#world.clock.after(HANDSHAKE_MS, () => connection.destroy());
    const settled = () => {
      cancelTimer();
      door.halfOpen.delete(connection);
    };
    void connection.closed.then(settled);
    const refuse = (code: RefusalCode, reason: string) => {
      connection.send({ type: 'refused', code, reason });
      connection.finish();
    };
    connection.handler = {
      opened: () => {},
      closed: () => {},
      garbage: () => connection.destroy(),
      message: (json) => {
        try {
          const message = parseMessage(json);
          if (message.type !== 'hello') throw new Error(`'${message.type}' came before 'hello'`);
          const acceptor = door.acceptors.get(message.volume);
          if (acceptor) {
            if (door.halfOpen.has(connection)) door.halfOpen.set(connection, true);
            acceptor.accept(connection, message, settled);
          } else refuse('VOLUME', `there is no volume '${message.volume}' at this address`);
        } catch (error) {
          refuse('PROTOCOL', (error as Error).message);
        }
      },
    };
  }
}
