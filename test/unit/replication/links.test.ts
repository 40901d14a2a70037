import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Decision } from '../../../lib/replication/generations.ts';
import type { HandshakeOutcome } from '../../../lib/replication/handshake.ts';
import { DIAL_PRECEDENCE_MS, Links, type LinksAction } from '../../../lib/replication/links.ts';
import type { RefusalCode } from '../../../lib/replication/messages.ts';
import { STALE_RETRIES_MAX } from '../../../lib/replication/peer_entry.ts';

const make = (changes: { node?: string; peers?: string[]; random?: number } = {}) =>
  new Links({
    node: changes.node ?? 'alpha',
    peers: changes.peers ?? ['beta'],
    retryMinMs: 100,
    retryMaxMs: 1000,
    // 1 would be no jitter at all.
    random: () => changes.random ?? 0.999_999,
  });

const failed: HandshakeOutcome = { kind: 'failed', reason: 'connection refused' };
const refused = (code: RefusalCode, reason = 'because'): HandshakeOutcome => ({
  kind: 'refused',
  code,
  reason,
  byPeer: true,
  peerRole: null,
  decision: null,
});
const conflict = (kind: 'splitBrain' | 'unrelated'): HandshakeOutcome => {
  const decision: Decision = { kind, rule: 90, side: 'none', full: false, reason: 'both wrote' };
  return { kind: 'conflict', decision, peerRole: 'secondary' };
};

const kinds = (actions: LinksAction[]) =>
  actions.map((each) => (each.do === 'event' ? each.kind : each.do));
function dialId(actions: LinksAction[], peer = 'beta'): number {
  const dial = actions.find((each) => each.do === 'dial' && each.peer === peer);
  if (dial?.do !== 'dial') throw new Error(`no dial of ${peer} in ${JSON.stringify(actions)}`);
  return dial.id;
}
function linkUp(links: Links, peer = 'beta', now = 0): number {
  const id = links.newId();
  assert.is(links.claim(id, peer, true, now).refusal, null);
  links.preparing(id);
  assert.ok(kinds(links.linked(id, now)).includes('peer-up'));
  return id;
}

test('nothing happens before start', () => {
  const links = make();
  assert.equal(links.tick(5), []);
  assert.is(links.nextDeadline(), Number.POSITIVE_INFINITY);
  assert.is(links.claim(links.newId(), 'beta', true, 5).refusal?.code, 'CLOSING');
});

test('the backoff doubles up to the maximum, has jitter, and starts again after success', () => {
  const links = make();
  let actions = links.start(0);
  let now = 0;
  const waits: number[] = [];
  for (let i = 0; i < 6; i++) {
    assert.equal(links.ended(dialId(actions), 'beta', failed, now), []);
    waits.push(links.nextDeadline() - now);
    assert.equal(links.tick(links.nextDeadline() - 1), []);
    now = links.nextDeadline();
    actions = links.tick(now);
  }
  assert.equal(waits, [100, 200, 400, 800, 1000, 1000]);
  assert.is(links.status('beta').attempts, 6);
  assert.is(links.status('beta').reason, 'connection refused');
  const id = dialId(actions);
  assert.is(links.claim(id, 'beta', false, now).refusal, null);
  links.linked(id, now);
  assert.is(links.status('beta').attempts, 0);
  assert.is(links.status('beta').reason, '');
  links.linkDown('timeout', false, now);
  assert.is(links.nextDeadline() - now, 100);
  const hasty = make({ random: 0 });
  hasty.ended(dialId(hasty.start(0)), 'beta', failed, 0);
  assert.is(hasty.nextDeadline(), 50);
});

test('the states of one peer, in order', () => {
  const links = make();
  const seen: string[] = [];
  const look = () => seen.push(links.status('beta').connection);
  look();
  const id = dialId(links.start(0));
  look();
  links.opened(id, 1);
  look();
  links.claim(id, 'beta', false, 2);
  links.preparing(id);
  look();
  links.linked(id, 3);
  look();
  links.linkDown('gone', false, 4);
  look();
  assert.equal(seen, [
    'Unconnected',
    'Connecting',
    'Handshake',
    'Handshake',
    'Connected',
    'Unconnected',
  ]);
});

test('a state that changed is tried again at once, a few times', () => {
  const links = make();
  let actions = links.start(0);
  for (let i = 0; i < STALE_RETRIES_MAX; i++) {
    actions = links.ended(dialId(actions), 'beta', refused('STALE'), 0);
    assert.equal(kinds(actions), ['dial']);
  }
  assert.equal(links.ended(dialId(actions), 'beta', refused('STALE'), 0), []);
  assert.is(links.nextDeadline(), 100);
});

