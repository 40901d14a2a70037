import { connect, createServer, type Socket } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HALF_OPEN_MAX } from '../../../lib/replication/listener.ts';
import { duo, fastClock, freePort, StageNode, shutdown } from './stage.ts';

const B1 = '00000000000000b1';
const C2 = '00000000000000c2';

const sleep = (ms: number) => new Promise<void>((resolve) => fastClock.after(ms, resolve));

async function rejection(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await promise;
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('it was expected to fail');
}

async function dial(port: number): Promise<{ socket: Socket; closed: Promise<void> }> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
  await new Promise<void>((resolve) => socket.on('connect', () => resolve()));
  return { socket, closed };
}

test('two nodes link up, and both know each other', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  const link = await a.connected();
  await b.connected();
  assert.is(link.nodeId, b.native.state.nodeId);
  assert.is(link.slot, 0);
  assert.is(link.reason, '');
  assert.is(a.native.prepared.at(-1)?.incarnation, b.native.prepared.at(-1)?.incarnation);
  assert.equal(a.seen('peer-up').length, 1);
  await shutdown(a, b);
  assert.ok(a.native.closed && b.native.closed);
});

test('whoever starts first and whoever dials, there is one link', async () => {
  for (let i = 0; i < 10; i++) {
    const [a, b] = await duo();
    const [first, second] = i % 2 === 0 ? [a, b] : [b, a];
    await first.start();
    if (i % 3 === 0) await sleep(50 * i);
    await second.start();
    await Promise.all([a.connected(), b.connected()]);
    await sleep(1500);
    await Promise.all([a.connected(), b.connected()]);
    assert.is(a.native.prepared.length, 1, `round ${i}`);
    assert.is(b.native.prepared.length, 1, `round ${i}`);
    await shutdown(a, b);
  }
});

test('a node that only dials and one that only listens', async () => {
  const a = new StageNode('alpha', await freePort());
  const b = new StageNode('beta', await freePort());
  await a.open([b], { listen: null });
  await b.open([a]);
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await shutdown(a, b);
});

test('a state that changes during the handshake is tried again', async () => {
  const [a, b] = await duo();
  a.native.failures = ['LINK_STALE', 'LINK_STALE'];
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  assert.is(a.native.prepared.length, 1);
  await shutdown(a, b);
});

test('wrong secret: refused on both sides, no link', async () => {
  const a = new StageNode('alpha', await freePort());
  const b = new StageNode('beta', await freePort());
  await a.open([b]);
  await b.open([a], { secret: 'other' });
  await Promise.all([a.start(), b.start()]);
  assert.match((await a.until((link) => link.connection === 'Refused')).reason, /secret/);
  await b.until((link) => link.connection === 'Refused');
  assert.is(a.native.prepared.length, 0);
  await shutdown(a, b);
});

test('split brain stops both; the side that yields resolves it from one side', async () => {
  const [a, b] = await duo({ a: { bitmap: B1 }, b: { current: C2, bitmap: B1 } });
  await Promise.all([a.start(), b.start()]);
  await a.until((link) => link.connection === 'SplitBrain');
  await b.until((link) => link.connection === 'SplitBrain');
  await b.host.connect('r0', undefined, true);
  await Promise.all([a.connected(), b.connected()]);
  assert.is(b.native.prepared.at(-1)?.side, 'target');
  assert.is(a.native.prepared.at(-1)?.side, 'source');
  await shutdown(a, b);
});

test('a primary cannot yield', async () => {
  const [a, b] = await duo({ a: { role: 'primary' } });
  assert.is((await rejection(a.host.connect('r0', 'beta', true))).code, 'REFUSED');
  await shutdown(a, b);
});

test('a peer that comes back with another identity and with data is refused', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await a.connected();
  await b.host.close('r0');
  await b.open([a]);
  await b.start();
  const link = await b.until((each) => each.connection === 'Refused');
  assert.match(link.reason, /'beta' had identity .* before/);
  await shutdown(a, b);
});

