/** Streams over node's sockets: how they read, pause and end. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  netTransport,
  type Stream,
  type StreamHandler,
} from '../../../lib/replication/transport.ts';
import { freePort } from './stage.ts';

interface Heard {
  bytes: number;
  /** The memory that was read into. */
  memories: Set<ArrayBufferLike>;
  reasons: string[];
  opened: Promise<void>;
  closed: Promise<void>;
  /** Resolves when so many bytes came. */
  until(bytes: number): Promise<void>;
}

function listenTo(stream: Stream, takes: () => boolean = () => true): Heard {
  let opened = () => {};
  let closed = () => {};
  let wake = () => {};
  const heard: Heard = {
    bytes: 0,
    memories: new Set(),
    reasons: [],
    opened: new Promise((resolve) => {
      opened = resolve;
    }),
    closed: new Promise((resolve) => {
      closed = resolve;
    }),
    async until(bytes) {
      while (heard.bytes < bytes) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
  const handler: StreamHandler = {
    opened: () => opened(),
    received: (bytes) => {
      heard.bytes += bytes.length;
      heard.memories.add(bytes.buffer);
      wake();
      return takes();
    },
    ending: (reason) => heard.reasons.push(reason),
    closed: () => closed(),
  };
  stream.handler = handler;
  return heard;
}

/** Two ends of one connection. */
async function pair(): Promise<{ dialled: Stream; accepted: Stream; stop: () => Promise<void> }> {
  const address = { host: '127.0.0.1', port: await freePort() };
  let took: (stream: Stream) => void = () => {};
  const accepted = new Promise<Stream>((resolve) => {
    took = resolve;
  });
  let listening: ReturnType<typeof netTransport.listen> | null = null;
  await new Promise<void>((resolve, reject) => {
    listening = netTransport.listen(address, {
      listening: resolve,
      failed: reject,
      connection: (stream) => took(stream),
    });
  });
  const dialled = netTransport.dial(address);
  const heard = listenTo(dialled);
  await heard.opened;
  return { dialled, accepted: await accepted, stop: () => listening!.close() };
}

for (const side of ['dialled', 'accepted'] as const) {
  test(`a stream that was ${side} reads all into one buffer`, async () => {
    const both = await pair();
    const other = both[side === 'dialled' ? 'accepted' : 'dialled'];
    const heard = listenTo(both[side]);
    const sent = listenTo(other);
    for (let i = 0; i < 64; ++i) other.write(Buffer.alloc(64 << 10, i));
    await heard.until(4 << 20);
    assert.is(heard.memories.size, 1);
    both[side].destroy();
    await Promise.all([heard.closed, sent.closed]);
    await both.stop();
  });

  test(`a stream that was ${side} is paused, goes on, and is told of the end`, async () => {
    const both = await pair();
    const other = both[side === 'dialled' ? 'accepted' : 'dialled'];
    let takes = false;
    const heard = listenTo(both[side], () => takes);
    const sent = listenTo(other);
    const bytes = 64 << 20;
    let written = false;
    other.write(Buffer.alloc(bytes), () => {
      written = true;
    });
    await heard.until(1);
    // A round trip the other way: what was not held back would have come meanwhile.
    both[side].write(Buffer.from('there'));
    await sent.until(5);
    assert.not(written);
    assert.ok(heard.bytes < bytes, `${heard.bytes} came though it was paused`);
    assert.ok(both[side].localAddress === '127.0.0.1' && both[side].remoteAddress === '127.0.0.1');
    takes = true;
    both[side].resume();
    await heard.until(bytes);
    assert.is(heard.bytes, bytes);
    other.destroySoon();
    await Promise.all([heard.closed, sent.closed]);
    assert.equal(heard.reasons, ['the peer closed the connection']);
    await both.stop();
  });
}

test.run();