test('split brain and unrelated data stop the dialling until connect, and are told once', () => {
  for (const kind of ['splitBrain', 'unrelated'] as const) {
    const links = make();
    const told = links.ended(dialId(links.start(0)), 'beta', conflict(kind), 0);
    assert.equal(kinds(told), ['peer-refused']);
    assert.is(links.status('beta').connection, kind === 'splitBrain' ? 'SplitBrain' : 'Unrelated');
    assert.is(links.status('beta').reason, 'both wrote');
    assert.is(links.nextDeadline(), Number.POSITIVE_INFINITY);
    const id = links.newId();
    assert.is(links.claim(id, 'beta', true, 10).refusal, null, 'the peer may try');
    assert.equal(links.ended(id, 'beta', conflict(kind), 10), []);
    const again = links.connect('beta', true, 20);
    assert.equal(kinds(again), ['dial']);
    assert.is(links.discardsMine('beta'), true);
    assert.is(links.status('beta').connection, 'Connecting');
    links.claim(dialId(again), 'beta', false, 20);
    links.linked(dialId(again), 20);
    assert.is(links.discardsMine('beta'), false, 'for one link only');
  }
});

test('to yield ends with becoming primary: what is written from then on was never given up', () => {
  const links = make();
  links.start(0);
  links.connect('beta', true, 10);
  assert.is(links.discardsMine('beta'), true);
  links.keepMine();
  assert.is(links.discardsMine('beta'), false);
});

test('what a person must change is Refused, tried again with backoff, and told once', () => {
  const links = make();
  let actions = links.ended(dialId(links.start(0)), 'beta', refused('AUTH', 'wrong secret'), 0);
  assert.equal(kinds(actions), ['peer-refused']);
  assert.is(links.status('beta').connection, 'Refused');
  actions = links.tick(100);
  actions = links.ended(dialId(actions), 'beta', refused('AUTH', 'wrong secret'), 100);
  assert.equal(actions, []);
  assert.is(links.nextDeadline(), 300);
});

test('what passes by itself is Unconnected', () => {
  for (const code of ['BUSY', 'STANDALONE', 'NOT_SELECTED', 'CLOSING', 'TIMEOUT'] as const) {
    const links = make();
    assert.equal(links.ended(dialId(links.start(0)), 'beta', refused(code), 0), []);
    assert.is(links.status('beta').connection, 'Unconnected', code);
  }
});

test('disconnect: the dial is dropped, the link is stopped, the peer is refused', () => {
  const links = make();
  const id = dialId(links.start(0));
  const dropped = links.disconnect('beta', 1);
  assert.equal(kinds(dropped), ['drop']);
  assert.is(dropped[0]?.do === 'drop' && dropped[0].id, id);
  assert.is(links.status('beta').connection, 'StandAlone');
  assert.is(links.claim(links.newId(), 'beta', true, 2).refusal?.code, 'STANDALONE');
  assert.equal(kinds(links.connect('beta', false, 3)), ['dial']);

  const other = make();
  other.start(0);
  linkUp(other);
  assert.equal(kinds(other.disconnect('beta', 1)), ['stopLink']);
  assert.is(other.linkedPeer, 'beta', 'until it is down');
  other.linkDown('disconnected', true, 2);
  assert.is(other.linkedPeer, null);
  assert.is(other.nextDeadline(), Number.POSITIVE_INFINITY);
});

test('a peer that policy did not select is refused and seen', () => {
  const links = make();
  links.start(0);
  assert.equal(kinds(links.select([], 1)), ['drop']);
  const { refusal, actions } = links.claim(links.newId(), 'beta', true, 2);
  assert.is(refusal?.code, 'NOT_SELECTED');
  assert.equal(kinds(actions), ['peer-seen']);
  assert.equal(kinds(links.select(['beta', 'nobody'], 3)), ['dial']);
});

test('a refusal is told once, also when others come between', () => {
  const links = make();
  let actions = links.start(0);
  const told: string[] = [];
  for (const code of ['DECISION', 'DUPLICATE', 'DECISION', 'BUSY', 'DECISION'] as const) {
    const id = dialId(actions);
    told.push(...kinds(links.ended(id, 'beta', refused(code, code), 0)));
    actions = links.tick(links.nextDeadline());
  }
  assert.equal(told, ['peer-refused']);
});

test('a peer that tries while another is linked is refused, seen, and known to be reachable', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  assert.is(links.status('beta').reachable, null);
  links.ended(dialId(links.start(0)), 'beta', failed, 0);
  assert.is(links.status('beta').reachable, false);
  linkUp(links, 'gamma', 1);
  assert.is(links.status('gamma').reachable, true);
  const { refusal, actions } = links.claim(links.newId(), 'beta', true, 2);
  assert.is(refusal?.code, 'BUSY');
  assert.equal(kinds(actions), ['peer-seen']);
  assert.is(links.status('beta').reachable, true);
  links.linkDown('timeout', false, 3);
  assert.is(links.status('gamma').reachable, null, 'nobody tried since');
});

