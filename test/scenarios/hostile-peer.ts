// Whoever connects, and a peer that lies: it costs them their connection, and nobody else's data, memory or service.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { HALF_OPEN_MAX } from '../../lib/replication/listener.ts';
import { encodeFrame, FRAME_TYPES, writtenRanges } from '../tools/frames.ts';
import { dial, Liar, type LiarOptions } from '../tools/liar.ts';
import { memoryOf } from '../tools/memory.ts';
import { SHADOWS } from '../tools/patience.ts';
import { type Scenario, type ScenarioContext, scenario, waitFor } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

const MIB = 1 << 20;
const SECRET = 'the secret of all';
/** What strangers and liars may cost a daemon: rings, buffers and garbage of JavaScript included. */
const GROWTH_MIB_MAX = 160 * SHADOWS;
const HALF_OPEN = 10_000;
const WAVE = 500;
const FRESH = '0000000000000001';
const RESYNC = 2;
/** The core's bounds (csrc/core/volume_impl.h): all of them the transfer log's. */
const ENTRIES_MAX = 8192;

/** The port that a node listens on itself, without the network between. */
function listenPort(node: ClusterNode): number {
  const config = readFileSync(node.paths.config, 'utf8');
  const entry = config.slice(config.indexOf(`"${node.name}": {`));
  return Number(/"listen": "127\.0\.0\.1:(\d+)"/.exec(entry)![1]);
}

/** One that knows the secret, and that `to` has not met yet. */
function stranger(node: string, to: ClusterNode, state: LiarOptions['state']): LiarOptions {
  return {
    port: listenPort(to),
    volume: to.volume,
    node,
    nodeId: randomBytes(16).toString('hex'),
    peer: to.name,
    secret: SECRET,
    state,
  };
}

/** Fails when the daemon's memory has grown by too much since; tells how much it was. */
function watchMemory(node: ClusterNode): () => number {
  const residentBytes = () => memoryOf(node.daemon!.pid).nowBytes;
  const before = residentBytes();
  return () => {
    const grown = Math.round((residentBytes() - before) / MIB);
    assert.ok(grown < GROWTH_MIB_MAX, `${node.name} has grown by ${grown} MiB`);
    return grown;
  };
}

/** Connections that say nothing, in waves; returns those of the last one that are still open. */
async function halfOpen(port: number, count: number): Promise<Socket[]> {
  let open: Socket[] = [];
  for (let done = 0; done < count; done += WAVE) {
    for (const socket of open) socket.destroy();
    const size = Math.min(WAVE, count - done);
    const wave = Array.from({ length: size }, () => {
      const socket = createConnection({ host: '127.0.0.1', port });
      socket.on('error', () => {});
      return socket.resume();
    });
    await Promise.all(
      wave.map(
        (socket) =>
          new Promise((settle) => {
            socket.once('connect', settle);
            socket.once('close', settle);
          }),
      ),
    );
    open = wave;
  }
  return open;
}

type Lie = [what: string, tell: (liar: Liar) => void, says: RegExp];

const payload = (bytes: number) => Buffer.alloc(bytes, 0x5a);

/** A frame that will be right, and takes days. */
function drip(liar: Liar): void {
  const { incarnation } = liar.params!;
  const bytes = encodeFrame('control', { incarnation, payload: payload(MIB) });
  let said = 0;
  const timer = setInterval(() => liar.socket.write(bytes.subarray(said, ++said)), 50);
  void liar.closed.then(() => clearInterval(timer));
}

