/**
 * The links of one volume as a state machine: whom to dial and when, which of several connections goes on, what ended and why. Events
 * and the time go in, actions come out; sockets, timers and randomness are the caller's.
 *
 * At most one connection of the volume holds the claim: the native volume has one link. What a peer's entry goes
 * through, in DRBD's words:
 *
 *   StandAlone   told to be alone; nothing happens until connect()
 *   Unconnected  waits: for its turn, for the backoff, for policy to select it
 *   Connecting   dialling
 *   Handshake    a connection is there, or the claim is held and the link not yet up
 *   (linked)     the native volume's own words: ExchangingMaps, SyncSource, SyncTarget, Connected
 *   SplitBrain, Unrelated   not dialled again until connect(); the peer may still try
 *   Refused      something must be changed by a person; tried again with backoff
 *
 * Crossed connections: the one that the node with the lower name dialled goes on. A link that is up is never
 * replaced by a new connection: it ends first (R16).
 */
import type { PeerLinkStatus } from './api.ts';
import type { HandshakeOutcome, Refusal } from './handshake.ts';
import { PeerEntry, type RetryOptions } from './peer_entry.ts';

/**
 * An own dial whose other end said nothing for so long, or whose handshake is not over so long after the claim, does not keep the peer's
 * own dial out: a peer that dials then has lost that connection, as one has that started again.
 */
export const DIAL_PRECEDENCE_MS = 1_000;

const NOT_SELECTED = 'not selected by policy';

export interface LinksOptions extends RetryOptions {
  node: string;
  peers: string[];
}

export type LinksAction =
  | { do: 'dial'; id: number; peer: string }
  /** End this connection's handshake. */
  | { do: 'drop'; id: number; refusal: Refusal }
  /** End the link in an orderly way; linkDown() follows. */
  | { do: 'stopLink'; peer: string; reason: string }
  | {
      do: 'event';
      kind: 'peer-up' | 'peer-down' | 'peer-seen' | 'peer-refused';
      peer: string;
      text: string;
    };

interface Holder {
  id: number;
  peer: string;
  incoming: boolean;
  phase: 'handshake' | 'preparing' | 'linked' | 'stopping';
  claimedAt: number;
}

export class Links {
  readonly #options: LinksOptions;
  readonly #entries: Map<string, PeerEntry>;
  #selected: string[];
  #started = false;
  #probing = false;
  #held: string | null = null;
  #holder: Holder | null = null;
  #lastId = 0;
  #actions: LinksAction[] = [];

  constructor(options: LinksOptions) {
    this.#options = options;
    this.#selected = [...options.peers];
    this.#entries = new Map(options.peers.map((name) => [name, new PeerEntry(name, options)]));
  }

