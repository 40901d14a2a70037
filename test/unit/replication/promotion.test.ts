import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type ControlMessage,
  Promotion,
  parseControl,
  type Verdict,
} from '../../../lib/replication/promotion.ts';

const ID_A = 'a'.repeat(32);
const ID_B = 'b'.repeat(32);

function pair(): [Promotion, Promotion] {
  const a = new Promotion(ID_A);
  const b = new Promotion(ID_B);
  a.linkUp(ID_B, 'secondary');
  b.linkUp(ID_A, 'secondary');
  return [a, b];
}

function question(asker: Promotion): ControlMessage {
  const asked = asker.ask();
  if (!('send' in asked)) throw new Error(`not asked: ${asked.verdict.reason}`);
  return asked.send;
}

function verdict(asker: Promotion, answer: ControlMessage | undefined): Verdict | undefined {
  return answer && asker.receive(answer, 'secondary').verdict;
}

test('without a link nobody is asked', () => {
  assert.equal(new Promotion(ID_A).ask(), { verdict: { allowed: true, reason: '' } });
});

test('a secondary peer consents, and keeps to it until it hears the role', () => {
  const [a, b] = pair();
  const { answer } = b.receive(question(a), 'secondary');
  assert.is(verdict(a, answer)?.allowed, true);
  assert.equal(b.ask(), { verdict: { allowed: false, reason: 'the peer is being promoted' } });
  b.settled('secondary');
  b.receive(a.settled('primary'), 'secondary');
  assert.is(b.peerRole, 'primary');
  assert.equal(b.ask(), { verdict: { allowed: false, reason: 'the peer is primary' } });
});

test('a promotion that failed gives the consent back', () => {
  const [a, b] = pair();
  b.receive(question(a), 'secondary');
  b.receive(a.settled('secondary'), 'secondary');
  assert.ok('send' in b.ask());
});

test('a primary peer refuses, even when its role was not heard of', () => {
  const [a, b] = pair();
  const { answer } = b.receive(question(a), 'primary');
  assert.equal(verdict(a, answer), { id: 1, allowed: false, reason: 'the peer is primary' });
});

test('of two that ask at once, the lower identity is promoted', () => {
  const [a, b] = pair();
  const [fromA, fromB] = [question(a), question(b)];
  const toB = a.receive(fromB, 'secondary').answer;
  const toA = b.receive(fromA, 'secondary').answer;
  assert.is(verdict(b, toB)?.allowed, false);
  assert.is(verdict(a, toA)?.allowed, true);
});

test('one that has its consent does not give way any more', () => {
  const [a, b] = pair();
  const fromB = question(b);
  const consent = a.receive(fromB, 'secondary').answer;
  assert.is(verdict(b, consent)?.allowed, true);
  // A stray question of the lower one, sent before it consented, is answered with no.
  assert.is(b.receive({ type: 'promote?', id: 9 }, 'secondary').answer?.type, 'promote-no');
});

test('a late or foreign answer is no verdict', () => {
  const [a, b] = pair();
  const { answer } = b.receive(question(a), 'secondary');
  a.settled('secondary');
  assert.is(verdict(a, answer), undefined);
  question(a);
  assert.is(verdict(a, { type: 'promote-ok', id: 77 }), undefined);
});

test('the end of the link ends consent and questions', () => {
  const [a, b] = pair();
  const asked = question(a);
  b.receive(asked, 'secondary');
  b.linkDown();
  assert.is(b.peerRole, null);
  assert.equal(b.ask(), { verdict: { allowed: true, reason: '' } });
  assert.equal(b.receive(asked, 'secondary'), {});
});

test('one that asks, and has consented meanwhile, is not promoted because the link ends', () => {
  const [a, b] = pair();
  question(b);
  assert.is(b.receive(question(a), 'secondary').answer?.type, 'promote-ok');
  for (const each of [a, b]) each.linkDown();
  assert.equal(b.unanswered(), {
    allowed: false,
    reason: 'the peer is being promoted, and the link with it ended meanwhile',
  });
  assert.is(a.unanswered().allowed, true);
  // Asked anew, it is its own decision, as ever without a link.
  b.settled('secondary');
  assert.equal(b.ask(), { verdict: { allowed: true, reason: '' } });
});

test('control messages of later versions and nonsense are null', () => {
  for (const text of ['', '{', '[]', '{"type":"dance"}', '{"type":"role","role":"king"}']) {
    assert.is(parseControl(text), null, text);
  }
  assert.equal(parseControl('{"type":"bye","again":true,"reason":"a\\u0007b","x":1}'), {
    type: 'bye',
    again: true,
    reason: 'a b',
  });
});

test.run();
