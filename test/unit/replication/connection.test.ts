import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../../lib/replication/clock.ts';
import { Connection, type LinkBytes } from '../../../lib/replication/connection.ts';
import type { HandshakeMessage } from '../../../lib/replication/messages.ts';
import { acceptedStream, netTransport, type Stream } from '../../../lib/replication/transport.ts';
import { FakeAddon } from './fake_native.ts';
import { type Random, seededRandom } from './random.ts';

const codec = new FakeAddon();
const world = { addon: codec, clock: systemClock, transport: netTransport };

/** Both ends of a connection over loopback. */
async function ends(): Promise<{ dialled: Connection; accepted: Connection; server: Server }> {
  const server = createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const accepting = new Promise<Connection>((resolve) => {
    server.once('connection', (socket) =>
      resolve(Connection.accepted(acceptedStream(socket), world)),
    );
  });
  const dialled = Connection.dial({ host: '127.0.0.1', port }, world);
  await new Promise<void>((resolve) => {
    dialled.handler = { opened: resolve, message() {}, garbage() {}, closed() {} };
  });
  return { dialled, accepted: await accepting, server };
}

async function close(...all: Array<Connection | Server>): Promise<void> {
  for (const each of all) {
    if (each instanceof Connection) {
      each.destroy();
      await each.closed;
    } else await new Promise<void>((resolve) => each.close(() => resolve()));
  }
}

function listen(connection: Connection): {
  messages: string[];
  garbage: string[];
  closed: string[];
} {
  const log = { messages: [] as string[], garbage: [] as string[], closed: [] as string[] };
  connection.handler = {
    opened() {},
    message: (json) => log.messages.push(json),
    garbage: (reason) => log.garbage.push(reason),
    closed: (reason) => log.closed.push(reason),
  };
  return log;
}

/** A native volume's rings: takes and gives bytes in random portions, and checks that the shell keeps the rules. */
class Rings implements LinkBytes {
  readonly received = createHash('sha256');
  receivedBytes = 0;
  /** How often feed() took less than all. */
  stalls = 0;
  consumedBytes = 0;
  connection: Connection | null = null;
  readonly #random: Random;
  readonly #source: Buffer;
  #given = 0;
  #stalled = false;

  constructor(random: Random, source: Buffer) {
    this.#random = random;
    this.#source = source;
  }

  feed(bytes: Uint8Array): number {
    assert.is(this.#stalled, false, 'feed() while there is no room');
    const taken = this.#random.below(3) === 0 ? this.#random.below(bytes.length) : bytes.length;
    // The native thread may say at any time that there is something to send.
    this.connection!.drainOutgoing();
    this.received.update(bytes.subarray(0, taken));
    this.receivedBytes += taken;
    if (taken < bytes.length) {
      this.stalls += 1;
      this.#stalled = true;
      setImmediate(() => {
        this.#stalled = false;
        this.connection!.drainReceived();
      });
    }
    return taken;
  }

  outgoing(): Uint8Array {
    this.#given = Math.min(
      this.#source.length,
      this.consumedBytes + 1 + this.#random.below(3_000_000),
    );
    return this.#source.subarray(this.consumedBytes, this.#given);
  }

  consumed(bytes: number): void {
    assert.ok(this.consumedBytes + bytes <= this.#given, 'more consumed than given');
    // As a ring would be written over.
    this.#source.fill(0, this.consumedBytes, this.consumedBytes + bytes);
    this.consumedBytes += bytes;
  }
}

const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const refusal = (reason: string): HandshakeMessage => ({ type: 'refused', code: 'BUSY', reason });

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 10_000) throw new Error('it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test('link bytes arrive whole and in order, both ways, however little room there is', async () => {
  const random = seededRandom();
  const { dialled, accepted, server } = await ends();
  const data = [0, 1].map((which) => {
    const bytes = Buffer.alloc(12_000_000 + which);
    for (let at = 0; at + 4 <= bytes.length; at += 4) {
      bytes.writeUInt32LE(Math.floor(random.next() * 2 ** 32), at);
    }
    return bytes;
  });
  const sums = data.map(hash);
  const sizes = data.map((each) => each.length);
  const rings = data.map((each) => new Rings(random, each));
  for (const [index, connection] of [dialled, accepted].entries()) {
    listen(connection);
    rings[index]!.connection = connection;
    connection.hold();
  }
  dialled.attach(rings[0]!);
  // The other side's first bytes come before it is attached, and are kept.
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.is(rings[1]!.receivedBytes, 0);
  accepted.attach(rings[1]!);
  await until(() => rings.every((each, index) => each.receivedBytes === sizes[1 - index]));
  const seed = `seed ${random.seed}`;
  assert.is(rings[1]!.received.digest('hex'), sums[0], seed);
  assert.is(rings[0]!.received.digest('hex'), sums[1], seed);
  assert.ok(rings[0]!.stalls > 0 && rings[1]!.stalls > 0, seed);
  await until(() => rings.every((each, index) => each.consumedBytes === sizes[index]));
  await close(dialled, accepted, server);
});

