// Two volumes of one process, linked by handing each what the other sends: the link's bytes, their flow
// control, and the events that tell of it. Sockets and the handshake's decisions are lib/replication's.

import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadAddon } from '../../../lib/binding/addon.ts';
import type { NativeEvent, NativeVolume } from '../../../lib/binding/native.ts';
import { type LinkDecision, linkParams } from './link_params.ts';
import { BACKING_BYTES, makeBackingFile, statusOfNow } from './scratch.ts';

const addon = loadAddon();
const INCARNATION = 0x1234;

class Side {
  readonly backing: string;
  readonly volumeBytes: number;
  readonly volume: NativeVolume;
  readonly heard: NativeEvent[] = [];
  /** Times that not all bytes found room at the other side. */
  refused = 0;
  #peer: Side | undefined;
  #waiting: Array<() => void> = [];

  static async make(name: string, data?: Buffer): Promise<Side> {
    const backing = makeBackingFile();
    if (data !== undefined) writeFileSync(backing, data);
    const { volumeBytes } = await addon.create({ backing, name });
    return new Side(name, backing, volumeBytes);
  }

  private constructor(name: string, backing: string, volumeBytes: number) {
    this.backing = backing;
    this.volumeBytes = volumeBytes;
    this.volume = addon.open(
      { name, backing },
      {
        events: (events) => {
          this.heard.push(...events);
          for (const wake of this.#waiting.splice(0)) wake();
        },
        outgoing: () => this.#pump(),
        room: () => {
          const peer = this.#peer;
          if (peer !== undefined) peer.#pump();
        },
      },
    );
  }

  #pump(): void {
    for (;;) {
      const bytes = this.volume.outgoing();
      if (bytes.length === 0 || this.#peer === undefined) return;
      const taken = this.#peer.volume.feed(bytes);
      this.volume.consumed(taken);
      if (taken < bytes.length) {
        this.refused += 1;
        return;
      }
    }
  }

  connect(peer: Side | undefined): void {
    this.#peer = peer;
    this.#pump();
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    const deadline = Date.now() + 30_000;
    while (!condition()) {
      assert.ok(
        Date.now() < deadline,
        `${what}: ${JSON.stringify([this.heard, this.volume.status()])}`,
      );
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        setTimeout(resolve, 50);
      });
    }
  }

  has(kind: NativeEvent['kind']): boolean {
    return this.heard.some((event) => event.kind === kind);
  }

  data(): Buffer {
    return readFileSync(this.backing).subarray(0, this.volumeBytes);
  }
}

/** A full resync from `source` to `target`, as the handshake would have decided. */
async function link(source: Side, target: Side): Promise<void> {
  const nobody = '0'.repeat(31);
  const sourceId = (await source.volume.handshakeState(`${nobody}1`)).nodeId;
  const targetId = (await target.volume.handshakeState(`${nobody}1`)).nodeId;
  const sourceState = await source.volume.handshakeState(targetId);
  const targetState = await target.volume.handshakeState(sourceId);
  const decision: Omit<LinkDecision, 'side'> = {
    incarnation: INCARNATION,
    protocol: 'C',
    full: true,
    syncGeneration: randomBytes(8).toString('hex'),
  };
  source.volume.resetLinkBytes();
  target.volume.resetLinkBytes();
  await Promise.all([
    source.volume.linkPrepare(
      linkParams(sourceState, targetState, { ...decision, side: 'source' }),
    ),
    target.volume.linkPrepare(
      linkParams(targetState, sourceState, { ...decision, side: 'target' }),
    ),
  ]);
  assert.equal(await Promise.all([source.volume.linkStart(), target.volume.linkStart()]), [
    true,
    true,
  ]);
  source.connect(target);
  target.connect(source);
}

test('a resync through the two rings copies every byte, and control texts pass in order', async () => {
  const data = randomBytes(BACKING_BYTES);
  const source = await Side.make('source', data);
  const target = await Side.make('target');
  try {
    await source.volume.promote(true);
    await link(source, target);
    const connected = () =>
      source.volume.status().connection === 'Connected' &&
      target.volume.status().connection === 'Connected';
    await source.until('the resync ends', connected);
    await target.until('the target knows', () => target.has('syncFinished'));
    const received = statusOfNow(target.volume);
    assert.is(received.disk, 'UpToDate');
    assert.is(received.resyncReceivedBytes, source.volumeBytes);
    assert.is(statusOfNow(source.volume).peers[0]?.dirtyChunks, 0);

    const texts = Array.from({ length: 50 }, (_, i) => `{"n":${i}}`);
    for (const text of texts) assert.is(await source.volume.sendControl(text), true);
    const controls = () => target.heard.filter(({ kind }) => kind === 'control');
    await target.until('all control texts', () => controls().length >= texts.length);
    assert.equal(
      controls().map(({ text }) => text),
      texts,
    );

    source.volume.linkStop('the test ends it');
    await source.until('idle', () => source.has('linkIdle'));
    const order = source.heard.map(({ kind }) => kind);
    assert.ok(order.indexOf('linkDown') < order.indexOf('linkIdle'));
    assert.match(source.heard.find(({ kind }) => kind === 'linkDown')!.text, 'the test ends it');
  } finally {
    source.connect(undefined);
    target.connect(undefined);
    await Promise.all([source.volume.close(), target.volume.close()]);
  }
  assert.is(Buffer.compare(source.data(), target.data()), 0);
  assert.is(Buffer.compare(source.data(), data.subarray(0, source.volumeBytes)), 0);
});

test('bytes that are no frames end the link, and say why', async () => {
  const source = await Side.make('source');
  const target = await Side.make('target');
  try {
    await source.volume.promote(true);
    await link(source, target);
    target.connect(undefined);
    source.connect(undefined);
    target.volume.feed(randomBytes(4096));
    await target.until('the link is down', () => target.has('linkDown'));
    assert.ok(target.heard.find(({ kind }) => kind === 'linkDown')!.text.length > 0);
    await target.until('idle', () => target.has('linkIdle'));
  } finally {
    // A clean stop would wait for the other side, which hears nothing any more.
    await Promise.all([source.volume.close(true), target.volume.close()]);
  }
});

test('a receive ring that nobody empties takes no more than it holds', async () => {
  const { volume } = await Side.make('alone');
  try {
    const piece = new Uint8Array(3 * 1024 * 1024);
    let taken = 0;
    for (let i = 0; i < 100; ++i) {
      const some = volume.feed(piece);
      assert.ok(some <= piece.length);
      taken += some;
      if (some < piece.length) break;
    }
    // Without a link the volume may drop what comes, but it never takes more than a piece at once.
    assert.ok(taken > 0);
    volume.resetLinkBytes();
    assert.is(volume.feed(piece), piece.length);
  } finally {
    await volume.close();
  }
});

test.run();
