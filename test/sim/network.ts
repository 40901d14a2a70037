/**
 * The network between the nodes: connections that are made, refused or never answered, broken (FIN, RST, with or without their last
 * bytes), stalled, and nodes that do not reach each other. The scheduler picks what happens next.
 */
import type {
  Address,
  ListenHandler,
  Listening,
  Stream,
  Transport,
} from '../../lib/replication/transport.ts';
import type { Random } from './random.ts';
import { type Micro, SimStream, type Splitting } from './stream.ts';
import type { Life } from './time.ts';
import type { Trace } from './trace.ts';

export interface NetworkNode {
  readonly index: number;
  readonly address: Address;
  /** The machine runs, whether or not a daemon does. */
  readonly up: boolean;
}

interface Dial {
  stream: SimStream;
  to: Address;
}

interface Listener {
  node: number;
  address: Address;
  life: Life;
  handler: ListenHandler;
}

/** Something that the network still has to tell a program. */
interface Notice {
  node: number;
  life: Life;
  run: () => void;
}

export class SimNetwork {
  readonly #random: Random;
  readonly #trace: Trace;
  readonly #nodes: readonly NetworkNode[];
  readonly splitting: Splitting;
  /** Once in so many dials nobody answers; 0: never. */
  dialLostOneIn = 0;
  /** Once in so many listens the address is taken; 0: never. */
  listenFailsOneIn = 0;
  /** Pairs that do not reach each other, as 'a b' with a < b. */
  readonly #cut = new Set<string>();
  /** Connections on which nothing arrives any more, though nothing closes. */
  readonly #stalled = new Set<SimStream>();
  #dials: Dial[] = [];
  #ends: SimStream[] = [];
  #listeners: Listener[] = [];
  #notices: Notice[] = [];
  #possible: Array<[SimStream, Micro]> = [];
  readonly #delivered: number[] = [];

  constructor(nodes: readonly NetworkNode[], random: Random, trace: Trace, splitting: Splitting) {
    this.#nodes = nodes;
    this.#random = random;
    this.#trace = trace;
    this.splitting = splitting;
  }

  transportOf(node: NetworkNode, life: Life): Transport {
    return {
      dial: (to) => this.#dial(node, life, to),
      listen: (address, handler) => this.#listen(node, life, address, handler),
    };
  }

  reachable(a: number, b: number): boolean {
    return !this.#cut.has(a < b ? `${a} ${b}` : `${b} ${a}`);
  }

  cut(a: number, b: number): void {
    this.#cut.add(a < b ? `${a} ${b}` : `${b} ${a}`);
  }

  /** All nodes reach each other, and what was stalled goes on. */
  heal(): void {
    this.#cut.clear();
    this.#stalled.clear();
    this.dialLostOneIn = 0;
    this.listenFailsOneIn = 0;
  }

  get healthy(): boolean {
    return this.#cut.size === 0 && this.#stalled.size === 0 && this.dialLostOneIn === 0;
  }

