import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { makeProof } from '../../../lib/replication/auth.ts';
import { Handshake, type HandshakeAction } from '../../../lib/replication/handshake.ts';
import {
  type HandshakeMessage,
  type HelloMessage,
  MESSAGE_BYTES_MAX,
  NAME_LENGTH_MAX,
  parseMessage,
  REASON_LENGTH_MAX,
} from '../../../lib/replication/messages.ts';
import { parseControl } from '../../../lib/replication/promotion.ts';
import { anything, options } from '../properties.ts';
import { ID_A, ID_B, type Player, play, player } from './duet.ts';

/** One of each, as a peer sends them. */
const SAMPLES: readonly HandshakeMessage[] = (() => {
  const dialer = player('dialer');
  const listener = player('listener');
  const seen: HandshakeMessage[] = [];
  for (const one of [dialer, listener]) {
    one.tamper = (message) => {
      seen.push(message);
      return message;
    };
  }
  play(dialer, listener);
  assert.ok(dialer.started && listener.started);
  return [...seen, { type: 'refused', code: 'BUSY', reason: 'not now', role: 'primary' }];
})();

const sample = fc.constantFrom(...SAMPLES);
const json = (value: unknown) =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? `${each}` : each));

/** A message with one field that is something else, or gone, or one too many. */
const spoilt = fc
  .tuple(sample, fc.nat(), anything(2), fc.constantFrom('replace', 'remove', 'add'))
  .map(([message, index, value, how]) => {
    const copy: Record<string, unknown> = { ...message };
    const keys = Object.keys(copy);
    const key = keys[index % keys.length]!;
    if (how === 'remove') delete copy[key];
    else copy[how === 'add' ? `extra-${key}` : key] = value;
    return copy;
  });

function check(text: string | undefined): void {
  if (text === undefined) return;
  let message: HandshakeMessage;
  try {
    message = parseMessage(text);
  } catch (error) {
    assert.instance(error, TidemarkError);
    assert.is((error as TidemarkError).code, 'HANDSHAKE');
    assert.ok((error as Error).message.length < 1000, (error as Error).message);
    return;
  }
  // What was taken is within its bounds, and means the same to whoever reads it again.
  assert.equal(parseMessage(JSON.stringify(message)), message);
  if (message.type === 'hello') {
    for (const name of [message.volume, message.node, message.peer]) {
      assert.ok(name.length >= 1 && name.length <= NAME_LENGTH_MAX);
      assert.not.match(name, /[\p{Cc}\p{Cf}]/u);
    }
  }
  if (message.type === 'refused') {
    assert.ok(message.reason.length <= REASON_LENGTH_MAX);
    assert.not.match(message.reason, /[\p{Cc}\p{Cf}]/u);
  }
  if (message.type === 'state') assert.is(message.history.length, 8);
}

test('property: any text is a message within its bounds, or refused as HANDSHAKE', () => {
  const texts = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    anything(3).map(json),
    spoilt.map(json),
  );
  fc.assert(fc.property(texts, check), options(1000));
  for (const deep of ['['.repeat(50_000), '{"a":'.repeat(10_000)]) check(deep);
  check(`"${'x'.repeat(MESSAGE_BYTES_MAX)}"`);
});

test('property: any text is a control message, or null', () => {
  const texts = fc.oneof(fc.string({ unit: 'binary' }), fc.json(), anything(3).map(json));
  fc.assert(
    fc.property(texts, (text) => {
      const message = parseControl(text ?? '');
      if (message !== null) assert.equal(parseControl(JSON.stringify(message)), message);
    }),
    options(500),
  );
});

// --- the machine ---

/** What somebody without the secret can do to a machine. */
type Move =
  | { do: 'sample'; message: HandshakeMessage }
  | { do: 'spoilt'; message: unknown }
  /** Send back what it said itself. */
  | { do: 'reflect'; index: number }
  | { do: 'proof'; mac: string }
  | { do: 'close' };

const hex64 = fc
  .array(fc.integer({ min: 0, max: 15 }), { minLength: 64, maxLength: 64 })
  .map((digits) => digits.map((digit) => digit.toString(16)).join(''));
const move: fc.Arbitrary<Move> = fc.oneof(
  { weight: 6, arbitrary: sample.map((message): Move => ({ do: 'sample', message })) },
  { weight: 2, arbitrary: spoilt.map((message): Move => ({ do: 'spoilt', message })) },
  { weight: 2, arbitrary: fc.nat(4).map((index): Move => ({ do: 'reflect', index })) },
  { weight: 2, arbitrary: hex64.map((mac): Move => ({ do: 'proof', mac })) },
  { weight: 1, arbitrary: fc.constant<Move>({ do: 'close' }) },
);

/** The machine with a volume behind it that agrees to everything; all that it ever wanted. */
class Subject {
  readonly actions: HandshakeAction[] = [];
  readonly machine: Handshake;
  readonly player: Player;