test('the preferred peer is dialled first, the next when that failed, and one link is made', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  const first = links.start(0);
  assert.equal(kinds(first), ['dial']);
  const then = links.ended(dialId(first), 'beta', failed, 0);
  assert.equal(kinds(then), ['dial']);
  const gamma = dialId(then, 'gamma');
  links.claim(gamma, 'gamma', false, 1);
  links.linked(gamma, 1);
  assert.is(links.nextDeadline(), Number.POSITIVE_INFINITY);
  const { refusal } = links.claim(links.newId(), 'beta', true, 2);
  assert.is(refusal?.code, 'BUSY');
  assert.match(refusal!.reason, /gamma/);
  assert.match(links.status('beta').reason, /linked with 'gamma'/);
  assert.equal(kinds(links.select(['beta', 'gamma'], 3)), [], 'still selected: stays');
  assert.equal(kinds(links.select(['beta'], 4)), ['stopLink']);
  links.linkDown('not selected', true, 5);
  assert.is(
    links.tick(5000).some((each) => each.do === 'dial' && each.peer === 'beta'),
    true,
  );
});

test('other dials end when a link is up', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  const beta = dialId(links.ended(dialId(links.start(0)), 'beta', failed, 0), 'gamma');
  const again = dialId(links.tick(100));
  links.claim(again, 'beta', false, 101);
  const actions = links.linked(again, 102);
  assert.is(
    actions.some((each) => each.do === 'drop' && each.id === beta),
    true,
  );
});

test('crossed connections: the one that the lower name dialled', () => {
  const alpha = make({ node: 'alpha', peers: ['beta'] });
  const own = dialId(alpha.start(0));
  alpha.opened(own, 1);
  assert.is(alpha.claim(alpha.newId(), 'beta', true, 2).refusal?.code, 'DUPLICATE');
  const beta = make({ node: 'beta', peers: ['alpha'] });
  const theirs = dialId(beta.start(0), 'alpha');
  beta.opened(theirs, 1);
  const { refusal, actions } = beta.claim(beta.newId(), 'alpha', true, 2);
  assert.is(refusal, null);
  assert.is(
    actions.some((each) => each.do === 'drop' && each.id === theirs),
    true,
  );
});

test('a dial that gets nowhere does not keep the peer out', () => {
  const links = make({ node: 'alpha' });
  const own = dialId(links.start(0));
  assert.is(links.claim(links.newId(), 'beta', true, 10).refusal, null, 'not even open');
  const other = make({ node: 'alpha' });
  other.opened(dialId(other.start(0)), 0);
  assert.is(other.claim(other.newId(), 'beta', true, 1500).refusal, null, 'open, but silent');
  const greeted = make({ node: 'alpha' });
  const id = dialId(greeted.start(0));
  greeted.opened(id, 0);
  greeted.greeted(id, 800);
  assert.is(greeted.claim(greeted.newId(), 'beta', true, 1500).refusal?.code, 'DUPLICATE');
  const late = greeted.claim(greeted.newId(), 'beta', true, 800 + DIAL_PRECEDENCE_MS);
  assert.is(late.refusal, null, 'it said something once, and may have started again since');
  assert.ok(own > 0);
});

test('a link that is up is not replaced by a new connection, one in handshake is', () => {
  const links = make({ node: 'beta', peers: ['alpha'] });
  links.start(0);
  const first = links.newId();
  assert.is(links.claim(first, 'alpha', true, 1).refusal, null);
  const second = links.newId();
  const { refusal, actions } = links.claim(second, 'alpha', true, 2);
  assert.is(refusal, null);
  assert.is(
    actions.some((each) => each.do === 'drop' && each.id === first),
    true,
  );
  links.preparing(second);
  assert.is(links.claim(links.newId(), 'alpha', true, 3).refusal?.code, 'BUSY');
  links.linked(second, 4);
  assert.is(links.claim(links.newId(), 'alpha', true, 5).refusal?.code, 'BUSY');
  links.linkDown('gone', false, 6);
  assert.is(links.claim(links.newId(), 'alpha', true, 7).refusal, null);
});

test('an own handshake that does not go on keeps a peer out for a second at most: it may have started again', () => {
  const links = make();
  const id = dialId(links.start(0));
  links.opened(id, 1);
  links.greeted(id, 1);
  assert.is(links.claim(id, 'beta', false, 10).refusal, null);
  const early = links.claim(links.newId(), 'beta', true, 10 + DIAL_PRECEDENCE_MS - 1);
  assert.is(early.refusal?.code, 'DUPLICATE');
  const late = links.claim(links.newId(), 'beta', true, 10 + DIAL_PRECEDENCE_MS);
  assert.is(late.refusal, null);
  assert.equal(kinds(late.actions), ['drop']);
});