test('messages are cut however they are split, and what follows the last belongs to the link', async () => {
  const { dialled, accepted, server } = await ends();
  const log = listen(accepted);
  const seen: string[] = [];
  accepted.handler = {
    opened() {},
    message: (json) => {
      seen.push(json);
      if (seen.length === 3) accepted.hold();
    },
    garbage: (reason) => log.garbage.push(reason),
    closed() {},
  };
  const tail = Buffer.from('bytes of the link');
  const all = Buffer.concat([
    ...['one', 'two', 'three'].map((text) => codec.encodeHandshake(JSON.stringify({ text }))),
    tail,
  ]);
  for (let at = 0; at < all.length; at += 7) accepted.receive(all.subarray(at, at + 7));
  assert.is(seen.length, 3);
  const rings = new Rings(seededRandom(1), Buffer.alloc(0));
  rings.connection = accepted;
  accepted.attach(rings);
  await until(() => rings.receivedBytes === tail.length);
  assert.is(rings.received.digest('hex'), hash(tail));
  assert.equal(log.garbage, []);
  await close(dialled, accepted, server);
});

test('a dialled connection keeps what it read though its buffer is used again', async () => {
  const { dialled, accepted, server } = await ends();
  const log = listen(dialled);
  const big = 'x'.repeat(40_000);
  for (let i = 0; i < 20; i++) accepted.send(refusal(`${i}${big}`));
  await until(() => log.messages.length === 20);
  for (const [index, json] of log.messages.entries()) {
    assert.is(JSON.parse(json).reason, `${index}${big}`);
  }
  await close(dialled, accepted, server);
});

test('a message that comes one byte at a time costs no more than its bytes', () => {
  const memories = new Set<ArrayBufferLike>();
  const addon = new FakeAddon();
  addon.parseHandshake = (bytes) => {
    memories.add(bytes.buffer);
    return codec.parseHandshake(bytes);
  };
  const stream = { handler: null } as unknown as Stream;
  const slow = Connection.accepted(stream, { addon, clock: systemClock });
  const log = listen(slow);
  const bytes = codec.encodeHandshake(JSON.stringify(refusal('x'.repeat(50_000))));
  for (let at = 0; at < bytes.length; at++) slow.receive(Buffer.from(bytes.subarray(at, at + 1)));
  assert.is(log.messages.length, 1);
  // Each is as large as all before it together.
  assert.ok(memories.size < 20, `${memories.size} copies were made`);
});

test('what is no frame is garbage, and so is one that never ends', async () => {
  const { dialled, accepted, server } = await ends();
  const log = listen(accepted);
  accepted.receive(Buffer.from('nonsense'));
  assert.is(log.garbage.length, 1);
  const endless = Buffer.alloc(100_000);
  endless.write('FAKE');
  endless.writeUInt32LE(1 << 30, 4);
  accepted.receive(endless);
  assert.match(log.garbage[1]!, /more than/);
  await close(dialled, accepted, server);
});

test('the last message arrives before the end', async () => {
  const { dialled, accepted, server } = await ends();
  const log = listen(dialled);
  listen(accepted);
  accepted.send(refusal('good bye'));
  accepted.finish();
  await accepted.closed;
  await until(() => log.closed.length === 1);
  assert.is(log.messages.length, 1);
  await close(dialled, server);
});

test('nobody there: closed, with the reason', async () => {
  const { dialled, accepted, server } = await ends();
  const { port } = server.address() as { port: number };
  await close(dialled, accepted, server);
  const lonely = Connection.dial({ host: '127.0.0.1', port }, world);
  const log = listen(lonely);
  await lonely.closed;
  assert.match(log.closed[0]!, /ECONNREFUSED/);
});

test.run();