  constructor(end: 'dialer' | 'listener') {
    // Not the nonces of the samples: those are of an earlier handshake.
    this.player = player(end, { nonce: (end === 'dialer' ? 'c' : 'd').repeat(64) });
    this.machine = new Handshake(this.player.options);
    if (end === 'dialer') this.run(this.machine.start());
  }

  run(actions: HandshakeAction[]): void {
    for (const action of actions) {
      this.actions.push(action);
      if (action.do === 'claim') this.run(this.machine.claimed(null, 'secondary'));
      else if (action.do === 'state') this.run(this.machine.state(this.player.state));
      else if (action.do === 'prepare') this.run(this.machine.prepared());
    }
  }

  hear(message: unknown): void {
    const text = json(message);
    if (text === undefined) return;
    const isFirst = !this.machine.greeted && this.player.options.end === 'listener';
    if (isFirst) {
      // The listening socket finds the volume by a HELLO.
      let hello: HandshakeMessage;
      try {
        hello = parseMessage(text);
      } catch {
        return;
      }
      if (hello.type === 'hello') this.run(this.machine.accept(hello));
    } else this.run(this.machine.message(text));
  }

  get said(): HandshakeMessage[] {
    return this.actions.flatMap((action) => (action.do === 'send' ? [action.message] : []));
  }

  did(what: HandshakeAction['do']): number {
    return this.actions.filter((action) => action.do === what).length;
  }
}

const end = fc.constantFrom('dialer' as const, 'listener' as const);

test('property: without the secret nobody gets past the proof, in whatever order what is said', () => {
  fc.assert(
    fc.property(end, fc.array(move, { maxLength: 30 }), (which, moves) => {
      const subject = new Subject(which);
      for (const each of moves) {
        if (each.do === 'sample' || each.do === 'spoilt') subject.hear(each.message);
        else if (each.do === 'reflect') subject.hear(subject.said[each.index]);
        else if (each.do === 'proof') subject.hear({ type: 'proof', mac: each.mac });
        else subject.run(subject.machine.closed('cut'));
      }
      // The samples are of another handshake of the same two nodes: their proofs are replays.
      for (const never of ['claim', 'state', 'prepare', 'start'] as const) {
        assert.is(subject.did(never), 0, never);
      }
      assert.ok(subject.did('end') <= 1);
      for (const message of subject.said) {
        if (message.type === 'refused')
          assert.is(message.role, undefined, 'a stranger is told the role');
      }
    }),
    options(600),
  );
});

test('property: whatever happens on the way, nobody goes on without the proof that the other one made', () => {
  /** What becomes of a message: on, twice, lost, replaced, or one from before again. */
  const fate = fc.oneof(
    { weight: 12, arbitrary: fc.constant('on' as const) },
    { weight: 1, arbitrary: fc.constant('twice' as const) },
    { weight: 1, arbitrary: fc.constant('lost' as const) },
    { weight: 1, arbitrary: fc.constant('again' as const) },
    { weight: 2, arbitrary: spoilt },
  );
  fc.assert(
    fc.property(
      fc.array(fate, { minLength: 12, maxLength: 24 }),
      fc.array(fc.boolean()),
      (fates, turns) => {
        const dialer = new Subject('dialer');
        const listener = new Subject('listener');
        const taken = new Map([
          [dialer, 0],
          [listener, 0],
        ]);
        for (const [step, what] of fates.entries()) {
          const prefer = turns[step] ? [dialer, listener] : [listener, dialer];
          const from = prefer.find((one) => one.said.length > taken.get(one)!);
          if (!from) break;
          const to = from === dialer ? listener : dialer;
          const message = from.said[taken.get(from)!]!;
          taken.set(from, taken.get(from)! + 1);
          if (what === 'lost') continue;
          if (typeof what === 'object') to.hear(what);
          else {
            if (what === 'again') to.hear(from.said[0]);
            to.hear(message);
            if (what === 'twice') to.hear(message);
          }
        }
        for (const [one, other] of [
          [dialer, listener],
          [listener, dialer],
        ] as const) {
          if (one.did('claim') === 0) continue;
          // It claimed: so both had said the same so far, and the other made a proof over it.
          const hello = (each: Subject) =>
            each.said.find(({ type }) => type === 'hello') as HelloMessage;
          const transcript = {
            version: 1,
            volume: 'r0',
            dialer: hello(dialer),
            listener: hello(listener),
          };
          const secret = one.player.options.secret!;
          const mac = makeProof(secret, other.player.options.end, transcript);
          assert.ok(
            other.said.some((message) => message.type === 'proof' && message.mac === mac),
            'a claim without a proof',
          );
          assert.ok(one.did('start') <= 1 && one.did('prepare') <= 1);
        }
        const params = [dialer, listener].map(
          (one) => one.actions.find((action) => action.do === 'prepare')?.params,
        );
        if (params[0] && params[1]) {
          assert.is(params[0].incarnation, params[1].incarnation);
          assert.equal([params[0].peerId, params[1].peerId], [ID_B, ID_A]);
        }
      },
    ),
    options(600),
  );
});

test.run();
