/**
 * Nodes that dial each other over a simulated network with random delays and breaks: links.ts and handshake.ts as they are, time and
 * network made here. Whatever happens, no node ever has two links, and when the breaks stop both ends of each link agree on it.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  Handshake,
  type HandshakeAction,
  type HandshakeOutcome,
} from '../../../lib/replication/handshake.ts';
import { Links, type LinksAction } from '../../../lib/replication/links.ts';
import type { HelloMessage } from '../../../lib/replication/messages.ts';
import { nativeState } from './duet.ts';
import { type Random, seededRandom } from './random.ts';

class World {
  now = 0;
  readonly random: Random;
  readonly breaks: boolean;
  readonly nodes = new Map<string, Node>();
  /** In the order of time. */
  readonly #events: Array<{ at: number; run: () => void }> = [];

  constructor(random: Random, breaks: boolean) {
    this.random = random;
    this.breaks = breaks;
  }

  after(ms: number, run: () => void): void {
    const at = this.now + ms;
    let place = this.#events.length;
    while (place > 0 && this.#events[place - 1]!.at > at) place -= 1;
    this.#events.splice(place, 0, { at, run });
  }

  runUntil(end: number): void {
    while (this.#events.length > 0 && this.#events[0]!.at <= end) {
      const { at, run } = this.#events.shift()!;
      this.now = at;
      run();
      for (const node of this.nodes.values()) node.check();
    }
    this.now = end;
  }
}

/** One end of a connection; what is sent arrives in order, after a delay that differs each time. */
class End {
  readonly world: World;
  other: End | null = null;
  open = true;
  /** When the last thing sent arrives. */
  #busyUntil = 0;
  onMessage: (json: string) => void = () => {};
  onClosed: () => void = () => {};

  constructor(world: World) {
    this.world = world;
  }

  #deliver(run: () => void): void {
    const at = Math.max(this.world.now + this.world.random.below(40), this.#busyUntil);
    this.#busyUntil = at;
    this.world.after(at - this.world.now, run);
  }

  send(json: string): void {
    const { other } = this;
    if (this.open && other) this.#deliver(() => other.open && other.onMessage(json));
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    const { other } = this;
    if (other) {
      this.#deliver(() => {
        if (!other.open) return;
        other.open = false;
        other.onClosed();
      });
    }
  }

  /** Both ends see it at once. */
  break(): void {
    for (const end of [this, this.other]) {
      if (!end?.open) continue;
      end.open = false;
      end.onClosed();
    }
  }
}

interface Call {
  id: number;
  peer: string;
  end: End;
  handshake: Handshake;
  prepared: boolean;
  up: boolean;
  over: boolean;
}

class Node {
  readonly name: string;
  readonly world: World;
  readonly links: Links;
  readonly calls = new Map<number, Call>();
  /** Connections that ended without a link. */
  wasted = 0;
  /** Incarnations of links that were prepared. */
  readonly incarnations: number[] = [];

  constructor(name: string, peers: string[], world: World) {
    this.name = name;
    this.world = world;
    this.links = new Links({
      node: name,
      peers,
      retryMinMs: 100,
      retryMaxMs: 1000,
      random: () => world.random.next(),
    });
    world.nodes.set(name, this);
  }

  get up(): Call | undefined {
    return [...this.calls.values()].find((call) => call.up);
  }

  check(): void {
    const busy = [...this.calls.values()].filter((call) => call.prepared || call.up);
    if (busy.length > 1) throw new Error(`'${this.name}' has ${busy.length} links`);
  }

  do(actions: LinksAction[]): void {
    for (const action of actions) {
      if (action.do === 'dial') this.#dial(action.id, action.peer);
      else if (action.do === 'drop') {
        const call = this.calls.get(action.id);
        if (call) this.#run(call, call.handshake.abort(action.refusal.code, action.refusal.reason));
      } else if (action.do === 'stopLink') this.#down('stopped');
    }
    const next = this.links.nextDeadline();
    if (Number.isFinite(next)) {
      this.world.after(Math.max(0, next - this.world.now), () =>
        this.do(this.links.tick(this.world.now)),
      );
    }
  }

