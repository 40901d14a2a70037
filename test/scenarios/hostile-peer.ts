// Whoever connects, and a peer that lies: it costs them their connection, and nobody else's data, memory or service.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ControlClient } from '../../lib/control/client.ts';
import type { StatusJson, VolumeJson } from '../../lib/control/status.ts';
import { HALF_OPEN_MAX } from '../../lib/replication/listener.ts';
import { Crowd, filesOf } from '../tools/crowd.ts';
import { encodeFrame, FRAME_TYPES, writtenRanges } from '../tools/frames.ts';
import { dial, Liar, type LiarOptions } from '../tools/liar.ts';
import { memoryOf } from '../tools/memory.ts';
import { PATIENCE, SHADOWS } from '../tools/patience.ts';
import { type Scenario, type ScenarioContext, scenario, waitFor } from '../vm/guest/support.ts';
import { assertBetween } from './checks.ts';
import { Cluster, SECOND_VOLUME } from './cluster.ts';
import { Ledger, type Load } from './ledger.ts';
import { IN_A_HANDSHAKE, type Lie, payload, TO_A_SOURCE, TO_A_TARGET } from './lies.ts';
import type { ClusterNode } from './node.ts';
import type { Device, Place } from './place.ts';

const MIB = 1 << 20;
const SECRET = 'the secret of all';
/** What strangers and liars may cost a daemon: rings, buffers and garbage of JavaScript included. */
const GROWTH_MIB_MAX = 160 * SHADOWS;
const HALF_OPEN = 10_000;
/** Files that a daemon may have beside those connections: of its control clients, and of who is about to be let go of. */
const FILES_SPARE = 16;
const FRESH = '0000000000000001';

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

/** The volumes whose peers were lost from now on. */
async function watchLosses(t: ScenarioContext, node: ClusterNode): Promise<string[]> {
  const control = await ControlClient.connect(node.socket);
  t.undo('stop watching', () => control.close());
  const lost: string[] = [];
  await control.subscribe(({ kind, volume }) => {
    if (kind === 'peer-down') lost.push(volume);
  });
  return lost;
}

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

/** The reason for which a handshake is refused. */
function refused(t: ScenarioContext, options: LiarOptions): Promise<string> {
  return waitFor(t, 'a refusal', async () => {
    const liar = await Liar.dial(options);
    t.undo('hang up', () => liar.hangUp());
    await liar.until(() => liar.ended !== null || liar.started);
    const end = JSON.stringify(liar.ended);
    liar.hangUp();
    // The node may still be ending the handshake of before.
    return /"BUSY"/.test(end) ? undefined : end;
  });
}

/** Tells other numbers of its copy than it counts with. */
function stateWith(fields: Record<string, unknown>): LiarOptions['tamper'] {
  return (message) => (message.type === 'state' ? { ...message, ...fields } : message);
}

/** The other volume of a victim: linked with a good peer, and written to all the time. */
class GoodVolume {
  readonly load: Load;
  private readonly ledger: Ledger;
  private readonly device: Device;
  private readonly status: () => Promise<VolumeJson>;

  private constructor(device: Device, status: () => Promise<VolumeJson>) {
    this.device = device;
    this.status = status;
    this.ledger = new Ledger(device.sizeBytes);
    this.load = this.ledger.load(device, { count: 1000, depth: 4 });
  }

  static async open(t: ScenarioContext, place: Place, node: ClusterNode): Promise<GoodVolume> {
    const status = async () => {
      const { volumes } = await node.call<StatusJson>('status', { volume: SECOND_VOLUME });
      return volumes[0]!;
    };
    const { device: path, size_bytes } = await waitFor(t, 'the good peer', async () => {
      const volume = await status();
      const [peer] = volume.peers;
      return (peer!.connection === 'Connected' && peer!.dirty_chunks === 0 && volume) || undefined;
    });
    const device = await place.open(path!, SECOND_VOLUME, size_bytes);
    t.undo('close the second device', () => void device.close().catch(() => {}));
    return new GoodVolume(device, status);
  }