test('a hold refuses claims and dials, and lets the link be', () => {
  const links = make();
  const id = dialId(links.start(0));
  links.hold('a role change is under way', 1);
  assert.is(links.claim(links.newId(), 'beta', true, 2).refusal?.code, 'BUSY');
  links.ended(id, 'beta', failed, 2);
  assert.equal(links.tick(10_000), []);
  assert.equal(kinds(links.hold(null, 10_001)), ['dial']);
});

test('a handshake is given up when something else cannot wait for it, and a link is not', () => {
  const links = make();
  const id = dialId(links.start(0));
  assert.equal(links.giveUpHandshake('a role change waits', 1), []);
  links.claim(id, 'beta', false, 2);
  const refusal = { code: 'BUSY', reason: 'a role change waits' };
  links.hold('a role change waits', 3);
  assert.equal(links.giveUpHandshake('a role change waits', 4), [{ do: 'drop', id, refusal }]);
  links.ended(id, 'beta', failed, 5);
  assert.not(links.shakingHands);
  const next = dialId(links.hold(null, 10_000));
  links.claim(next, 'beta', false, 10_001);
  links.linked(next, 10_002);
  assert.equal(links.giveUpHandshake('a role change waits', 10_003), []);
});

test('probing asks every selected peer once', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  links.probe(true, 0);
  const actions = links.start(0);
  assert.equal(kinds(actions), ['dial', 'dial']);
  const beta = dialId(actions, 'beta');
  links.claim(beta, 'beta', false, 1);
  const decision: Decision = { kind: 'none', rule: 40, side: 'none', full: false, reason: '' };
  links.ended(beta, 'beta', { kind: 'probed', decision, peerRole: 'secondary' }, 2);
  links.ended(dialId(actions, 'gamma'), 'gamma', failed, 2);
  const later = links.tick(5000);
  assert.equal(
    later.map((each) => each.do === 'dial' && each.peer),
    ['gamma'],
  );
  assert.equal(
    links.probe(false, 6000).map((each) => each.do === 'dial' && each.peer),
    ['beta'],
  );
});

test('an inquiry asks a peer that policy left out, and makes no link with it (R18)', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  links.start(0);
  links.select([], 1);
  links.disconnect('gamma', 1);
  assert.equal(links.wanted, ['beta']);
  const actions = links.probe(true, 2);
  assert.equal(
    actions.map((each) => each.do === 'dial' && each.peer),
    ['beta'],
  );
  const beta = dialId(actions, 'beta');
  assert.is(links.claim(beta, 'beta', false, 3).refusal, null);
  const decision: Decision = { kind: 'none', rule: 40, side: 'none', full: false, reason: '' };
  links.ended(beta, 'beta', { kind: 'probed', decision, peerRole: 'secondary' }, 4);
  assert.equal(links.tick(5000), []);
  assert.equal(links.probe(false, 6000), []);
  assert.is(links.claim(links.newId(), 'beta', true, 7000).refusal?.code, 'NOT_SELECTED');
});

test('an inquiry that ends before a peer answered that policy left out makes no link with it either', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  links.start(0);
  links.select(['gamma'], 1);
  const beta = dialId(links.probe(true, 2));
  assert.is(links.claim(beta, 'beta', false, 3).refusal, null);
  const actions = links.probe(false, 4);
  assert.ok(actions.some((each) => each.do === 'drop' && each.id === beta));
  assert.not(links.shakingHands);
});

test('an inquiry asks a peer that is not dialled otherwise: in a split brain, or waiting for its backoff (R18)', () => {
  const links = make({ peers: ['beta', 'gamma'] });
  const actions = links.start(0);
  const beta = dialId(actions, 'beta');
  links.claim(beta, 'beta', false, 1);
  let now = 2;
  let next = links.ended(beta, 'beta', conflict('splitBrain'), now);
  for (let tries = 0; tries < 5; tries++) {
    links.ended(dialId(next, 'gamma'), 'gamma', failed, now);
    now = links.nextDeadline();
    next = links.tick(now);
  }
  links.ended(dialId(next, 'gamma'), 'gamma', failed, now);
  assert.is(links.status('beta').connection, 'SplitBrain');
  assert.equal(links.tick(now + 1), []);
  const asked = links.probe(true, now + 1);
  assert.equal(
    asked.map((each) => each.do === 'dial' && each.peer),
    ['beta', 'gamma'],
  );
});

test('what strangers send leaves the peer as it is', () => {
  const links = make();
  links.start(0);
  assert.equal(links.ended(links.newId(), 'beta', refused('AUTH'), 1), []);
  assert.is(links.status('beta').connection, 'Connecting');
});

test.run();