/** Told to a primary that copies its data to the liar. */
const TO_A_SOURCE: readonly Lie[] = [
  [
    'an epoch that was never closed is durable',
    (liar) => liar.say('epochDone', { epoch: 4711 }),
    /epoch-done frame.*was not closed here/,
  ],
  [
    'a write that was never sent is written',
    (liar) => liar.say('written', { payload: writtenRanges([1_000_000_000, 1, 0]) }),
    /acknowledges write 1000000000|more writes than were sent/,
  ],
  [
    'four milliards of writes are written',
    (liar) => liar.say('written', { payload: writtenRanges([1, 0xffff_ffff, 0]) }),
    /acknowledges more writes than were sent/,
  ],
  [
    'a generation that was never offered is taken over',
    (liar) => liar.say('syncDoneAck', { offset: 4711 }),
    /sync-done-ack frame.*was not offered/,
  ],
  [
    'a write to a primary',
    (liar) => {
      liar.say('data', { sequence: 1, epoch: 1, length: 4096, payload: payload(4096) });
    },
    /data frame.*this node is primary/,
  ],
  [
    'a write far past the end',
    (liar) => liar.say('zeroes', { sequence: 1, epoch: 1, offset: 1n << 60n, length: 4096 }),
    /zeroes frame.*past the volume's end/,
  ],
  [
    'a write that wraps around',
    (liar) =>
      liar.say('zeroes', {
        sequence: 1,
        epoch: 1,
        offset: -512n & ((1n << 64n) - 1n),
        length: 4096,
      }),
    /length that cannot be right/,
  ],
  [
    'a payload of 4 GiB',
    (liar) => liar.say('control', { payloadBytes: 0xffff_ffff }),
    /length that cannot be right/,
  ],
  [
    'a frame of another link',
    (liar) => liar.say('ping', { incarnation: (liar.params!.incarnation ^ 1) >>> 0 }),
    /belongs to another link/,
  ],
  ['a header that rots', (liar) => liar.say('ping', { spoilHeader: 1 }), /header does not match/],
  [
    'a payload that rots',
    (liar) => liar.say('control', { payload: Buffer.from('{}'), spoilPayload: 1 }),
    /payload does not match/,
  ],
  [
    'a map nobody asked for',
    (liar) => liar.say('map', { flags: 4, payload: payload(1) }),
    /map frame/,
  ],
  ['both are primary', (liar) => liar.say('role', { offset: 1 }), /both nodes would be primary/],
  ['a role that is none', (liar) => liar.say('role', { offset: 2 }), /no such role/],
  [
    'a disk of no kind',
    (liar) => liar.say('disk', { offset: 7 }),
    /disk frame.*no such state of a disk/,
  ],
  [
    'a primary is to be the only copy',
    (liar) => liar.say('detach', { offset: 4711 }),
    /detach frame.*cannot be the only copy/,
  ],
  [
    'an answer to no detach',
    (liar) => liar.say('detachAck', { offset: 4711 }),
    /detach-ack frame.*nobody asked for it/,
  ],
  [
    'a read by one that has a disk',
    (liar) => liar.say('read', { sequence: 1, length: 4096 }),
    /read frame.*belongs to no primary without a disk/,
  ],
  [
    'data that nobody asked for',
    (liar) => liar.say('readReply', { sequence: 1, length: 4096, payload: payload(4096) }),
    /read-reply frame.*nobody asked for it/,
  ],
  [
    'more data than a read is long',
    (liar) => liar.say('readReply', { sequence: 1, length: 512, payload: payload(4096) }),
    /length that cannot be right/,
  ],
  [
    'the end of a resync from its target',
    (liar) => liar.say('syncDone', { offset: 4711 }),
    /sync-done frame/,
  ],
  ['a primary is outdated', (liar) => liar.say('outdate'), /primary cannot be outdated/],
  ['an answer to no question', (liar) => liar.say('outdateAck'), /nobody asked for it/],
  [
    'a barrier after nothing',
    (liar) => liar.say('barrier', { epoch: 1, offset: 7 }),
    /barrier frame/,
  ],
  [
    'a handshake in the middle',
    (liar) => liar.say('handshake', { payload: Buffer.from('{}') }),
    /handshake frame/,
  ],
  ['a frame byte by byte', drip, /frame does not end/],
  ['what is no frame', (liar) => liar.socket.write(randomBytes(4096)), /no frame/],
];

/** Told to a target by its source. */
const TO_A_TARGET: readonly Lie[] = [
  [
    'the resync has ended, and nothing was sent',
    (liar) => liar.say('syncDone', { offset: BigInt(`0x${liar.params!.syncGeneration}`) }),
    /sync-done frame.*did not come, or are not durable/,
  ],
  [
    'the resync has ended, and nothing is durable',
    (liar) => {
      liar.say('zeroes', { sequence: 1, epoch: 1, length: MIB, flags: RESYNC });
      liar.say('syncDone', { sequence: 1, offset: BigInt(`0x${liar.params!.syncGeneration}`) });
    },
    /sync-done frame.*did not come, or are not durable/,
  ],
  [
    'a piece past the end',
    (liar) =>
      liar.say('zeroes', { sequence: 1, epoch: 1, offset: 1n << 40n, length: MIB, flags: RESYNC }),
    /past the volume's end/,
  ],
  [
    'a sequence with a gap',
    (liar) => liar.say('zeroes', { sequence: 2, epoch: 1, length: 4096, flags: RESYNC }),
    /expected sequence 1/,
  ],
  [
    'an epoch of the future',
    (liar) => liar.say('zeroes', { sequence: 1, epoch: 9, length: 4096, flags: RESYNC }),
    /expected epoch 1/,
  ],
  [
    'an epoch without an end',
    (liar) => {
      for (let sequence = 1; sequence <= ENTRIES_MAX + 1; sequence += 1) {
        liar.say('zeroes', { sequence, epoch: 1, length: 512, flags: RESYNC });
      }
    },
    /more than a peer may have/,
  ],
  [
    'pieces that never make a chunk',
    (liar) => {
      for (let sequence = 1; sequence <= ENTRIES_MAX + 256; sequence += 1) {
        const epoch = Math.ceil(sequence / 128);
        liar.say('zeroes', {
          sequence,
          epoch,
          offset: sequence * 4096,
          length: 512,
          flags: RESYNC,
        });
        if (sequence % 128 === 0) liar.say('barrier', { epoch, sequence, offset: 128 });
      }
    },
    /pieces that make no whole chunks/,
  ],
];

