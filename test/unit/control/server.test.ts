import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { ControlClient } from '../../../lib/control/client.ts';
import {
  CONNECTIONS_MAX,
  type ControlEvent,
  LINE_BYTES_MAX,
  REQUESTS_MAX,
} from '../../../lib/control/protocol.ts';
import { ControlServer, type RequestHandler } from '../../../lib/control/server.ts';
import { socketPath } from '../../../lib/control/socket_claim.ts';
import { scratchFolder } from '../config/scratch.ts';

const folder = scratchFolder('control');
let sockets = 0;

function newPath(): string {
  sockets += 1;
  return join(folder, `run${sockets}`, 'd.sock');
}

const echo: RequestHandler = async (request) => {
  if (request.method === 'fail') throw new TidemarkError('SOME_CODE', 'some reason');
  if (request.method === 'ping') return { pid: process.pid };
  return { method: request.method, params: request.params };
};

/** Lines that a raw client received, one by one. */
class Raw {
  readonly socket: Socket;
  private readonly lines: string[] = [];
  private rest = '';
  private wake: () => void = () => undefined;

  constructor(path: string) {
    this.socket = createConnection(path);
    this.socket.on('error', () => undefined);
    this.socket.setEncoding('utf8').on('data', (text) => {
      const parts = (this.rest + String(text)).split('\n');
      this.rest = parts.pop()!;
      this.lines.push(...parts);
      this.wake();
    });
    this.socket.on('close', () => this.wake());
  }

