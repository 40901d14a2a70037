import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Handshake } from '../../../lib/replication/handshake.ts';
import { type HelloMessage, parseMessage } from '../../../lib/replication/messages.ts';
import { ID_A, ID_B, nativeState, type Player, params, play, player, sent } from './duet.ts';

const pair = (): [Player, Player] => [player('dialer'), player('listener')];

function refusedWith(who: Player, code: string, reason: RegExp): void {
  const { outcome } = who;
  assert.is(outcome?.kind, 'refused', JSON.stringify(outcome));
  if (outcome?.kind !== 'refused') return;
  assert.is(outcome.code, code, outcome.reason);
  assert.match(outcome.reason, reason);
  assert.is(who.started, false);
}

function bothRefused(a: Player, b: Player, code: string, reason: RegExp): void {
  refusedWith(a, code, reason);
  refusedWith(b, code, reason);
}

test('two copies in step link up, with the same incarnation', () => {
  const [a, b] = pair();
  play(a, b);
  assert.ok(a.started && b.started);
  assert.is(a.outcome, null);
  assert.is(params(a)?.incarnation, params(b)?.incarnation);
  assert.is(params(a)?.side, 'none');
  assert.is(params(a)?.peerId, ID_B);
  assert.is(params(b)?.peerId, ID_A);
  assert.is(params(b)?.peerName, 'alpha');
  assert.equal(
    sent(a).map((each) => each.type),
    ['hello', 'proof', 'state', 'decision', 'ready'],
  );
});

test('a resync by map: one source, one target, no generation', () => {
  const [a, b] = pair();
  a.state.native = nativeState(ID_A, {
    current: '00000000000000c2',
    bitmap: '00000000000000c1',
    role: 'primary',
    dirtyChunks: 3,
  });
  play(a, b);
  assert.ok(a.started && b.started);
  assert.is(params(a)?.side, 'source');
  assert.is(params(b)?.side, 'target');
  assert.is(params(b)?.full, false);
  assert.is(params(b)?.peerCurrent, '00000000000000c2');
  assert.is(params(b)?.peerRole, 'primary');
  assert.is(params(b)?.syncGeneration, '0'.repeat(16));
});

test('a full resync: both prepare with the generation that the source offers', () => {
  const [a, b] = pair();
  b.state.native = nativeState(ID_B, { current: '0000000000000001' });
  play(a, b);
  assert.is(params(a)?.side, 'source');
  assert.is(params(a)?.full, true);
  assert.is(params(a)?.syncGeneration, '5'.repeat(16));
  assert.is(params(b)?.syncGeneration, '5'.repeat(16));
});

test('a source that offers no generation for a full resync is refused', () => {
  const [a, b] = pair();
  b.state.native = nativeState(ID_B, { current: '0000000000000001' });
  a.tamper = (each) =>
    each.type === 'decision' ? { ...each, syncGeneration: '0000000000000001' } : each;
  play(a, b);
  refusedWith(b, 'PROTOCOL', /generation 0000000000000001/);
  assert.is(b.started, false);
  assert.is(a.started, false);
});

test('wrong secret', () => {
  const [a, b] = [player('dialer', { secret: 'another' }), player('listener')];
  play(a, b);
  bothRefused(a, b, 'AUTH', /secrets differ/);
  assert.is(
    sent(b).some((each) => each.type === 'proof'),
    false,
    'the listener proves nothing',
  );
});

test('a listener with a wrong secret is found out by the dialer', () => {
  const [a, b] = pair();
  b.tamper = (each) => (each.type === 'proof' ? { ...each, mac: 'ab'.repeat(32) } : each);
  play(a, b);
  refusedWith(a, 'AUTH', /secrets differ/);
});

test('a listener that sends the dialer its own proof back', () => {
  const [a, b] = pair();
  let mac = '';
  a.tamper = (each) => {
    if (each.type === 'proof') mac = each.mac;
    return each;
  };
  b.tamper = (each) => (each.type === 'proof' ? { ...each, mac } : each);
  play(a, b);
  refusedWith(a, 'AUTH', /secrets differ/);
});

test('a HELLO that sends the own nonce back', () => {
  const [a, b] = pair();
  b.tamper = (each) => (each.type === 'hello' ? { ...each, nonce: '1'.repeat(64) } : each);
  play(a, b);
  refusedWith(a, 'IDENTITY', /itself/);
});

test('only one side has a secret', () => {
  const [a, b] = [player('dialer', { secret: null, isLoopback: () => true }), player('listener')];
  play(a, b);
  bothRefused(a, b, 'AUTH', /'beta' has a secret configured, 'alpha' has none/);
});