test('promotion: the peer is asked, roles are told, a second primary is refused', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await a.host.promote('r0', false);
  await b.until(() => b.seen('link-state').some((each) => /primary/.test(each.text)));
  assert.is((await b.host.status('r0')).native.peerRole, 'primary');
  const error = await rejection(b.host.promote('r0', true));
  assert.is(error.code, 'PEER_REFUSED');
  assert.match(error.message, /'beta' cannot become primary of 'r0': the peer is primary/);
  await a.host.demote('r0');
  await b.until(() => b.seen('link-state').some((each) => /secondary/.test(each.text)));
  await b.host.promote('r0', false);
  assert.is((await b.host.status('r0')).native.role, 'primary');
  await shutdown(a, b);
});

test('R18: whose I/O waits since a crash stays secondary without force once it followed another primary', async () => {
  const a = new StageNode('alpha', await freePort());
  const b = new StageNode('beta', await freePort());
  b.addon.state = { role: 'primary' };
  await a.open([b], { native: { name: 'r0', backing: '/nowhere', suspended: true } });
  await b.open([a]);
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await b.host.close('r0');
  await a.until((link) => link.connection !== 'Connected');
  const error = await rejection(a.host.promote('r0', false));
  assert.is(error.code, 'OVERTAKEN');
  assert.match(error.message, /what waits here is older than what came from 'beta'/);
  await a.host.promote('r0', true);
  assert.is((await a.host.status('r0')).native.role, 'primary');
  await shutdown(a);
});

test('of two promotions at once exactly one succeeds', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  for (let i = 0; i < 10; i++) {
    const results = await Promise.allSettled([
      a.host.promote('r0', false),
      b.host.promote('r0', false),
    ]);
    const done = results.map((each) => each.status);
    assert.equal(done.sort(), ['fulfilled', 'rejected'], `round ${i}`);
    await Promise.all([a.host.demote('r0'), b.host.demote('r0')]);
  }
  await shutdown(a, b);
});

test('disconnect is orderly: a primary outdates its peer, which sees no error', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await a.host.promote('r0', false);
  await a.host.disconnect('r0');
  assert.is(a.native.outdated, 1);
  assert.is((await a.link()).connection, 'StandAlone');
  await b.until((link) => link.connection === 'Unconnected');
  assert.equal(b.seen('peer-down')[0]?.text, '');
  await b.until((link) => /stay disconnected/.test(link.reason));
  await a.host.connect('r0');
  await Promise.all([a.connected(), b.connected()]);
  await shutdown(a, b);
});

test('a primary that stops steps down first, and leaves its peer as new as it is', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await a.host.promote('r0', false);
  await a.host.close('r0');
  assert.is(a.native.outdated, 0);
  assert.is(a.native.state.role, 'secondary');
  await b.until((link) => link.connection === 'Unconnected');
  assert.equal(b.seen('peer-down')[0]?.text, '');
  await shutdown(a, b);
});

test('a primary that cannot step down as it stops outdates its peer', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await a.host.promote('r0', false);
  a.native.demote = () => Promise.reject(new Error('requests are under way'));
  await a.host.close('r0');
  assert.is(a.native.outdated, 1);
  await shutdown(a, b);
});

test('a connection that breaks is an error, and comes back', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  a.native.linkStop('a bad frame');
  await b.until(() => b.seen('peer-down').length === 1);
  assert.match(b.seen('peer-down')[0]!.text, /closed|ECONNRESET/);
  assert.is(a.seen('peer-down')[0]?.text, 'a bad frame');
  await Promise.all([a.connected(), b.connected()]);
  await shutdown(a, b);
});

test('invalidate: the link ends, the copy is invalidated, the link comes back', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  await b.host.invalidate('r0', '');
  assert.equal(b.native.invalidated, [a.native.state.nodeId]);
  await Promise.all([a.connected(), b.connected()]);
  assert.is(b.native.prepared.at(-1)?.side, 'target');
  assert.is(a.seen('peer-down')[0]?.text, '');
  await shutdown(a, b);
});