  /** Throws unless it is still linked, and all that was written is there. */
  async end(): Promise<void> {
    assert.equal(await this.load.stop(), null);
    await this.device.flush();
    const { peers } = await this.status();
    assert.deepEqual([peers[0]!.connection, peers[0]!.dirty_chunks], ['Connected', 0]);
    await this.ledger.verifyWritten(this.device, 'the second device');
    await this.device.close();
  }
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
        const files = filesOf(alpha.daemon!.pid);
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

        t.log(`${HALF_OPEN} half-open connections, all held`);
        const lost = await watchLosses(t, alpha);
        const crowd = Crowd.start(t, port, HALF_OPEN);
        let most = 0;
        while (!crowd.isComplete) {
          await goesOn();
          most = Math.max(most, filesOf(alpha.daemon!.pid));
        }
        await goesOn();
        assert.deepEqual(lost, [], 'the good link was lost');
        t.log(`${checkMemory()} MiB and at most ${most - files} files more`);
        assertBetween(most - files, 0, HALF_OPEN_MAX + FILES_SPARE, 'files more');

        t.log('the good peer comes back meanwhile');
        link.cut();
        await alpha.unlinked();
        link.join();
        await alpha.until('linked again', (_, peer) => peer.connection === 'Connected');
        assert.ok(crowd.isComplete);
        assert.equal(await load.stop(), null);
        checkMemory();
        await crowd.leave();
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
          second: true,
          volume: { secret: SECRET },
          timeouts: { ping: 100, peerTimeout: 3_000 * PATIENCE },
        });
        const { alpha, beta } = cluster;
        await alpha.up('--primary', '--force');
        // One link a volume: the liar's, of the first one.
        await alpha.call('disconnect', { volume: alpha.volume, peer: 'beta' });
        await beta.up();
        const device = await alpha.open();
        const ledger = new Ledger(device.sizeBytes);
        const load = ledger.load(device, { count: 1000, depth: 4 });
        await load.more(100);
        const good = await GoodVolume.open(t, place, alpha);
        const lost = await watchLosses(t, alpha);
        const goesOn = async () => {
          await load.more(20);
          await good.load.more(20);
        };
        const { size_bytes, chunk_bytes } = await alpha.status();
        const checkMemory = watchMemory(alpha);
        const options = stranger('gamma', alpha, {
          disk: 'Inconsistent',
          flags: 0,
          volumeBytes: size_bytes,
          chunkBytes: chunk_bytes,
          current: FRESH,
        });
        for (const [what, fields, says] of IN_A_HANDSHAKE) {
          t.log(`the lie of the handshake: ${what}`);
          assert.match(await refused(t, { ...options, tamper: stateWith(fields) }), says, what);
          await goesOn();
        }
        t.log('the lie of the handshake: marks for more chunks than there are');
        const marked = { dirtyChunks: Number.MAX_SAFE_INTEGER };
        (await linked(t, { ...options, tamper: stateWith(marked) })).hangUp();
        await goesOn();
        checkMemory();
        await tellAll(t, alpha, TO_A_SOURCE, options, goesOn);
        checkMemory();
        const gamma = (await alpha.status()).peers.find(({ name }) => name === 'gamma')!;
        assert.equal(gamma.dirty_bytes, size_bytes, 'something counts as copied');

        t.log('its disk fails');
        const failing = await linked(t, options);
        await failing.until(() => failing.frames.some(({ sequence }) => sequence > 0n));
        failing.say('written', { payload: writtenRanges([1, 1, -5]) });
        await failing.closed;
        await goesOn();

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
        await good.load.more(100);
        t.log(`${checkMemory()} MiB more`);
        assert.ok(lost.includes(alpha.volume), 'the links of the liar are told');
        assert.ok(!lost.includes(SECOND_VOLUME), "the good peer's link was lost");
        await good.end();

        t.log('the good peer comes');
        await alpha.call('connect', { volume: alpha.volume, peer: 'beta' });
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
