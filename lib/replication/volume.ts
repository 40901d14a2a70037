/**
 * One replicated volume in the worker: the native volume, its links to the peers, its role. The shell around the state machines
 * links.ts, handshake.ts and promotion.ts: it runs their actions and feeds them what happens.
 */
import { TidemarkError } from '../binding/errors.ts';
import type {
  AttachReport,
  NativeAddon,
  NativeEvent,
  NativeEventKind,
  NativeLinkParams,
  NativeStatus,
  NativeVolume,
  Role,
} from '../binding/native.ts';
import type {
  FrontendSpec,
  PeerLinkStatus,
  PeerSpec,
  PolicyValues,
  ReplicationEvent,
  ReplicationStatus,
  VolumeSpec,
} from './api.ts';
import { isLoopbackAddress, NONCE_BYTES } from './auth.ts';
import { Changes } from './changes.ts';
import type { Clock } from './clock.ts';
import { Connection } from './connection.ts';
import { GENERATION_JUST_CREATED, NO_NODE_ID } from './flags.ts';
import { Handshake, type HandshakeOutcome, type LocalState, type Refusal } from './handshake.ts';
import { Inquiry } from './inquiry.ts';
import { Links, type LinksAction } from './links.ts';
import type { Acceptor, Listeners } from './listener.ts';
import type { HelloMessage } from './messages.ts';
import { HANG_UP_MS, type LinkEnd, NativeLink } from './native_link.ts';
import { PeerBook } from './peer_book.ts';
import { PROMOTE_ANSWER_MS, Promotion, parseControl, type Verdict } from './promotion.ts';
import { SETTLE_MS, Session, type SessionOwner } from './session.ts';
import type { Transport } from './transport.ts';

export interface VolumeWorld {
  addon: NativeAddon;
  clock: Clock;
  transport: Transport;
  /** 0 <= value < 1, for jitter. */
  random(): number;
  /** For nonces and generations: nobody can guess them. */
  randomBytes(bytes: number): Buffer;
  listeners: Listeners;
  emit(event: ReplicationEvent): void;
}

/** Native events that are passed on as they are, under the API's names. */
const EVENT_KINDS: Partial<Record<NativeEventKind, string>> = {
  linkState: 'link-state',
  syncStarted: 'sync-started',
  syncFinished: 'sync-finished',
  diskState: 'disk',
  role: 'role',
  ioSuspended: 'suspended',
  ioResumed: 'resumed',
  ioError: 'error',
  frontendFailed: 'frontend-failed',
};
const OF_THE_LINK: ReadonlySet<NativeEventKind> = new Set([
  'linkState',
  'syncStarted',
  'syncFinished',
]);

function freshGeneration({ randomBytes }: Pick<VolumeWorld, 'randomBytes'>): string {
  let generation = '';
  do generation = randomBytes(8).toString('hex');
  while (generation <= GENERATION_JUST_CREATED);
  return generation;
}

export class ReplicatedVolume implements SessionOwner, Acceptor {
  readonly name: string;
  readonly #spec: VolumeSpec;
  readonly #world: VolumeWorld;
  readonly #native: NativeVolume;
  readonly #links: Links;
  readonly #link: NativeLink;
  readonly #changes: Changes;
  readonly #inquiry = new Inquiry();
  readonly #book: PeerBook;
  readonly #sessions = new Map<number, Session>();
  #nodeId = '';
  #role: Role = 'secondary';
  #promotion = new Promotion('');
  #started = false;
  #closing: Promise<void> | null = null;
  #verdict: (Verdict & { id: number }) | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #cancelTick: () => void = () => {};
  #listenError: string | null = null;
  /** I/O waits since a daemon died: not until it goes on is this a node like others. */
  #waits: boolean;