/** Tells each lie over a link of its own, and checks that it cost the liar its link. */
async function tellAll(
  t: ScenarioContext,
  node: ClusterNode,
  lies: readonly Lie[],
  options: LiarOptions,
  meanwhile: () => Promise<void>,
): Promise<void> {
  for (const [what, tell, says] of lies) {
    t.log(`the lie: ${what}`);
    const liar = await linked(t, options);
    const from = node.daemon!.output.length;
    tell(liar);
    await liar.closed;
    await waitFor(
      t,
      `${node.name} says ${says} after '${what}'`,
      async () => says.test(node.daemon!.output.slice(from)) || undefined,
    );
    await meanwhile();
  }
}

/** The node may still be ending the link of before. */
function linked(t: ScenarioContext, options: LiarOptions): Promise<Liar> {
  return waitFor(t, 'a link of the liar', async () => {
    const liar = await Liar.dial(options);
    t.undo('hang up', () => liar.hangUp());
    try {
      await liar.until(() => liar.started);
      return liar;
    } catch {
      return undefined;
    }
  });
}

export function hostilePeerScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: ${HALF_OPEN} half-open connections, wrong and replayed proofs, and garbage cost neither memory nor the link`,
      async (t) => {
        const cluster = await Cluster.form(t, place, { volume: { secret: SECRET } });
        const { alpha, beta, link } = cluster;
        const port = listenPort(alpha);
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { count: 1000, depth: 4 });
        await load.more(100);
        const checkMemory = watchMemory(alpha);
        const goesOn = async () => {
          await load.more(20);
          const { peers } = await alpha.status();
          assert.equal(peers[0]!.connection, 'Connected');
        };

        t.log('wrong proofs');
        const options: LiarOptions = {
          port,
          volume: alpha.volume,
          node: 'beta',
          nodeId: (await alpha.status()).peers[0]!.node_id!,
          peer: 'alpha',
          secret: 'another secret',
          state: {},
        };
        for (let i = 0; i < 50; i += 1) {
          const liar = await Liar.dial(options);
          await liar.until(() => liar.ended !== null);
          assert.match(JSON.stringify(liar.ended), /"AUTH".*secrets differ/);
          liar.hangUp();
        }
        await goesOn();

        t.log('a proof that was good once');
        const knowing = await Liar.dial({ ...options, secret: SECRET });
        await knowing.until(() => knowing.ended !== null);
        assert.match(JSON.stringify(knowing.ended), /"BUSY"/);
        const again = await dial(port);
        const heard: Buffer[] = [];
        again.on('data', (bytes: Buffer) => heard.push(bytes));
        const refused = new Promise<void>((resolve) => again.once('close', () => resolve()));
        again.write(Buffer.concat(knowing.spoken));
        await refused;
        assert.match(Buffer.concat(heard).toString('latin1'), /"code":"AUTH"/);

        t.log('handshakes without an end, and garbage');
        for (let i = 0; i < 300; i += 1) {
          const socket = await dial(port);
          if (i % 3 === 0) socket.write(randomBytes(1 + i));
          if (i % 3 === 1) socket.write(knowing.spoken[0]!);
          if (i % 3 === 2) socket.write(encodeFrame('handshake', { payload: Buffer.from('{}') }));
          if (i % 2 === 0) socket.destroy();
          else t.undo('hang up', () => socket.destroy());
        }
        await goesOn();

        t.log(`${HALF_OPEN} half-open connections`);
        const open = await halfOpen(port, HALF_OPEN);
        t.undo('close the half-open', () => {
          for (const socket of open) socket.destroy();
        });
        await goesOn();
        t.log(`${checkMemory()} MiB more`);
        await waitFor(t, 'no more half-open connections than allowed', async () => {
          const left = open.filter((socket) => !socket.destroyed).length;
          return left <= HALF_OPEN_MAX || undefined;
        });

        t.log('the good peer comes back meanwhile');
        link.cut();
        await alpha.unlinked();
        link.join();
        await alpha.until('linked again', (_, peer) => peer.connection === 'Connected');
        assert.equal(await load.stop(), null);
        checkMemory();
        await cluster.synced();
        await cluster.assertSameData();
        await ledger.verifyWritten(device, 'the device');
        await beta.status();
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: a secondary that tells a primary ${TO_A_SOURCE.length} lies, floods it or never reads loses its link, and the primary goes on`,
      async (t) => {
        const cluster = await Cluster.create(t, place, {
          third: true,
          volume: { secret: SECRET },
          timeouts: { ping: 100, peerTimeout: 800 },
        });
        const { alpha, beta } = cluster;
        await alpha.up('--primary', '--force');
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { count: 1000, depth: 4 });
        await load.more(100);
        const { size_bytes, chunk_bytes } = await alpha.status();
        const checkMemory = watchMemory(alpha);
        const options = stranger('gamma', alpha, {
          disk: 'Inconsistent',
          flags: 0,
          volumeBytes: size_bytes,
          chunkBytes: chunk_bytes,
          current: FRESH,
        });
        await tellAll(t, alpha, TO_A_SOURCE, options, () => load.more(20));
        checkMemory();
        const gamma = (await alpha.status()).peers.find(({ name }) => name === 'gamma')!;
        assert.equal(gamma.dirty_bytes, size_bytes, 'something counts as copied');

        t.log('its disk fails');
        const failing = await linked(t, options);
        await failing.until(() => failing.frames.some(({ sequence }) => sequence > 0n));
        failing.say('written', { payload: writtenRanges([1, 1, -5]) });
        await failing.closed;
        await load.more(20);

        t.log('a flood from one that does not read');
        const flood = await linked(t, options);
        flood.socket.pause();
        const question = Buffer.from(JSON.stringify({ type: 'promote?', id: 1 }));
        const ping = { incarnation: flood.params!.incarnation };
        const batch = Buffer.concat(
          Array.from({ length: 500 }, (_, i) =>
            i % 2 === 0
              ? encodeFrame('ping', ping)
              : encodeFrame('control', { ...ping, payload: question }),
          ),
        );
        let flooding = true;
        void flood.closed.then(() => {
          flooding = false;
        });
        while (flooding) {
          if (flood.socket.write(batch)) await new Promise((resolve) => setImmediate(resolve));
          else {
            const drained = new Promise<void>((resolve) => flood.socket.once('drain', resolve));
            await Promise.race([drained, flood.closed]);
          }
          checkMemory();
        }
        await load.more(100);
        t.log(`${checkMemory()} MiB more`);

        t.log('the good peer comes');
        await beta.up();
        await alpha.until('linked', (volume) =>
          volume.peers.some(
            ({ name, connection }) => name === 'beta' && connection === 'Connected',
          ),
        );
        assert.equal(await load.stop(), null);
        checkMemory();
        await cluster.synced();
        await cluster.assertSameData();
        await ledger.verifyWritten(device, 'the device');
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: a source that tells ${TO_A_TARGET.length} lies, one byte now and then, and endless questions cost their connections, and the copy is not taken for whole`,
      async (t) => {
        const cluster = await Cluster.create(t, place, { volume: { secret: SECRET } });
        const { beta } = cluster;
        await beta.up();
        const { size_bytes, chunk_bytes } = await beta.status();
        const checkMemory = watchMemory(beta);
        const options = stranger('alpha', beta, {
          role: 'primary',
          volumeBytes: size_bytes,
          chunkBytes: chunk_bytes,
          current: randomBytes(8).toString('hex'),
        });
        t.log('one byte now and then');
        const slow = await dial(options.port);
        t.undo('hang up the slow one', () => slow.destroy());
        const slowEnd = new Promise<void>((resolve) => slow.once('close', () => resolve()));
        slow.resume();
        const hello = encodeFrame('handshake', { payload: payload(5000) });
        let said = 0;
        const drip = setInterval(() => {
          if (!slow.destroyed && said < hello.length) slow.write(hello.subarray(said, ++said));
        }, 100);
        t.undo('stop dripping', () => clearInterval(drip));

        const meanwhile = async () => {
          const { disk, peers } = await beta.status();
          assert.equal(disk, 'Inconsistent');
          assert.ok(peers[0]!.dirty_bytes > 0);
        };
        await tellAll(t, beta, TO_A_TARGET, options, meanwhile);

        t.log('asks and asks');
        const asking = await linked(t, options);
        // In one piece: a question that comes when the one before was answered is none too many.
        asking.socket.cork();
        for (let i = 0; i < 2; i += 1) asking.say('outdate');
        asking.socket.uncork();
        await asking.closed;
        const { length } = asking.heard(FRAME_TYPES.outdateAck);
        assert.ok(length <= 1, `${length} answers`);
        await slowEnd;
        assert.ok(said > 10 && said < hello.length, `hung up on after ${said} bytes`);
        checkMemory();
        await assert.rejects(beta.cli(['primary']), /UpToDate/);
        await cluster.down();
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}
