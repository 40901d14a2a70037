/** Nodes with fake volumes that reach each other over loopback, with time running faster than on the wall. */
import { createServer } from 'node:net';
import type { NativeHandshakeState } from '../../../lib/binding/native.ts';
import type { PeerLinkStatus, ReplicationEvent, VolumeSpec } from '../../../lib/replication/api.ts';
import type { Clock } from '../../../lib/replication/clock.ts';
import { ReplicationHost } from '../../../lib/replication/host.ts';
import { FakeAddon } from './fake_native.ts';

const SPEED = 10;

export const fastClock: Clock = {
  now: () => performance.now() * SPEED,
  after(ms, callback) {
    const timer = setTimeout(callback, Math.max(0, ms) / SPEED);
    return () => clearTimeout(timer);
  },
  every(ms, callback) {
    const timer = setInterval(callback, ms / SPEED);
    timer.unref();
    return () => clearInterval(timer);
  },
};

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
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
    const end = Date.now() + 8_000;
    for (;;) {
      const link = await this.link(peer);
      if (condition(link)) return link;
      if (Date.now() > end) throw new Error(`${this.name}: ${JSON.stringify(link)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 20);
        this.#wake = () => {
          clearTimeout(timer);
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
  const a = new StageNode('alpha', await freePort());
  const b = new StageNode('beta', await freePort());
  a.addon.state = states.a ?? {};
  b.addon.state = states.b ?? {};
  await a.open([b]);
  await b.open([a]);
  return [a, b];
}

export async function shutdown(...nodes: StageNode[]): Promise<void> {
  await Promise.all(nodes.map((node) => node.host.shutdown()));
}
