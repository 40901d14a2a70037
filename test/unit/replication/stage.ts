/** Nodes with fake volumes that reach each other over loopback, with time that runs faster than on the wall. */
import type { NativeHandshakeState } from '../../../lib/binding/native.ts';
import type { PeerLinkStatus, ReplicationEvent, VolumeSpec } from '../../../lib/replication/api.ts';
import type { Clock } from '../../../lib/replication/clock.ts';
import { ReplicationHost } from '../../../lib/replication/host.ts';
import { freePorts } from '../../tools/link-proxy.ts';
import { FakeAddon } from './fake_native.ts';

const TURN_MS = 10;
const UNTIL_MS = 300_000;

interface Timer {
  atMs: number;
  /** null: once. */
  everyMs: number | null;
  callback: () => void;
}

/**
 * 10 ms for each turn of the event loop, of which there is at most one a millisecond. When the machine stands still so does
 * this time, and no deadline passes before what has come until then was heard.
 */
class TurnClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<Timer>();
  #turn: NodeJS.Timeout | null = null;

  now(): number {
    return this.#nowMs;
  }

  after(ms: number, callback: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + ms, everyMs: null, callback });
  }

  every(ms: number, callback: () => void): () => void {
    return this.#add({ atMs: this.#nowMs + ms, everyMs: ms, callback });
  }

  #add(timer: Timer): () => void {
    this.#timers.add(timer);
    this.#await();
    return () => this.#timers.delete(timer);
  }

  #await(): void {
    if (this.#timers.size === 0) return;
    this.#turn ??= setTimeout(() => this.#run(), 1);
    // What repeats does not keep the process alive.
    if ([...this.#timers].some(({ everyMs }) => everyMs === null)) this.#turn.ref();
    else this.#turn.unref();
  }

  #run(): void {
    this.#turn = null;
    this.#nowMs += TURN_MS;
    const due = [...this.#timers].filter(({ atMs }) => atMs <= this.#nowMs);
    for (const timer of due.sort((a, b) => a.atMs - b.atMs)) {
      if (!this.#timers.has(timer)) continue;
      if (timer.everyMs === null) this.#timers.delete(timer);
      else timer.atMs = this.#nowMs + timer.everyMs;
      timer.callback();
    }
    this.#await();
  }
}

export const fastClock: Clock = new TurnClock();

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port!;
}

export class StageNode {
  readonly name: string;
  readonly port: number;
  readonly addon = new FakeAddon();
  readonly events: ReplicationEvent[] = [];
  readonly host: ReplicationHost;
  #wake: () => void = () => {};

  constructor(name: string, port: number) {
    this.name = name;
    this.port = port;
    this.host = new ReplicationHost({
      addon: this.addon,
      clock: fastClock,
      emit: (event) => {
        this.events.push(event);
        this.#wake();
      },
    });
  }

  async open(peers: StageNode[], changes: Partial<VolumeSpec> = {}): Promise<void> {
    await this.host.open({
      name: 'r0',
      node: this.name,
      onIoError: 'pass-on',
      native: { name: 'r0', backing: '/nowhere' },
      listen: { host: '127.0.0.1', port: this.port },
      peers: peers.map(({ name, port }) => ({ name, host: '127.0.0.1', port, protocol: 'C' })),
      secret: 'sesame',
      pingIntervalMs: 1000,
      peerTimeoutMs: 6000,
      connectTimeoutMs: 5000,
      retryMinMs: 100,
      retryMaxMs: 1000,
      ...changes,
    });
  }

  start(): Promise<void> {
    return this.host.startLinks('r0');
  }

  get native() {
    return this.addon.volume;
  }

  async link(peer?: string): Promise<PeerLinkStatus> {
    const { links } = await this.host.status('r0');
    return links.find((each) => peer === undefined || each.name === peer)!;
  }

  /** Waits until the link to a peer is as wanted; looks again at every event, and now and then. */
  async until(
    condition: (link: PeerLinkStatus) => boolean,
    peer?: string,
  ): Promise<PeerLinkStatus> {
    const end = fastClock.now() + UNTIL_MS;
    for (;;) {
      const link = await this.link(peer);
      if (condition(link)) return link;
      if (fastClock.now() > end) throw new Error(`${this.name}: ${JSON.stringify(link)}`);
      await new Promise<void>((resolve) => {
        const cancel = fastClock.after(200, resolve);
        this.#wake = () => {
          cancel();
          resolve();
        };
      });
    }
  }

  connected(peer?: string): Promise<PeerLinkStatus> {
    return this.until((link) => link.connection === 'Connected', peer);
  }

  seen(kind: string): ReplicationEvent[] {
    return this.events.filter((each) => each.kind === kind);
  }
}

/** Two nodes, each the other's peer, not yet started. */
export async function duo(
  states: { a?: Partial<NativeHandshakeState>; b?: Partial<NativeHandshakeState> } = {},
): Promise<[StageNode, StageNode]> {
  const [port, peerPort] = await freePorts(2);
  const a = new StageNode('alpha', port!);
  const b = new StageNode('beta', peerPort!);
  a.addon.state = states.a ?? {};
  b.addon.state = states.b ?? {};
  await a.open([b]);
  await b.open([a]);
  return [a, b];
}

export async function shutdown(...nodes: StageNode[]): Promise<void> {
  await Promise.all(nodes.map((node) => node.host.shutdown()));
}