test('a peer that policy does not select is refused, seen, and linked once selected', async () => {
  const [a, b] = await duo();
  const values = { windowWrites: 1, windowBytes: 4096, flushIntervalMs: 1000 };
  await a.host.setPolicy('r0', { ...values, selectedPeers: [] });
  await Promise.all([a.start(), b.start()]);
  await b.until((link) => /not selected/.test(link.reason));
  assert.ok(a.seen('peer-seen').length > 0);
  await a.host.setPolicy('r0', { ...values, selectedPeers: ['beta'] });
  await Promise.all([a.connected(), b.connected()]);
  await a.host.setPolicy('r0', { ...values, selectedPeers: [] });
  await b.until((link) => /not selected/.test(link.reason));
  await shutdown(a, b);
});

test('askPeers: nothing speaks against going on', async () => {
  const [a, b] = await duo();
  await b.start();
  const asking = a.host.askPeers('r0', 20_000);
  await a.start();
  assert.is(await asking, null);
  await Promise.all([a.connected(), b.connected()]);
  await shutdown(a, b);
});

test('askPeers: the peer is primary, or newer, also once this node is primary again', async () => {
  const newer = { current: C2, bitmap: '00000000000000c1' };
  const cases = [
    { b: { role: 'primary' }, expect: /'beta' is primary/ },
    { b: newer, expect: /'beta' is newer/ },
    { a: { role: 'primary' }, b: newer, expect: /'beta' is newer/ },
    { a: { bitmap: B1 }, b: { current: C2, bitmap: B1 }, expect: /split brain/ },
  ] as const;
  for (const { expect, ...states } of cases) {
    const [a, b] = await duo(states);
    await b.start();
    await a.start();
    assert.match((await a.host.askPeers('r0', 20_000)) ?? '', expect);
    await shutdown(a, b);
  }
});

test('askPeers: a peer that cannot be reached is waited for, then not', async () => {
  const [a, b] = await duo();
  await a.start();
  const start = fastClock.now();
  assert.is(await a.host.askPeers('r0', 2_000), null);
  assert.ok(fastClock.now() - start >= 2_000);
  await shutdown(a, b);
});

test('garbage costs its socket and nothing else', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  const { socket, closed } = await dial(a.port);
  socket.write('GET / HTTP/1.1\r\n\r\n');
  await closed;
  const unfinished = await dial(a.port);
  unfinished.socket.write(Buffer.from('FAKE\xff\xff\xff\x00', 'latin1'));
  unfinished.socket.write(Buffer.alloc(200_000));
  await unfinished.closed;
  const silent = await dial(a.port);
  await silent.closed;
  assert.is((await a.link()).connection, 'Connected');
  assert.is(a.seen('peer-down').length, 0);
  await shutdown(a, b);
});

test('connections that prove nothing are bounded, and keep no peer out', async () => {
  const a = new StageNode('alpha', await freePort());
  const b = new StageNode('beta', await freePort());
  // Only beta dials.
  await a.open([{ ...b, port: await freePort() } as StageNode]);
  await b.open([a]);
  await a.start();
  const first = await dial(a.port);
  const start = fastClock.now();
  const many = [];
  for (let i = 0; i < HALF_OPEN_MAX; i++) many.push(await dial(a.port));
  await first.closed;
  assert.ok(fastClock.now() - start < 5_000, 'at once, not by the deadline');
  await b.start();
  await Promise.all([a.connected(), b.connected()]);
  assert.ok(fastClock.now() - start < 8_000, 'while the others still had their places');
  for (const { socket } of many) socket.destroy();
  await shutdown(a, b);
});

test('a peer that asks for consent again and again, and reads no answer, has one answer waiting', async () => {
  const [a, b] = await duo();
  await Promise.all([a.start(), b.start()]);
  await Promise.all([a.connected(), b.connected()]);
  let underWay = 0;
  let most = 0;
  b.native.sendControl = async () => {
    underWay += 1;
    most = Math.max(most, underWay);
    await sleep(10);
    underWay -= 1;
    return false;
  };
  for (let id = 0; id < 1000; id++) {
    assert.ok(await a.native.sendControl(JSON.stringify({ type: 'promote?', id })));
  }
  await a.native.sendControl(JSON.stringify({ type: 'bye', again: false, reason: 'enough' }));
  await b.until((link) => link.connection !== 'Connected');
  assert.is(most, 1);
  await shutdown(a, b);
});

