import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import {
  BadRequest,
  CONNECTIONS_MAX,
  LINE_BYTES_MAX,
  Params,
  parseRequest,
} from '../../../lib/control/protocol.ts';
import { ControlServer } from '../../../lib/control/server.ts';
import { scratchFolder } from '../config/scratch.ts';
import { anything, options } from '../properties.ts';

const folder = scratchFolder('control-properties');
const json = (value: unknown) =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? `${each}` : each)) ?? 'null';

/** Almost a request. */
const request = fc
  .record(
    {
      id: fc.oneof(fc.nat(), fc.string(), anything(1)),
      method: fc.oneof(fc.constantFrom('ping', 'status', 'x'), fc.string(), anything(1)),
      params: fc.oneof(fc.dictionary(fc.string(), anything(1)), anything(2)),
    },
    { requiredKeys: [] },
  )
  .map(json);
const line = fc.oneof(
  { weight: 4, arbitrary: request },
  { weight: 2, arbitrary: anything(3).map(json) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 20_000 }).map((depth) => '['.repeat(depth)) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 1, max: 5000 }).map((depth) => '{"params":'.repeat(depth)),
  },
);
const bytes = fc.oneof(
  { weight: 6, arbitrary: line.map((text) => Buffer.from(text)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array)) },
);

test('property: any line is a request, or told what is wrong with it', () => {
  fc.assert(
    fc.property(bytes, (raw) => {
      const parsed = parseRequest(raw);
      if (parsed instanceof BadRequest) {
        assert.is(parsed.code, 'BAD_REQUEST');
        assert.ok(parsed.message.length > 0 && parsed.message.length < 1000);
        return;
      }
      assert.type(parsed.method, 'string');
      assert.ok(parsed.id === null || ['string', 'number'].includes(typeof parsed.id));
      // Parameters that are not asked for are refused by name, and the others by their kind.
      try {
        const params = new Params(parsed, ['a', 'b']);
        assert.ok(['string', 'undefined'].includes(typeof params.text('a')));
        assert.type(params.flag('b'), 'boolean');
      } catch (error) {
        assert.instance(error, TidemarkError);
        assert.is((error as TidemarkError).code, 'BAD_REQUEST');
      }
    }),
    options(1500),
  );
});

/** How many lines will be answered: all but empty ones. */
function linesOf(stream: Buffer): number {
  let count = 0;
  let start = 0;
  for (let at = stream.indexOf(10); at >= 0; at = stream.indexOf(10, start)) {
    if (at > start) count += 1;
    start = at + 1;
  }
  return count;
}

async function converse(path: string, pieces: readonly Buffer[]): Promise<string[]> {
  const socket: Socket = createConnection(path);
  const heard: Buffer[] = [];
  socket.on('data', (data: Buffer) => heard.push(data));
  await once(socket, 'connect');
  for (const piece of pieces) {
    if (!socket.write(piece)) await once(socket, 'drain');
    await new Promise((resolve) => setImmediate(resolve));
  }
  socket.end();
  await once(socket, 'close');
  return Buffer.concat(heard).toString('utf8').split('\n').slice(0, -1);
}

test('property: each line of any stream is answered once, however it is cut, and the next one too', async () => {
  const server = await ControlServer.listen(join(folder, 'd.sock'), async ({ method, params }) => {
    if (method === 'x') throw new TidemarkError('X', 'as asked');
    return { method, keys: Object.keys(params).length };
  });
  const cuts = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(fc.array(bytes, { maxLength: 12 }), cuts, async (lines, sizes) => {
      const stream = Buffer.concat([
        ...lines.flatMap((each) => [each, Buffer.from('\n')]),
        Buffer.from('\n{"id":"last","method":"ping"}\n'),
      ]);
      const pieces: Buffer[] = [];
      for (let at = 0, turn = 0; at < stream.length; turn += 1) {
        const size = turn < sizes.length ? sizes[turn]! : stream.length - at;
        pieces.push(stream.subarray(at, at + size));
        at += size;
      }
      const replies = await converse(server.path, pieces);
      // 'events' is a request like others, and nothing is published here.
      assert.is(replies.length, linesOf(stream));
      for (const reply of replies) {
        const { id, result, error } = JSON.parse(reply);
        assert.ok((result === undefined) !== (error === undefined), reply);
        assert.ok(id === null || ['string', 'number'].includes(typeof id), reply);
        if (error) assert.ok(typeof error.code === 'string' && typeof error.message === 'string');
      }
      assert.ok(replies.some((reply) => JSON.parse(reply).id === 'last'));
    }),
    options(100),
  );
  // Lines without an end, and a line within the bound, from as many clients as there may be and more.
  const huge = Buffer.alloc(3 * LINE_BYTES_MAX, 0x61);
  const [tooLong, ...more] = await converse(server.path, [
    huge,
    Buffer.from('\n{"method":"ping"}\n'),
  ]);
  assert.match(tooLong!, /LINE_TOO_LONG/);
  assert.is(more.length, 1);
  const clients = Array.from({ length: CONNECTIONS_MAX + 30 }, () =>
    converse(server.path, [Buffer.from('{"id":1,"method":"ping"'), Buffer.from('}\n')]).catch(
      () => [],
    ),
  );
  const answers = (await Promise.all(clients)).flat();
  const served = answers.filter((text) => text.includes('"result"')).length;
  assert.ok(served >= CONNECTIONS_MAX, `${served} were served`);
  assert.is(answers.filter((text) => !/"result"|TOO_MANY_CONNECTIONS/.test(text)).length, 0);
  assert.is((await converse(server.path, [Buffer.from('{"method":"ping"}\n')])).length, 1);
  await server.close();
});

test.run();