  async line(): Promise<Record<string, unknown>> {
    while (this.lines.length === 0) {
      if (this.socket.destroyed) throw new Error('the server closed the connection');
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    return JSON.parse(this.lines.shift()!) as Record<string, unknown>;
  }
}

async function withServer(
  task: (server: ControlServer, path: string) => Promise<void>,
  handler: RequestHandler = echo,
): Promise<void> {
  const path = newPath();
  const server = await ControlServer.listen(path, handler);
  try {
    await task(server, path);
  } finally {
    await server.close();
  }
}

test('the socket is for its owner only, and its folder too', async () => {
  await withServer(async (_, path) => {
    assert.is(statSync(path).mode & 0o777, 0o600);
    assert.is(statSync(join(path, '..')).mode & 0o777, 0o700);
    assert.equal(readdirSync(join(path, '..')), ['d.sock'], 'nothing is left of making it');
  });
});

test('answers, errors and ids', async () => {
  await withServer(async (_, path) => {
    const client = await ControlClient.connect(path);
    assert.equal(await client.call('x', { a: 1 }), { method: 'x', params: { a: 1 } });
    const error = await client.call('fail').catch((e: TidemarkError) => e);
    assert.instance(error, TidemarkError);
    if (!(error instanceof TidemarkError)) return;
    assert.equal([error.code, error.message], ['SOME_CODE', 'some reason']);
    client.close();
    const raw = new Raw(path);
    raw.socket.write('{"id":"text","method":"y"}\n\n{"method":"z"}\n');
    assert.is((await raw.line()).id, 'text');
    assert.is((await raw.line()).id, null);
    raw.socket.destroy();
  });
});

const NONSENSE: Array<[string, string | Uint8Array, RegExp]> = [
  ['no JSON', 'hello', /not JSON/],
  ['half of an object', '{"method":', /not JSON/],
  ['bytes that are no UTF-8', Uint8Array.of(0x22, 0xff, 0x22), /not JSON|not valid/],
  ['a number', '42', /a request is an object/],
  ['a list', '[]', /a request is an object/],
  ['null', 'null', /a request is an object/],
  ['no method', '{"id":1}', /'method' is not a text/],
  ['a method that is a number', '{"id":1,"method":7}', /'method' is not a text/],
  ['a method that is a book', `{"id":1,"method":"${'m'.repeat(65)}"}`, /1\.\.64 characters/],
  ['params that are a list', '{"id":1,"method":"x","params":[]}', /'params' is not an object/],
  ['an id that is an object', '{"id":{},"method":"x"}', /'id' is not/],
];

for (const [what, line, message] of NONSENSE) {
  test(`nonsense is answered and closes nothing: ${what}`, async () => {
    await withServer(async (_, path) => {
      const raw = new Raw(path);
      raw.socket.write(line);
      raw.socket.write('\n');
      const reply = await raw.line();
      const { code, message: text } = reply.error as { code: string; message: string };
      assert.is(code, 'BAD_REQUEST');
      assert.match(text, message);
      raw.socket.write('{"id":2,"method":"after"}\n');
      assert.is((await raw.line()).id, 2);
      raw.socket.destroy();
    });
  });
}

test('a client that says at once that it has no more to ask gets its answers', async () => {
  let release!: () => void;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  await withServer(
    async (_, path) => {
      const raw = new Raw(path);
      raw.socket.end('{"id":1,"method":"x"}\n{"id":2,"method":"x"}\n');
      setTimeout(release, 50);
      assert.is((await raw.line()).id, 1);
      assert.is((await raw.line()).id, 2);
      await once(raw.socket, 'close');
    },
    async () => {
      await gate;
      return {};
    },
  );
});

test('a line that is too long is refused once, skipped to its end, and costs no other client', async () => {
  await withServer(async (_, path) => {
    const other = await ControlClient.connect(path);
    const raw = new Raw(path);
    raw.socket.write(Buffer.alloc(LINE_BYTES_MAX + 1, 'a'));
    const reply = await raw.line();
    assert.is((reply.error as { code: string }).code, 'LINE_TOO_LONG');
    assert.equal(await other.call('x'), { method: 'x', params: {} });
    raw.socket.write(Buffer.alloc(LINE_BYTES_MAX, 'b'));
    raw.socket.write('\n{"id":3,"method":"after"}\n');
    assert.is((await raw.line()).id, 3);
    raw.socket.destroy();
    other.close();
  });
});

test('a client too many is told so, and one that leaves makes room', async () => {
  await withServer(async (_, path) => {
    const clients = [];
    for (let n = 0; n < CONNECTIONS_MAX; n += 1) {
      const client = await ControlClient.connect(path);
      await client.call('x');
      clients.push(client);
    }
    const extra = new Raw(path);
    const reply = await extra.line();
    assert.is((reply.error as { code: string }).code, 'TOO_MANY_CONNECTIONS');
    await once(extra.socket, 'close');
    const first = clients.shift()!;
    first.close();
    await first.closed;
    // The server hears of it when it comes to it.
    for (;;) {
      const again = new Raw(path);
      again.socket.write('{"id":1,"method":"x"}\n');
      const answer = await again.line();
      again.socket.destroy();
      if ('result' in answer) break;
    }
    for (const client of clients) client.close();
  });
});

test('too many requests at once of one client are refused, not queued', async () => {
  let release!: () => void;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  await withServer(
    async (_, path) => {
      const raw = new Raw(path);
      for (let id = 0; id <= REQUESTS_MAX; id += 1) raw.socket.write(`{"id":${id},"method":"x"}\n`);
      const refused = await raw.line();
      assert.is(refused.id, REQUESTS_MAX);
      assert.is((refused.error as { code: string }).code, 'BUSY');
      release();
      for (let n = 0; n < REQUESTS_MAX; n += 1) assert.ok('result' in (await raw.line()));
      raw.socket.destroy();
    },
    async () => {
      await gate;
      return {};
    },
  );
});

test('a subscriber that does not read is disconnected, one that reads hears everything', async () => {
  await withServer(async (server, path) => {
    const deaf = new Raw(path);
    deaf.socket.write('{"id":1,"method":"events"}\n');
    await deaf.line();
    deaf.socket.pause();
    const heard: ControlEvent[] = [];
    const client = await ControlClient.connect(path);
    await client.subscribe((event) => heard.push(event));
    const event: ControlEvent = {
      volume: 'r0',
      kind: 'peer-up',
      peer: 'beta',
      text: 'x'.repeat(64 << 10),
      time_unix_ms: 1,
    };
    const count = 200;
    for (let n = 0; n < count; n += 1) {
      server.publish(event);
      await client.call('ping');
    }
    assert.is(heard.length, count);
    deaf.socket.resume();
    await once(deaf.socket, 'close');
    client.close();
  });
});

test('a second daemon is refused with the pid of the first, which goes on', async () => {
  await withServer(async (_, path) => {
    const error = await ControlServer.listen(path, echo).catch((e) => e);
    assert.is(error.code, 'ALREADY_RUNNING');
    assert.match(error.message, `already running, pid ${process.pid}`);
    const client = await ControlClient.connect(path);
    await client.call('ping');
    client.close();
    assert.equal(readdirSync(join(path, '..')), ['d.sock']);
  });
});

test('of daemons that start at once exactly one wins', async () => {
  const path = newPath();
  const results = await Promise.allSettled([1, 2, 3].map(() => ControlServer.listen(path, echo)));
  const winners = results.filter((result) => result.status === 'fulfilled');
  assert.is(winners.length, 1);
  for (const winner of winners) await winner.value.close();
});

test('a daemon starts in a folder whose lock was left by one that died', async () => {
  const path = newPath();
  mkdirSync(join(path, '..'), { recursive: true });
  const dead = spawnSync(process.execPath, ['-e', '']).pid;
  symlinkSync(String(dead), `${path}.lock`);
  const server = await ControlServer.listen(path, echo);
  assert.equal(readdirSync(join(path, '..')), ['d.sock']);
  await server.close();
});

test('a file in the place of the lock is told by name, with a way out', async () => {
  const path = newPath();
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(`${path}.lock`, '');
  const error = await ControlServer.listen(path, echo).catch((e) => e);
  assert.is(error.code, 'CONTROL_SOCKET');
  assert.match(error.message, /d\.sock\.lock is in the way, and no lock: remove it/);
  assert.equal(readdirSync(join(path, '..')), ['d.sock.lock']);
});

test('the socket of a daemon that died is replaced', async () => {
  const path = newPath();
  mkdirSync(join(path, '..'), { recursive: true });
  // A socket nobody listens on: libuv removes only the name under which it was bound.
  const dead = createServer();
  dead.listen(`${path}.x`);
  await once(dead, 'listening');
  const { renameSync } = await import('node:fs');
  renameSync(`${path}.x`, path);
  dead.close();
  await once(dead, 'close');
  assert.ok(lstatSync(path).isSocket());
  const server = await ControlServer.listen(path, echo);
  const client = await ControlClient.connect(path);
  assert.equal(await client.call('ping'), { pid: process.pid });
  client.close();
  await server.close();
  assert.equal(readdirSync(join(path, '..')), []);
});

test('a file in the place of the socket is not overwritten', async () => {
  const path = newPath();
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, 'precious');
  const error = await ControlServer.listen(path, echo).catch((e) => e);
  assert.is(error.code, 'CONTROL_SOCKET');
  assert.match(error.message, 'exists and is not a socket');
  assert.equal(readdirSync(join(path, '..')), ['d.sock']);
});

test('a socket path that is too long is refused with its length', () => {
  const config = { name: 'v'.repeat(63), node: 'n'.repeat(31) };
  assert.throws(
    () => socketPath(config, '/run/tidemark'),
    (error: TidemarkError) =>
      error.code === 'CONTROL_SOCKET' && /too long: 114 bytes \(1\.\.100\)/.test(error.message),
  );
  assert.is(socketPath({ name: 'r0', node: 'alpha' }, '/run/x'), '/run/x/r0-alpha.sock');
});

test('a client of nobody is told that no daemon runs; one whose daemon goes, that it went', async () => {
  const error = await ControlClient.connect(join(folder, 'none.sock')).catch((e) => e);
  assert.is(error.code, 'NOT_RUNNING');
  const path = newPath();
  const server = await ControlServer.listen(path, () => new Promise(() => undefined));
  const client = await ControlClient.connect(path);
  const pending = client.call('x').catch((e: TidemarkError) => e);
  await client.call('events');
  await server.close();
  assert.is(((await pending) as TidemarkError).code, 'DISCONNECTED');
  await client.closed;
});

test.run();