test('no secret: over loopback yes, from another machine no', () => {
  const local = { secret: null, isLoopback: () => true };
  const [a, b] = [player('dialer', local), player('listener', local)];
  play(a, b);
  assert.ok(a.started && b.started);
  const [c, d] = [
    player('dialer', { secret: null, isLoopback: () => false }),
    player('listener', { secret: null, isLoopback: () => false }),
  ];
  play(c, d);
  bothRefused(c, d, 'AUTH', /secret/);
});

test('versions without a common one', () => {
  const [a, b] = pair();
  a.tamper = (each) => (each.type === 'hello' ? { ...each, versionMin: 7, versionMax: 9 } : each);
  play(a, b);
  bothRefused(a, b, 'VERSION', /1\.\.1.*7\.\.9/);
});

test('an older peer of the same version range is fine, and unknown fields are ignored', () => {
  const [a, b] = pair();
  a.tamper = (each) =>
    each.type === 'hello' ? { ...each, colour: 'blue' } : { ...each, more: { x: 1 } };
  play(a, b);
  assert.ok(a.started && b.started);
});

test('versions cannot be talked down unnoticed', () => {
  const [a, b] = pair();
  a.tamper = (each) => (each.type === 'hello' ? { ...each, versionMax: 5 } : each);
  play(a, b);
  bothRefused(a, b, 'AUTH', /secrets differ/);
});

test('another volume, another node, oneself', () => {
  const volume: [Player, Player] = [player('dialer', { volume: 'r1' }), player('listener')];
  play(...volume);
  bothRefused(...volume, 'VOLUME', /'r0'.*'r1'/);
  const node: [Player, Player] = [player('dialer'), player('listener', { node: 'gamma' })];
  play(...node);
  bothRefused(...node, 'NODE', /'gamma' expected to meet 'alpha'.*expected 'beta'/);
  const copied: [Player, Player] = [player('dialer'), player('listener', { nodeId: ID_A })];
  play(...copied);
  bothRefused(...copied, 'IDENTITY', /are copies of each other.*'tidemark create --force'/);
  const self: [Player, Player] = [
    player('dialer'),
    player('listener', { node: 'alpha', nodeId: ID_A }),
  ];
  play(...self);
  bothRefused(...self, 'IDENTITY', /itself/);
});

test('different protocols are named', () => {
  const [a, b] = [player('dialer', { protocol: 'A' }), player('listener')];
  play(a, b);
  refusedWith(a, 'CONFIG', /A at 'alpha', C at 'beta'/);
  refusedWith(b, 'CONFIG', /'alpha'/);
});

test('protocol B is refused by name', () => {
  const [a, b] = pair();
  play(a, b);
  const state = sent(a).find((each) => each.type === 'state')!;
  assert.throws(
    () => parseMessage(JSON.stringify({ ...state, protocol: 'B' })),
    /'protocol': protocol 'B' is not implemented: set 'A' or 'C' on both nodes/,
  );
});

test('the volume refuses: the dialer hears why, and the role of a listener it reached', () => {
  const [a, b] = pair();
  b.refusal = { code: 'BUSY', reason: "linked with 'gamma'" };
  b.state.native = nativeState(ID_B, { role: 'primary' });
  play(a, b);
  bothRefused(a, b, 'BUSY', /gamma/);
  assert.is(a.outcome?.kind === 'refused' && a.outcome.byPeer, true);
  assert.is(a.outcome?.kind === 'refused' && a.outcome.peerRole, 'primary');
  assert.is(
    sent(b).some((each) => each.type === 'proof'),
    false,
  );
  assert.is(
    a.log.some((each) => each.do === 'claim'),
    false,
    'the dialer claims after the listener',
  );
});

test('a stranger is not told the role', () => {
  const [a, b] = [player('dialer', { secret: 'another' }), player('listener')];
  play(a, b);
  for (const each of sent(b)) if (each.type === 'refused') assert.is(each.role, undefined);
});

test('split brain and unrelated data end without a link on both sides', () => {
  for (const [current, bitmap, kind] of [
    ['00000000000000c2', '00000000000000b1', 'splitBrain'],
    ['00000000000000c3', '0000000000000000', 'unrelated'],
  ] as const) {
    const [a, b] = pair();
    a.state.native = nativeState(ID_A, { bitmap });
    b.state.native = nativeState(ID_B, { current, bitmap });
    play(a, b);
    for (const who of [a, b]) {
      assert.is(who.outcome?.kind, 'conflict');
      assert.is(who.outcome?.kind === 'conflict' && who.outcome.decision.kind, kind);
      assert.is(params(who), null);
    }
  }
});