  private constructor(spec: VolumeSpec, world: VolumeWorld) {
    const names = spec.peers.map((peer) => peer.name);
    this.name = spec.name;
    this.#spec = spec;
    this.#world = world;
    this.#waits = spec.native.suspended === true;
    this.#changes = new Changes(world.clock);
    this.#links = new Links({
      node: spec.node,
      peers: names,
      retryMinMs: spec.retryMinMs,
      retryMaxMs: spec.retryMaxMs,
      random: world.random,
    });
    this.#native = world.addon.open(spec.native, {
      events: (events) => {
        for (const event of events) this.#onNative(event);
      },
      outgoing: () => this.#link.outgoing(),
      room: () => this.#link.room(),
    });
    this.#link = new NativeLink(this.#native, world.clock, (end) => this.#onDown(end));
    this.#book = new PeerBook(names, () => this.#native.status().peers);
  }

  static async open(spec: VolumeSpec, world: VolumeWorld): Promise<ReplicatedVolume> {
    const volume = new ReplicatedVolume(spec, world);
    try {
      const state = await volume.#native.handshakeState(NO_NODE_ID);
      volume.#nodeId = state.nodeId;
      volume.#role = state.role;
      volume.#promotion = new Promotion(state.nodeId);
      const { peerTimeoutMs, pingIntervalMs, onIoError } = spec;
      volume.#native.setLimits({ peerTimeoutMs, pingIntervalMs, onIoError });
    } catch (error) {
      await volume.#native.close(true);
      throw error;
    }
    return volume;
  }

  get attach(): AttachReport {
    return this.#native.attach;
  }

  // --- what the main thread asks ---

  async startLinks(): Promise<void> {
    this.#usable();
    if (this.#started) return;
    this.#started = true;
    if (this.#spec.listen) await this.#world.listeners.add(this.#spec.listen, this);
    if (!this.#closing) this.#apply(this.#links.start(this.#now()));
  }

  async startFrontend(frontend: FrontendSpec): Promise<string> {
    this.#usable();
    return frontend.kind === 'nbd'
      ? await this.#native.startNbd(frontend.options)
      : await this.#native.startUblk(frontend.options);
  }

  async stopFrontend(force: boolean): Promise<void> {
    this.#usable();
    await this.#native.stopFrontend(force);
  }

  async promote(force: boolean): Promise<void> {
    await this.#changeRole(async () => {
      if (this.#role === 'primary') return;
      const { allowed, reason } = await this.#consent();
      if (!allowed) {
        const who = `'${this.#spec.node}' cannot become primary of '${this.name}'`;
        throw new TidemarkError('PEER_REFUSED', `${who}: ${reason}`);
      }
      // A crash afterwards must find a secondary: nothing else would tell that what waits is older than the data.
      const { overtaken } = this.#inquiry;
      if (this.#waits && !force && overtaken !== null) {
        throw new TidemarkError('OVERTAKEN', overtaken);
      }
      await this.#native.promote(force);
    });
  }

  async demote(): Promise<void> {
    await this.#changeRole(() => this.#native.demote());
  }

  async invalidate(peer: string): Promise<void> {
    this.#usable();
    const name = this.#onePeer(peer);
    await this.#exclusive(async () => {
      const { nodeId, slot } = this.#book.find(name);
      const copy = `the copy of '${this.name}' on '${this.#spec.node}' cannot be invalidated`;
      if (slot < 0)
        throw new TidemarkError('NO_SLOT', `${copy}: it was never linked with '${name}'`);
      if (this.#role === 'primary') {
        throw new TidemarkError('REFUSED', `${copy} while it is primary: make it secondary first`);
      }
      await this.#held('its copy is being invalidated', async () => {
        await this.#link.hangUp('invalidated', { outdates: false, again: true });
        await this.#link.idle();
        await this.#native.invalidate(nodeId);
      });
    });
  }

  async disconnect(peer?: string): Promise<void> {
    this.#usable();
    for (const name of this.#peerNames(peer)) {
      this.#apply(this.#links.disconnect(name, this.#now()));
    }
    await this.#changes.until(() => {
      const linked = this.#links.linkedPeer;
      return linked === null || this.#links.wanted.includes(linked);
    }, HANG_UP_MS);
  }

  async connect(peer?: string, discardMine = false): Promise<void> {
    this.#usable();
    if (discardMine && this.#role === 'primary') {
      throw new TidemarkError(
        'REFUSED',
        `a primary cannot discard its changes: make '${this.name}' secondary on '${this.#spec.node}' first`,
      );
    }
    for (const name of this.#peerNames(peer)) {
      this.#apply(this.#links.connect(name, discardMine, this.#now()));
    }
  }

  async setPolicy(values: PolicyValues): Promise<void> {
    this.#usable();
    const { windowWrites, windowBytes, flushIntervalMs, selectedPeers } = values;
    this.#native.setLimits({ windowWrites, windowBytes, flushIntervalMs });
    this.#apply(this.#links.select(selectedPeers, this.#now()));
  }

  async resume(): Promise<void> {
    this.#usable();
    await this.#native.resume();
    this.#waits = false;
  }

  async status(): Promise<ReplicationStatus> {
    this.#usable();
    const native = this.#native.status();
    return { native, links: this.#spec.peers.map((peer) => this.#linkStatus(peer.name, native)) };
  }

  /** R18. Peers that are dialled meanwhile are only asked; what is linked already has been. */
  async askPeers(deadlineMs: number): Promise<string | null> {
    this.#usable();
    this.#inquiry.begin(this.#links.linkedPeer);
    this.#apply(this.#links.probe(true, this.#now()));
    const answer = () => {
      const linked = this.#links.linkedPeer;
      if (linked !== null && this.#promotion.peerRole === 'primary') {
        return `the peer '${linked}' is primary`;
      }
      return this.#inquiry.answer(this.#links.wanted);
    };
    try {
      await this.#changes.until(() => this.#closing !== null || answer() !== undefined, deadlineMs);
      return answer() ?? null;
    } finally {
      this.#apply(this.#links.probe(false, this.#now()));
    }
  }

  close(): Promise<void> {
    this.#closing ??= Promise.resolve().then(() => this.#close());
    return this.#closing;
  }

  // --- a session asks ---

  opened(session: Session): void {
    this.#links.opened(session.id, this.#now());
  }

  greeted(session: Session): void {
    if (!session.incoming) this.#links.greeted(session.id, this.#now());
  }

  claim(session: Session, nodeId: string): { refusal: Refusal | null; role: Role } {
    const { id, peer, incoming } = session;
    const role = this.#role;
    if (this.#closing) {
      return { refusal: { code: 'CLOSING', reason: `'${this.#spec.node}' is stopping` }, role };
    }
    const stranger = this.#book.objection(peer, nodeId);
    if (stranger !== null) return { refusal: { code: 'IDENTITY', reason: stranger }, role };
    const { refusal, actions } = this.#links.claim(id, peer, incoming, this.#now());
    this.#apply(actions);
    return { refusal, role };
  }

  async localState(session: Session, nodeId: string): Promise<LocalState> {
    const native = await this.#link.state(nodeId, () => session.over || this.#closing !== null);
    const discardMine = this.#links.discardsMine(session.peer);
    const otherIdentity = this.#book.otherIdentity(session.peer, nodeId);
    return { native, discardMine, probe: this.#links.probing, otherIdentity };
  }

  async prepare(session: Session, params: NativeLinkParams): Promise<void> {
    this.#links.preparing(session.id);
    await this.#link.prepare(session, params, () => session.over || this.#closing !== null);
  }

  start(session: Session): void {
    const { handshake, peer, id } = session;
    this.#sessions.delete(id);
    this.#book.met(peer, handshake.peerId);
    this.#promotion.linkUp(handshake.peerId, handshake.peerRole ?? 'secondary');
    this.#inquiry.heard(peer, handshake.decision, handshake.peerRole);
    const getsWrites = handshake.decision?.side === 'target' && !handshake.wasLastPrimary;
    const isBehind = handshake.peerRole === 'primary' || getsWrites;
    if (isBehind && this.#role !== 'primary') this.#inquiry.follows(peer);
    this.#link.start(session);
    this.#apply(this.#links.linked(id, this.#now()));
    this.#changes.wake();
  }

  release(session: Session, why: string): void {
    this.#link.release(session, why);
  }

  ended(session: Session, outcome: HandshakeOutcome): void {
    this.#sessions.delete(session.id);
    if (outcome.kind !== 'failed') {
      this.#inquiry.heard(session.peer, outcome.decision, outcome.peerRole);
    }
    this.#apply(this.#links.ended(session.id, session.peer, outcome, this.#now()));
    this.#changes.wake();
  }

  // --- the listener asks ---

  accept(connection: Connection, hello: HelloMessage, settled: () => void): void {
    const peer = this.#spec.peers.find((each) => each.name === hello.node);
    if (peer) {
      this.#session(this.#links.newId(), peer, connection, settled).accept(hello);
      return;
    }
    const reason = `'${hello.node}' is not a configured peer of '${this.#spec.node}'`;
    connection.send({ type: 'refused', code: 'NODE', reason });
    connection.finish();
  }

  listening(error: string | null): void {
    this.#listenError = error;
    if (error !== null) this.#emit({ kind: 'error', text: error });
  }

  // --- roles ---

  /** One at a time of what changes role or copy. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  /** No new handshakes meanwhile: what they tell would be wrong when they end. */
  async #held(why: string, work: () => Promise<void>): Promise<void> {
    const busy = `'${this.#spec.node}' is busy: ${why}`;
    this.#apply(this.#links.hold(busy, this.#now()));
    const isFree = () => !this.#links.shakingHands;
    try {
      // A peer that died in a handshake must not keep a failover waiting for longer than one that died later.
      await this.#changes.until(isFree, this.#spec.peerTimeoutMs);
      this.#apply(this.#links.giveUpHandshake(busy, this.#now()));
      await this.#changes.until(isFree, SETTLE_MS);
      await work();
    } finally {
      this.#apply(this.#links.hold(null, this.#now()));
    }
  }

  #changeRole(change: () => Promise<void>): Promise<void> {
    this.#usable();
    return this.#exclusive(() =>
      this.#held('its role changes', async () => {
        try {
          await change();
        } finally {
          if (!this.#closing) this.#role = (await this.#native.handshakeState(NO_NODE_ID)).role;
          if (this.#role === 'primary') this.#links.keepMine();
          await this.#link.send(this.#promotion.settled(this.#role));
        }
      }),
    );
  }

  /** The peer's consent to a promotion, when there is one. */
  async #consent(): Promise<Verdict> {
    const asked = this.#promotion.ask();
    if ('verdict' in asked) return asked.verdict;
    this.#verdict = null;
    await this.#link.send(asked.send);
    const isGone = () => this.#promotion.peerRole === null;
    const isAnswered = () => this.#verdict?.id === asked.id;
    await this.#changes.until(() => isGone() || isAnswered(), PROMOTE_ANSWER_MS);
    if (isAnswered()) return this.#verdict!;
    if (isGone()) return this.#promotion.unanswered();
    return { allowed: false, reason: `the peer did not answer within ${PROMOTE_ANSWER_MS} ms` };
  }

  // --- machinery ---

  #now(): number {
    return this.#world.clock.now();
  }

  #emit(event: Omit<ReplicationEvent, 'volume'>): void {
    this.#world.emit({ volume: this.name, ...event });
  }

  #usable(): void {
    if (this.#closing) throw new TidemarkError('CLOSED', `volume '${this.name}' is closed`);
  }

  #peerNames(peer: string | undefined): string[] {
    return peer === undefined ? this.#spec.peers.map((each) => each.name) : [this.#onePeer(peer)];
  }

  /** '' stands for the only one. */
  #onePeer(peer: string): string {
    const names = this.#spec.peers.map((each) => each.name);
    if (peer === '' && names.length === 1) return names[0]!;
    if (names.includes(peer)) return peer;
    throw new TidemarkError(
      'PEER_UNKNOWN',
      `'${this.name}' has no peer '${peer}' on '${this.#spec.node}': expected one of: ${names.join(', ')}`,
    );
  }

  #linkStatus(name: string, native: NativeStatus): PeerLinkStatus {
    const { connection, reason, attempts, reachable, linked } = this.#links.status(name);
    const up = native.connection;
    // The native snapshot may be a moment behind.
    const isBehind = up === 'StandAlone' || up === 'Prepared';
    return {
      name,
      connection: linked ? (isBehind ? 'Handshake' : up) : connection,
      reason: reason === '' && connection === 'Unconnected' ? (this.#listenError ?? '') : reason,
      ...this.#book.find(name),
      attempts,
      reachable,
    };
  }

  #session(id: number, peer: PeerSpec, connection: Connection, settled: () => void): Session {
    const handshake = new Handshake({
      end: connection.incoming ? 'listener' : 'dialer',
      volume: this.name,
      node: this.#spec.node,
      nodeId: this.#nodeId,
      peer: peer.name,
      secret: this.#spec.secret,
      isLoopback: () =>
        isLoopbackAddress(connection.localAddress) && isLoopbackAddress(connection.remoteAddress),
      protocol: peer.protocol,
      nonce: this.#world.randomBytes(NONCE_BYTES).toString('hex'),
      syncGeneration: freshGeneration(this.#world),
    });
    const { clock } = this.#world;
    const session = new Session(id, peer.name, connection, handshake, this, clock, settled);
    this.#sessions.set(id, session);
    return session;
  }

  #apply(actions: LinksAction[]): void {
    for (const action of actions) this.#do(action);
    this.#cancelTick();
    this.#cancelTick = () => {};
    const next = this.#links.nextDeadline();
    if (!Number.isFinite(next) || this.#closing) return;
    this.#cancelTick = this.#world.clock.after(next - this.#now(), () =>
      this.#apply(this.#links.tick(this.#now())),
    );
  }

  #do(action: LinksAction): void {
    switch (action.do) {
      case 'dial': {
        const peer = this.#spec.peers.find((each) => each.name === action.peer)!;
        const connection = Connection.dial({ host: peer.host, port: peer.port }, this.#world);
        this.#session(action.id, peer, connection, () => {}).dial(this.#spec.connectTimeoutMs);
        break;
      }
      case 'drop':
        this.#sessions.get(action.id)?.abort(action.refusal);
        break;
      case 'stopLink':
        void this.#link.hangUp(action.reason, { outdates: this.#role === 'primary', again: false });
        break;
      case 'event':
        this.#emit({ kind: action.kind, peer: action.peer, text: action.text });
        break;
    }
  }

  #onNative({ kind, text }: NativeEvent): void {
    if (kind === 'linkDown') this.#link.down(text);
    else if (kind === 'linkIdle') this.#link.wentIdle();
    else if (kind === 'control') this.#onControl(text);
    else {
      const peer = OF_THE_LINK.has(kind) ? this.#link.session?.peer : undefined;
      this.#emit({ kind: EVENT_KINDS[kind] ?? kind, ...(peer ? { peer } : {}), text });
    }
  }

  #onDown({ why, quiet, again }: LinkEnd): void {
    this.#promotion.linkDown();
    this.#apply(this.#links.linkDown(why, quiet || again, this.#now()));
    this.#changes.wake();
  }

  #onControl(json: string): void {
    const message = parseControl(json);
    const session = this.#link.session;
    if (!message || !session) return;
    if (message.type === 'bye') {
      this.#link.bye(message.reason, message.again);
      return;
    }
    const before = this.#promotion.peerRole;
    const { answer, verdict } = this.#promotion.receive(message, this.#role);
    if (answer) this.#link.answer(answer);
    if (verdict) this.#verdict = verdict;
    if (message.type === 'role' && message.role !== before) {
      if (message.role === 'primary') this.#inquiry.follows(session.peer);
      const text = `the peer is ${message.role}`;
      this.#emit({ kind: 'link-state', peer: session.peer, text });
    }
    this.#changes.wake();
  }

  /**
   * A primary that stops while linked steps down first: what it wrote is durable at the peer then, which may be primary in its turn.
   * One that cannot outdates the peer as it leaves, unless it is for its disk's sake (R18).
   */
  async #stepDown(): Promise<void> {
    await this.#exclusive(async () => {
      if (this.#role !== 'primary' || this.#link.session === null) return;
      await this.#native.demote();
      this.#role = 'secondary';
    }).catch(() => {});
  }

  async #close(): Promise<void> {
    const { listen, peers, node } = this.#spec;
    await this.#stepDown();
    for (const { name } of peers) this.#apply(this.#links.disconnect(name, this.#now()));
    this.#cancelTick();
    for (const session of this.#sessions.values()) {
      session.abort({ code: 'CLOSING', reason: `'${node}' is stopping` });
    }
    await this.#changes.until(() => this.#link.session === null, HANG_UP_MS);
    await this.#link.end();
    if (this.#started && listen) await this.#world.listeners.remove(listen, this);
    this.#changes.wake();
    await this.#native.close();
  }
}