  /** For a connection that came in. */
  newId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  /** Those that are not StandAlone. */
  get wanted(): string[] {
    return [...this.#entries.values()].filter(({ wanted }) => wanted).map(({ name }) => name);
  }

  /** The peer that the link is up with. */
  get linkedPeer(): string | null {
    const holder = this.#holder;
    return holder && (holder.phase === 'linked' || holder.phase === 'stopping')
      ? holder.peer
      : null;
  }

  /** The claim is held, and the link not yet up. */
  get shakingHands(): boolean {
    return this.#holder?.phase === 'handshake' || this.#holder?.phase === 'preparing';
  }

  discardsMine(peer: string): boolean {
    return this.#entries.get(peer)?.discardMine ?? false;
  }

  start(now: number): LinksAction[] {
    return this.#step(now, () => {
      this.#started = true;
    });
  }

  /** No new claims and dials, because of `why`; null: all are tried again. What is linked stays. */
  hold(why: string | null, now: number): LinksAction[] {
    return this.#step(now, () => {
      this.#held = why;
      if (why !== null) return;
      for (const entry of this.#entries.values()) entry.retryAt = now;
    });
  }

  /** Ends the handshake that holds the claim, if there is one. */
  giveUpHandshake(why: string, now: number): LinksAction[] {
    return this.#step(now, () => {
      if (!this.shakingHands) return;
      this.#actions.push({
        do: 'drop',
        id: this.#holder!.id,
        refusal: { code: 'BUSY', reason: why },
      });
    });
  }

  /** R18: while on, every peer is asked once, also those that policy left out, and no link is made. */
  probe(on: boolean, now: number): LinksAction[] {
    return this.#step(now, () => {
      this.#probing = on;
      for (const entry of this.#entries.values()) {
        entry.asked = false;
        // An inquiry asks at once: a wait that outlasts it would leave the peer out (R18).
        if (on || entry.attempts === 0) entry.retryAt = now;
        // What was to be only a question must not end as a link.
        if (!on) this.#letGoUnselected(entry);
      }
    });
  }

  get probing(): boolean {
    return this.#probing;
  }

  select(peers: string[], now: number): LinksAction[] {
    return this.#step(now, () => {
      this.#selected = peers.filter((name) => this.#entries.has(name));
      for (const entry of this.#entries.values()) this.#letGoUnselected(entry);
    });
  }

  connect(peer: string, discardMine: boolean, now: number): LinksAction[] {
    return this.#step(now, () => {
      const entry = this.#entry(peer);
      const linked = this.linkedPeer === peer;
      Object.assign(entry, { wanted: true, halted: null, refused: false, staleRetries: 0 });
      Object.assign(entry, { discardMine: discardMine && !linked, attempts: 0, retryAt: now });
      if (!linked) entry.reason = '';
    });
  }

  /** This node became primary. To yield was meant for what was there before, not for what is written from now on. */
  keepMine(): void {
    for (const entry of this.#entries.values()) entry.discardMine = false;
  }

  disconnect(peer: string, now: number): LinksAction[] {
    return this.#step(now, () => {
      const entry = this.#entry(peer);
      entry.wanted = false;
      entry.discardMine = false;
      entry.halted = null;
      entry.refused = false;
      entry.reason = 'disconnected by command';
      this.#letGo(entry, { code: 'STANDALONE', reason: 'disconnected by command' });
    });
  }

  /** The TCP connection of an own dial is there. */
  opened(id: number, now: number): void {
    const entry = this.#dialling(id);
    if (entry?.dial) entry.dial.heardAt = now;
  }

  /** The peer's HELLO came on an own dial. */
  greeted(id: number, now: number): void {
    const entry = this.#dialling(id);
    if (entry?.dial) entry.dial.heardAt = now;
  }

  /** A connection that has proved to be the peer's asks whether it may go on. */
  claim(
    id: number,
    peer: string,
    incoming: boolean,
    now: number,
  ): { refusal: Refusal | null; actions: LinksAction[] } {
    let refusal: Refusal | null = null;
    const actions = this.#step(now, () => {
      this.#entry(peer).reachable = true;
      refusal = this.#refusal(peer, incoming, now);
      // Policy may want it, now that it is there.
      const other = this.#holder !== null && this.#holder.peer !== peer;
      const unselected = !this.#selected.includes(peer);
      if (incoming && refusal !== null && (other || unselected)) {
        this.#event('peer-seen', peer, 'tried to connect');
      }
      if (refusal === null)
        this.#holder = { id, peer, incoming, phase: 'handshake', claimedAt: now };
    });
    return { refusal, actions };
  }

  /** From here on the native volume is involved. */
  preparing(id: number): void {
    if (this.#holder?.id === id) this.#holder.phase = 'preparing';
  }

  linked(id: number, now: number): LinksAction[] {
    return this.#step(now, () => {
      const holder = this.#holder;
      if (holder?.id !== id) return;
      holder.phase = 'linked';
      const entry = this.#entry(holder.peer);
      entry.calm();
      entry.reachable = true;
      entry.discardMine = false;
      entry.reason = '';
      entry.told = '';
      for (const other of this.#entries.values()) {
        if (!other.dial) continue;
        if (other.dial.id !== id) {
          this.#drop(other, { code: 'BUSY', reason: `linked with '${holder.peer}'` });
        } else other.dial = null;
      }
      this.#event('peer-up', holder.peer, '');
      // Policy or a person may have changed their mind during the handshake.
      if (entry.wanted) this.#letGoUnselected(entry);
      else this.#letGo(entry, { code: 'STANDALONE', reason: 'disconnected by command' });
    });
  }

  /** A connection ended before a link was made. */
  ended(id: number, peer: string, outcome: HandshakeOutcome, now: number): LinksAction[] {
    return this.#step(now, () => {
      const entry = this.#entry(peer);
      const held = this.#holder?.id === id;
      const dialled = entry.dial?.id === id;
      if (held) this.#holder = null;
      if (dialled) entry.dial = null;
      // What strangers send, and what was refused at the claim, says nothing about the peer.
      if (!held && !dialled) return;
      const news = entry.settle(outcome, dialled, now);
      if (news !== null) this.#event('peer-refused', peer, news);
    });
  }

  /** The link ended; `quiet`: as agreed, not an error. */
  linkDown(why: string, quiet: boolean, now: number): LinksAction[] {
    return this.#step(now, () => {
      const peer = this.linkedPeer;
      if (peer === null) return;
      const entry = this.#entry(peer);
      this.#holder = null;
      entry.reachable = null;
      if (entry.wanted) entry.reason = why;
      entry.retrySoon(now);
      this.#event('peer-down', peer, quiet ? '' : why);
    });
  }

  tick(now: number): LinksAction[] {
    return this.#step(now, () => {});
  }

  /** When tick() must be called at the latest; Infinity: not by time. */
  nextDeadline(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) {
      if (this.#mayDial(entry)) next = Math.min(next, entry.retryAt);
    }
    return next;
  }

  status(peer: string): Pick<PeerLinkStatus, 'connection' | 'reason' | 'attempts' | 'reachable'> & {
    linked: boolean;
  } {
    const entry = this.#entry(peer);
    const { attempts, reachable } = entry;
    const linked = this.linkedPeer === peer;
    const connection = linked ? 'Connected' : this.#connection(entry);
    return { connection, linked, attempts, reachable, reason: linked ? '' : this.#reason(entry) };
  }

  #connection(entry: PeerEntry): PeerLinkStatus['connection'] {
    if (!entry.wanted) return 'StandAlone';
    if (entry.halted) return entry.halted;
    if (entry.refused) return 'Refused';
    if (this.#holder?.peer === entry.name || entry.dial?.heardAt) return 'Handshake';
    return entry.dial ? 'Connecting' : 'Unconnected';
  }

  #reason(entry: PeerEntry): string {
    if (!entry.wanted || entry.halted || entry.refused) return entry.reason;
    if (!this.#selected.includes(entry.name)) return NOT_SELECTED;
    const holder = this.#holder;
    if (holder && holder.peer !== entry.name) return `linked with '${holder.peer}'`;
    return entry.reason;
  }

  #step(now: number, work: () => void): LinksAction[] {
    this.#actions = [];
    work();
    this.#dial(now);
    return this.#actions;
  }

  #event(kind: 'peer-up' | 'peer-down' | 'peer-seen' | 'peer-refused', peer: string, text: string) {
    this.#actions.push({ do: 'event', kind, peer, text });
  }

  #entry(peer: string): PeerEntry {
    const entry = this.#entries.get(peer);
    if (!entry) throw new RangeError(`no peer '${peer}'`);
    return entry;
  }

  #dialling(id: number): PeerEntry | undefined {
    for (const entry of this.#entries.values()) if (entry.dial?.id === id) return entry;
    return undefined;
  }

  #drop(entry: PeerEntry, refusal: Refusal): void {
    const id = entry.dial?.id;
    entry.dial = null;
    if (id !== undefined) this.#actions.push({ do: 'drop', id, refusal });
  }

  #letGoUnselected(entry: PeerEntry): void {
    if (this.#selected.includes(entry.name)) return;
    this.#letGo(entry, { code: 'NOT_SELECTED', reason: NOT_SELECTED });
  }

  /** Whatever connects to this peer is to end. */
  #letGo(entry: PeerEntry, refusal: Refusal): void {
    const holder = this.#holder;
    if (holder?.peer === entry.name) {
      if (holder.phase === 'linked') {
        holder.phase = 'stopping';
        this.#actions.push({ do: 'stopLink', peer: entry.name, reason: refusal.reason });
      } else if (holder.phase !== 'stopping' && holder.id !== entry.dial?.id) {
        this.#holder = null;
        this.#actions.push({ do: 'drop', id: holder.id, refusal });
      } else if (holder.phase !== 'stopping') this.#holder = null;
    }
    this.#drop(entry, refusal);
  }

  #refusal(peer: string, incoming: boolean, now: number): Refusal | null {
    const entry = this.#entry(peer);
    const { node } = this.#options;
    if (!this.#started) return { code: 'CLOSING', reason: `'${node}' has not started its links` };
    if (!entry.wanted) {
      return {
        code: 'STANDALONE',
        reason: `'${node}' was told to stay disconnected from '${peer}'`,
      };
    }
    if (!this.#probing && !this.#selected.includes(peer)) {
      return {
        code: 'NOT_SELECTED',
        reason: `'${peer}' is not selected by the policy of '${node}'`,
      };
    }
    if (this.#held !== null) return { code: 'BUSY', reason: this.#held };
    // Both sides know the names, so both prefer the same one of two crossed connections.
    const isPreferred = incoming ? peer < node : node < peer;
    const holder = this.#holder;
    if (holder) {
      if (holder.peer !== peer) {
        return { code: 'BUSY', reason: `'${node}' is linked with '${holder.peer}'` };
      }
      if (holder.phase !== 'handshake') {
        return { code: 'BUSY', reason: `'${node}' still has its last link with '${peer}'` };
      }
      const isFresh = now - holder.claimedAt < DIAL_PRECEDENCE_MS;
      if (holder.incoming !== incoming && !isPreferred && isFresh) return this.#duplicate(peer);
      // A peer that dials again has given up its earlier connection.
      this.#holder = null;
      if (entry.dial?.id === holder.id) entry.dial = null;
      this.#actions.push({ do: 'drop', id: holder.id, refusal: this.#duplicate(peer) });
    }
    if (incoming && entry.dial) {
      const { heardAt } = entry.dial;
      const precedes = heardAt !== null && now - heardAt < DIAL_PRECEDENCE_MS;
      if (!isPreferred && precedes) return this.#duplicate(peer);
      this.#drop(entry, this.#duplicate(peer));
    }
    return null;
  }

  #duplicate(peer: string): Refusal {
    const reason = `another connection between '${this.#options.node}' and '${peer}' goes on`;
    return { code: 'DUPLICATE', reason };
  }

  #mayDial(entry: PeerEntry): boolean {
    if (!this.#started || this.#held !== null || !entry.wanted || entry.dial) return false;
    if (this.#holder !== null) return false;
    // Nobody dials a peer in a split brain, or one that policy left out, and yet it is asked (R18).
    if (this.#probing) return !entry.asked;
    const place = this.#selected.indexOf(entry.name);
    if (place < 0 || entry.halted) return false;
    // A less preferred peer gets its turn when the more preferred ones were tried.
    return this.#selected.slice(0, place).every((name) => {
      const other = this.#entry(name);
      return !other.wanted || other.halted !== null || other.attempts > 0;
    });
  }

  #dial(now: number): void {
    const names = this.#probing ? this.#entries.keys() : this.#selected;
    for (const name of names) {
      const entry = this.#entry(name);
      if (!this.#mayDial(entry) || entry.retryAt > now) continue;
      entry.dial = { id: this.newId(), heardAt: null };
      this.#actions.push({ do: 'dial', id: entry.dial.id, peer: name });
    }
  }
}