test('one side yields in a split brain', () => {
  const [a, b] = pair();
  a.state.native = nativeState(ID_A, { bitmap: '00000000000000b1' });
  b.state = {
    native: nativeState(ID_B, { current: '00000000000000c2', bitmap: '00000000000000b1' }),
    discardMine: true,
    probe: false,
    otherIdentity: null,
  };
  play(a, b);
  assert.is(params(a)?.side, 'source');
  assert.is(params(b)?.side, 'target');
});

test('a decision that does not mirror ours is refused', () => {
  const [a, b] = pair();
  a.tamper = (each) =>
    each.type === 'decision' ? { ...each, kind: 'sync', side: 'source', rule: 70 } : each;
  play(a, b);
  refusedWith(b, 'DECISION', /decide differently/);
  assert.is(
    b.log.some((each) => each.do === 'prepare'),
    false,
  );
});

test('a probe ends after the decision', () => {
  const [a, b] = pair();
  a.state.probe = true;
  b.state.native = nativeState(ID_B, { role: 'primary' });
  play(a, b);
  for (const who of [a, b]) {
    assert.is(who.outcome?.kind, 'probed');
    assert.is(params(who), null);
  }
  assert.is(a.outcome?.kind === 'probed' && a.outcome.peerRole, 'primary');
});

test('a state that changed meanwhile is told as such', () => {
  const [a, b] = pair();
  b.prepare = { code: 'LINK_STALE', message: 'serial 8' };
  play(a, b);
  refusedWith(b, 'STALE', /changed/);
  refusedWith(a, 'STALE', /changed/);
});

test('a volume that cannot prepare says why', () => {
  const [a, b] = pair();
  a.prepare = { code: 'NO_SLOT', message: 'all 8 peer slots are taken' };
  play(a, b);
  bothRefused(a, b, 'PREPARE', /8 peer slots/);
});

test('nonsense from the listener in every phase ends the handshake and nothing else', () => {
  const nonsense = [
    'not json',
    '[]',
    'null',
    '{"type":"dance"}',
    '{"type":"state"}',
    `{"type":"proof","mac":"${'x'.repeat(64)}"}`,
    '{"type":"hello","magic":"drbd"}',
    'x'.repeat(70_000),
  ];
  for (const type of ['hello', 'proof', 'state', 'decision', 'ready'] as const) {
    for (const text of nonsense) {
      const [a, b] = pair();
      b.tamper = (each) => (each.type === type ? text : each);
      play(a, b);
      refusedWith(a, 'PROTOCOL', /message/);
    }
  }
});

test('fields out of bounds are refused by name', () => {
  const wrong: Array<[string, unknown]> = [
    ['volumeBytes', -1],
    ['volumeBytes', 2 ** 60],
    ['chunkBytes', 1.5],
    ['current', 'xyz'],
    ['history', new Array(9).fill('0'.repeat(16))],
    ['role', 'king'],
    ['flags', 2 ** 40],
    ['dirtyChunks', null],
    ['probe', 'yes'],
  ];
  for (const [field, value] of wrong) {
    const [a, b] = pair();
    b.tamper = (each) => (each.type === 'state' ? { ...each, [field]: value } : each);
    play(a, b);
    refusedWith(a, 'PROTOCOL', new RegExp(field));
  }
});

test('a message out of turn is refused', () => {
  const handshake = new Handshake(player('dialer').options);
  handshake.start();
  const actions = handshake.message('{"type":"ready"}');
  assert.equal(
    actions.map((each) => each.do),
    ['send', 'end'],
  );
  assert.equal(handshake.message('{"type":"ready"}'), [], 'nothing after the end');
  assert.equal(handshake.closed('gone'), []);
});

test('a broken connection and a deadline end it', () => {
  const broken = new Handshake(player('dialer').options);
  broken.start();
  assert.equal(broken.closed('reset'), [
    { do: 'end', outcome: { kind: 'failed', reason: 'reset' } },
  ]);
  const late = new Handshake(player('dialer').options);
  late.start();
  const actions = late.abort('TIMEOUT', 'no answer within 10 s');
  assert.equal(
    actions.map((each) => each.do),
    ['send', 'end'],
  );
});

test('a listener greets only after the volume agreed, when no secret is set', () => {
  const listener = new Handshake(
    player('listener', { secret: null, isLoopback: () => true }).options,
  );
  const dialer = new Handshake(player('dialer', { secret: null, isLoopback: () => true }).options);
  const hello = dialer.start()[0]!;
  const actions = listener.accept((hello as { message: HelloMessage }).message);
  assert.equal(
    actions.map((each) => each.do),
    ['claim'],
  );
  assert.equal(
    listener.claimed(null, 'secondary').map((each) => each.do),
    ['send', 'state'],
  );
});

test.run();