test('an unknown volume and an unknown node are told so', async () => {
  const [a, b] = await duo();
  const c = new StageNode('gamma', await freePort());
  await c.open([a]);
  await Promise.all([a.start(), c.start()]);
  const link = await c.until((each) => each.connection === 'Refused');
  assert.match(link.reason, /'gamma' is not a configured peer of 'alpha'/);
  await shutdown(a, b, c);
});

test('an address in use is an error that names it, and is tried again', async () => {
  const [a, b] = await duo();
  const rival = createServer();
  await new Promise<void>((resolve) => rival.listen(a.port, '127.0.0.1', resolve));
  await a.start();
  assert.match(a.seen('error')[0]?.text ?? '', new RegExp(`127.0.0.1:${a.port}.*EADDRINUSE`));
  await new Promise<void>((resolve) => rival.close(() => resolve()));
  // Only the peer dials, so that it must be listening again.
  await a.host.setPolicy('r0', {
    windowWrites: 1,
    windowBytes: 4096,
    flushIntervalMs: 1000,
    selectedPeers: ['beta'],
  });
  await b.start();
  await Promise.all([a.connected(), b.connected()]);
  await shutdown(a, b);
});

test('two volumes share one listening address', async () => {
  const [a, b] = await duo();
  const spec = (node: StageNode, peer: StageNode) => ({
    name: 'r1',
    node: node.name,
    onIoError: 'pass-on' as const,
    native: { name: 'r1', backing: '/nowhere' },
    listen: { host: '127.0.0.1', port: node.port },
    peers: [{ name: peer.name, host: '127.0.0.1', port: peer.port, protocol: 'C' as const }],
    secret: null,
    pingIntervalMs: 1000,
    peerTimeoutMs: 6000,
    connectTimeoutMs: 5000,
    retryMinMs: 100,
    retryMaxMs: 1000,
  });
  await a.host.open(spec(a, b));
  await b.host.open(spec(b, a));
  for (const node of [a, b]) for (const name of ['r0', 'r1']) await node.host.startLinks(name);
  const states = async () =>
    (await Promise.all(['r0', 'r1'].map((name) => b.host.status(name)))).map(
      ({ links }) => links[0]!.connection,
    );
  while ((await states()).some((each) => each !== 'Connected')) await sleep(100);
  await a.host.close('r0');
  assert.is((await b.host.status('r1')).links[0]!.connection, 'Connected');
  await shutdown(a, b);
});

test('one link at a time: the other peer is told who has it, and takes over', async () => {
  const nodes = ['alpha', 'beta', 'gamma'].map(
    async (name) => new StageNode(name, await freePort()),
  );
  const [a, b, c] = (await Promise.all(nodes)) as [StageNode, StageNode, StageNode];
  await a.open([b, c]);
  await b.open([a]);
  await c.open([a]);
  await Promise.all([a.start(), b.start()]);
  await a.connected('beta');
  await c.start();
  await c.until((link) => /linked with 'beta'/.test(link.reason));
  await b.host.close('r0');
  await Promise.all([a.connected('gamma'), c.connected()]);
  assert.is((await a.link('beta')).connection, 'Unconnected');
  await shutdown(a, b, c);
});

test('a closed volume refuses every call, by name', async () => {
  const [a, b] = await duo();
  await a.host.close('r0');
  assert.is((await rejection(a.host.status('r0'))).code, 'VOLUME_UNKNOWN');
  await a.open([b]);
  assert.is((await rejection(a.open([b]))).code, 'EXISTS');
  assert.is((await rejection(a.host.invalidate('r0', 'nobody'))).code, 'PEER_UNKNOWN');
  assert.is((await rejection(a.host.invalidate('r0', 'beta'))).code, 'NO_SLOT');
  await shutdown(a, b);
  assert.is((await rejection(a.open([b]))).code, 'CLOSED');
});

test.run();