  /** Nothing arrives on the connections that are there now. */
  stall(): void {
    for (const end of this.#ends) this.#stalled.add(end);
  }

  /** Breaks the connections that are there now. */
  break(how: 'fin' | 'rst' | 'tail'): void {
    for (const end of this.#ends) {
      if (how === 'fin') end.finSent = true;
      else {
        if (how === 'tail') end.loseTail(this.#random);
        // What has arrived and was not read yet is gone as well.
        else end.loseAll();
        end.resetDue = true;
      }
    }
  }

  /** A program died: its kernel ends its connections, or with the machine they just fall silent. */
  died(node: number, kind: 'process' | 'power'): void {
    this.#listeners = this.#listeners.filter((each) => each.node !== node);
    this.#notices = this.#notices.filter((each) => each.node !== node);
    for (const end of this.#ends) {
      if (end.node !== node || end.state === 'closed') continue;
      if (kind === 'power') end.loseTail(this.#random);
      else if (end.peer !== null && end.peer.pipeBytes > 0 && this.#random.oneIn(2)) {
        // Unread bytes turn the end into a reset, which overtakes what is on its way.
        end.loseTail(this.#random);
        end.peer.resetDue = true;
      } else end.finSent = true;
      end.peer?.loseAll();
    }
  }

  /** Whether anything can happen. */
  get busy(): boolean {
    return this.#collect() > 0 || this.#notices.length > 0;
  }

  /** Bytes that a node was given until now, whoever sent them. */
  deliveredTo(node: number): number {
    return this.#delivered[node] ?? 0;
  }

  get connections(): number {
    return this.#ends.length / 2;
  }

  /** Does one thing; returns the node that it happened at, or -1. */
  step(): number {
    const count = this.#collect();
    const pick = this.#random.below(count + this.#notices.length);
    if (pick >= count) {
      const { node, run } = this.#notices.shift()!;
      run();
      return node;
    }
    const [end, micro] = this.#possible[pick]!;
    this.#do(end, micro);
    return end.node;
  }

  /** A stranger connects: says nothing, or nonsense. */
  stranger(node: NetworkNode, bytes: Buffer): void {
    const listener = this.#listeners.find((each) => each.node === node.index);
    if (listener === undefined) return;
    const life = { alive: true };
    const [far, near] = this.#pair(-1, life, listener);
    far.state = 'open';
    far.write(bytes);
    if (this.#random.oneIn(2)) far.destroySoon();
    this.#accept(near, listener);
  }

  #dial(node: NetworkNode, life: Life, to: Address): Stream {
    const stream = new SimStream(node.index, life, node.address.host, to.host);
    this.#dials.push({ stream, to });
    return stream;
  }

  #listen(node: NetworkNode, life: Life, address: Address, handler: ListenHandler): Listening {
    const listener: Listener = { node: node.index, address, life, handler };
    const taken =
      this.#random.oneIn(this.listenFailsOneIn) ||
      this.#listeners.some(
        (each) => each.address.host === address.host && each.address.port === address.port,
      );
    const notice = (run: () => void) => this.#notices.push({ node: node.index, life, run });
    if (taken) {
      notice(() => handler.failed(Object.assign(new Error('taken'), { code: 'EADDRINUSE' })));
    } else {
      this.#listeners.push(listener);
      notice(() => handler.listening());
    }
    return {
      close: () => {
        this.#listeners = this.#listeners.filter((each) => each !== listener);
        return Promise.resolve();
      },
    };
  }

  #collect(): number {
    const possible = this.#possible;
    possible.length = 0;
    for (const { stream } of this.#dials) {
      if (!stream.life.alive) continue;
      possible.push([stream, stream.state === 'destroyed' ? 'closed' : 'dial']);
    }
    for (const end of this.#ends) {
      const { peer } = end;
      const open =
        peer === null || end.node < 0 || peer.node < 0 || this.reachable(end.node, peer.node);
      end.possible(open && !this.#stalled.has(end), possible);
    }
    return possible.length;
  }

  #do(end: SimStream, micro: Micro): void {
    switch (micro) {
      case 'dial':
        this.#connect(end);
        break;
      case 'opened':
        end.openDue = false;
        end.state = 'open';
        end.handler?.opened();
        break;
      case 'send':
        end.send(this.#random, this.splitting);
        this.#answerDead(end);
        break;
      case 'deliver':
        this.#delivered[end.node] =
          this.deliveredTo(end.node) + end.deliver(this.#random, this.splitting);
        break;
      case 'end':
        end.finSeen = true;
        end.handler?.ending('the peer closed the connection');
        // As sockets do that do not stay half open.
        end.destroySoon();
        break;
      case 'reset':
        end.resetDue = false;
        end.handler?.ending('read ECONNRESET');
        end.destroy();
        break;
      case 'finished':
        end.finSent = true;
        end.state = 'destroyed';
        break;
      case 'closed':
        this.#closed(end);
        break;
    }
  }

  /** Bytes for a program that is gone are answered with a reset, if its machine is there to do it. */
  #answerDead(end: SimStream): void {
    const { peer } = end;
    if (peer === null || !peer.over) return;
    const up = peer.node < 0 || this.#nodes[peer.node]!.up;
    if (up && (peer.node < 0 || end.node < 0 || this.reachable(end.node, peer.node)))
      end.resetDue = true;
  }

  #closed(end: SimStream): void {
    const { peer } = end;
    this.#dials = this.#dials.filter((each) => each.stream !== end);
    if (peer !== null && !peer.over) {
      if (!end.finSent && peer.pipeBytes > 0 && this.#random.oneIn(2)) {
        end.loseTail(this.#random);
        peer.resetDue = true;
      }
      end.finSent = true;
      peer.loseAll();
    }
    end.close();
    this.#forget();
  }

  #forget(): void {
    this.#ends = this.#ends.filter((end) => !(end.over && (end.peer === null || end.peer.over)));
    for (const end of this.#stalled) if (end.over) this.#stalled.delete(end);
  }

  #connect(stream: SimStream): void {
    const dial = this.#dials.find((each) => each.stream === stream)!;
    const from = stream.node;
    const to = this.#nodes.find(
      (each) => each.address.host === dial.to.host && each.address.port === dial.to.port,
    );
    this.#dials = this.#dials.filter((each) => each !== dial);
    const lost =
      to === undefined ||
      !to.up ||
      !this.reachable(from, to.index) ||
      this.#random.oneIn(this.dialLostOneIn);
    if (lost) {
      // Nobody answers: it stays until its owner gives up.
      this.#ends.push(stream);
      return;
    }
    const listener = this.#listeners.find((each) => each.node === to.index && each.life.alive);
    if (listener === undefined) {
      stream.handler?.ending(`connect ECONNREFUSED ${dial.to.host}:${dial.to.port}`);
      stream.destroy();
      this.#ends.push(stream);
      return;
    }
    const near = new SimStream(to.index, listener.life, to.address.host, stream.localAddress);
    near.peer = stream;
    stream.peer = near;
    stream.openDue = true;
    this.#ends.push(stream, near);
    this.#trace.add('net', `connection ${from} -> ${to.index}`);
    this.#accept(near, listener);
  }

  #pair(from: number, life: Life, listener: Listener): [SimStream, SimStream] {
    const far = new SimStream(from, life, '10.9.9.9', listener.address.host);
    const near = new SimStream(
      listener.node,
      listener.life,
      listener.address.host,
      far.localAddress,
    );
    far.peer = near;
    near.peer = far;
    this.#ends.push(far, near);
    return [far, near];
  }

  /** The listening program hears of it some time later. */
  #accept(near: SimStream, listener: Listener): void {
    near.state = 'open';
    near.paused = true;
    this.#notices.push({
      node: near.node,
      life: listener.life,
      run: () => {
        near.paused = false;
        if (this.#listeners.includes(listener)) listener.handler.connection(near);
        else near.destroy();
      },
    });
  }
}