  #call(id: number, peer: string, end: End, dials: boolean): Call {
    const handshake = new Handshake({
      end: dials ? 'dialer' : 'listener',
      volume: 'r0',
      node: this.name,
      nodeId: Buffer.from(this.name).toString('hex').padEnd(32, '0'),
      peer,
      secret: 'sesame',
      isLoopback: () => false,
      protocol: 'C',
      nonce: Array.from({ length: 64 }, () => this.world.random.below(16).toString(16)).join(''),
      syncGeneration: '5'.repeat(16),
    });
    const call = { id, peer, end, handshake, prepared: false, up: false, over: false };
    this.calls.set(id, call);
    end.onClosed = () =>
      call.up ? this.#down('broken') : this.#run(call, handshake.closed('gone'));
    this.world.after(10_000, () => {
      if (!call.up && !call.over) this.#run(call, handshake.abort('TIMEOUT', 'late'));
    });
    return call;
  }

  #dial(id: number, peer: string): void {
    const { world } = this;
    const end = new End(world);
    const call = this.#call(id, peer, end, true);
    const far = world.nodes.get(peer)!;
    // Now and then nobody answers.
    if (world.breaks && world.random.below(10) === 0) {
      world.after(500, () => this.#run(call, call.handshake.closed('no connection')));
      return;
    }
    world.after(world.random.below(40), () => {
      if (call.over) return;
      end.other = new End(world);
      end.other.other = end;
      far.answer(end.other);
      this.links.opened(id, world.now);
      end.onMessage = (json) => this.#onMessage(call, json);
      this.#run(call, call.handshake.start());
    });
  }

  answer(end: End): void {
    end.onMessage = (json) => {
      const hello = JSON.parse(json) as HelloMessage;
      const call = this.#call(this.links.newId(), hello.node, end, false);
      end.onMessage = (text) => this.#onMessage(call, text);
      this.#run(call, call.handshake.accept(hello));
    };
  }

  #onMessage(call: Call, json: string): void {
    this.#run(call, call.handshake.message(json));
    if (call.handshake.greeted && !call.over) this.links.greeted(call.id, this.world.now);
  }

  #run(call: Call, actions: HandshakeAction[]): void {
    const { handshake } = call;
    const later = (run: () => HandshakeAction[]) =>
      this.world.after(this.world.random.below(60), () => this.#run(call, run()));
    for (const action of actions) {
      if (action.do === 'send') call.end.send(JSON.stringify(action.message));
      else if (action.do === 'claim') {
        const incoming = handshake.end === 'listener';
        const claimed = this.links.claim(call.id, call.peer, incoming, this.world.now);
        this.do(claimed.actions);
        this.#run(call, handshake.claimed(claimed.refusal, 'secondary'));
      } else if (action.do === 'state') {
        const nodeId = Buffer.from(this.name).toString('hex').padEnd(32, '0');
        later(() =>
          handshake.state({
            native: nativeState(nodeId),
            discardMine: false,
            probe: false,
            otherIdentity: null,
          }),
        );
      } else if (action.do === 'prepare') {
        this.links.preparing(call.id);
        later(() => {
          if (call.over) return [];
          call.prepared = true;
          this.incarnations.push(action.params.incarnation);
          return handshake.prepared();
        });
      } else if (action.do === 'start') {
        call.up = true;
        this.do(this.links.linked(call.id, this.world.now));
      } else this.#ended(call, action.outcome);
    }
  }

  #ended(call: Call, outcome: HandshakeOutcome): void {
    call.over = true;
    this.wasted += 1;
    call.end.close();
    this.calls.delete(call.id);
    this.do(this.links.ended(call.id, call.peer, outcome, this.world.now));
  }

  #down(why: string): void {
    const call = this.up;
    if (!call) return;
    call.over = true;
    call.end.close();
    this.calls.delete(call.id);
    this.do(this.links.linkDown(why, false, this.world.now));
  }
}

function play(seed: number, names: string[], breaks = true): World {
  const world = new World(seededRandom(seed), breaks);
  const nodes = names.map(
    (name) =>
      new Node(
        name,
        names.filter((each) => each !== name),
        world,
      ),
  );
  for (const node of nodes) {
    world.after(world.random.below(300), () => node.do(node.links.start(world.now)));
  }
  for (let i = 0; breaks && i < 20; i++) {
    world.after(world.random.below(20_000), () => {
      const node = world.random.pick(nodes);
      const calls = [...node.calls.values()];
      if (calls.length > 0) world.random.pick(calls).end.break();
    });
  }
  world.runUntil(breaks ? 60_000 : 5_000);
  return world;
}

const first = seededRandom().seed % 1_000_000;

test('two nodes end up with the one link, whatever the order of things', () => {
  for (let seed = first; seed < first + 80; seed++) {
    const world = play(seed, ['alpha', 'beta']);
    const [a, b] = [...world.nodes.values()] as [Node, Node];
    assert.ok(a.up && b.up, `seed ${seed}: ${a.links.status('beta').reason}`);
    assert.is(a.up.end.other, b.up.end, `seed ${seed}: two different connections`);
    assert.is(a.incarnations.at(-1), b.incarnations.at(-1), `seed ${seed}`);
    assert.is(a.calls.size + b.calls.size, 2, `seed ${seed}: connections left over`);
  }
});

test('undisturbed, crossed connections cost no second link', () => {
  for (let seed = first; seed < first + 200; seed++) {
    const world = play(seed, ['alpha', 'beta'], false);
    for (const node of world.nodes.values()) {
      assert.ok(node.up, `seed ${seed}`);
      assert.is(node.incarnations.length, 1, `seed ${seed}: '${node.name}' prepared more than one`);
      assert.ok(node.wasted <= 5, `seed ${seed}: '${node.name}' wasted ${node.wasted} connections`);
    }
  }
});

test('of three nodes two are linked, and the third waits', () => {
  for (let seed = first; seed < first + 30; seed++) {
    const world = play(seed, ['alpha', 'beta', 'gamma']);
    const up = [...world.nodes.values()].filter((node) => node.up);
    assert.is(up.length, 2, `seed ${seed}`);
    assert.is(up[0]!.up!.end.other, up[1]!.up!.end, `seed ${seed}`);
  }
});

test.run();
