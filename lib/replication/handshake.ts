/**
 * One handshake over one connection, as a state machine: messages and answers of this node's volume come in, actions go out. No
 * socket, clock or randomness in here.
 *
 *   phase      waits for                                  then
 *   hello      the other's HELLO                          PROOF, or straight to claim when no secret is set
 *   proof      the other's PROOF                          claim
 *   claim      the volume: may this connection go on?     state
 *   state      own state (idle, R16) and the other's      DECISION
 *   decision   the other's DECISION, a mirror image       prepare, or end
 *   prepare    the volume: metadata durable, slot bound   READY
 *   ready      the other's READY                          start; bytes are frames of the link from here
 *
 * The listener claims before it sends what lets the dialer go on (its PROOF, or without a secret its HELLO). So of crossed
 * connections at most one is claimed on both sides.
 */
import type { NativeHandshakeState, NativeLinkParams, Protocol, Role } from '../binding/native.ts';
import { checkProof, type LinkEnd, linkIncarnation, makeProof, type Transcript } from './auth.ts';
import { GENERATION_JUST_CREATED, GENERATION_NONE, SLOT_PEER_PRIMARY } from './flags.ts';
import { type CopyState, type Decision, decide, isMirror } from './generations.ts';
import {
  type DecisionMessage,
  HANDSHAKE_MAGIC,
  type HandshakeMessage,
  type HelloMessage,
  type MessageOf,
  parseMessage,
  type RefusalCode,
  type StateMessage,
  VERSION_MAX,
  VERSION_MIN,
} from './messages.ts';

export interface HandshakeOptions {
  end: LinkEnd;
  volume: string;
  /** This node's name and identity. */
  node: string;
  nodeId: string;
  /** The peer's configured name. */
  peer: string;
  secret: string | null;
  /** Both ends of the connection are loopback addresses; asked once it is there. */
  isLoopback(): boolean;
  protocol: Protocol;
  /** 64 hex digits, random. */
  nonce: string;
  /** A random generation, should a full resync begin; 16 hex digits, not 0 or 1. */
  syncGeneration: string;
}

/** What this side tells of its copy beside the native state. */
export interface LocalState {
  native: NativeHandshakeState;
  discardMine: boolean;
  probe: boolean;
  /** Why the peer is not the one that had its name before; null: it is, or there was none. */
  otherIdentity: string | null;
}

export interface Refusal {
  code: RefusalCode;
  reason: string;
}

export type HandshakeOutcome =
  | {
      kind: 'refused';
      code: RefusalCode;
      reason: string;
      byPeer: boolean;
      peerRole: Role | null;
      decision: Decision | null;
    }
  /** Split brain or unrelated data. */
  | { kind: 'conflict'; decision: Decision; peerRole: Role }
  /** One side only asked. */
  | { kind: 'probed'; decision: Decision; peerRole: Role }
  /** The connection broke, or the other side said nonsense. */
  | { kind: 'failed'; reason: string };

export type HandshakeAction =
  | { do: 'send'; message: HandshakeMessage }
  | { do: 'claim'; nodeId: string }
  | { do: 'state'; nodeId: string }
  | { do: 'prepare'; params: NativeLinkParams; decision: Decision }
  | { do: 'start' }
  | { do: 'end'; outcome: HandshakeOutcome };

type Phase =
  | 'hello'
  | 'proof'
  | 'claim'
  | 'state'
  | 'decision'
  | 'prepare'
  | 'ready'
  | 'started'
  | 'ended';

export class Handshake {
  readonly #options: HandshakeOptions;
  #phase: Phase = 'hello';
  #actions: HandshakeAction[] = [];
  #transcript: Transcript | null = null;
  #peerId = '';
  #local: LocalState | null = null;
  #peer: StateMessage | null = null;
  #decision: Decision | null = null;
  #ownRole: Role | null = null;
  #peerReady = false;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  get end(): LinkEnd {
    return this.#options.end;
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** The peer's HELLO was seen and fits. */
  get greeted(): boolean {
    return this.#peerId !== '';
  }

  /** The peer has sent its last handshake message: what follows are frames of the link. */
  get peerReady(): boolean {
    return this.#peerReady;
  }

  get peerId(): string {
    return this.#peerId;
  }

  /** Null before the DECISION. */
  get decision(): Decision | null {
    return this.#decision;
  }

  get peerRole(): Role | null {
    return this.#peer?.role ?? null;
  }

  /** Of all primaries that the peer knows of, this node was the last: what it holds came from here. */
  get wasLastPrimary(): boolean {
    return ((this.#peer?.slotFlags ?? 0) & SLOT_PEER_PRIMARY) !== 0;
  }

  /** The dialer begins. */
  start(): HandshakeAction[] {
    return this.#step(() => this.#sendHello());
  }

  /** The listener begins with the HELLO by which it found the volume. */
  accept(hello: HelloMessage): HandshakeAction[] {
    return this.#step(() => this.#onHello(hello));
  }

  message(json: string): HandshakeAction[] {
    return this.#step(() => {
      let message: HandshakeMessage;
      try {
        message = parseMessage(json);
      } catch (error) {
        this.#refuse('PROTOCOL', (error as Error).message);
        return;
      }
      this.#onMessage(message);
    });
  }

  /** The volume's answer to 'claim'. */
  claimed(refusal: Refusal | null, ownRole: Role | null): HandshakeAction[] {
    return this.#step(() => {
      this.#ownRole = ownRole;
      if (refusal !== null) {
        this.#refuse(refusal.code, refusal.reason);
        return;
      }
      this.#phase = 'state';
      if (this.#options.end === 'listener') {
        if (this.#options.secret === null) this.#sendHello();
        else this.#sendProof();
      }
      this.#actions.push({ do: 'state', nodeId: this.#peerId });
    });
  }

  /** The volume's answer to 'state'; only told when idle (R16). */
  state(local: LocalState): HandshakeAction[] {
    return this.#step(() => {
      const { native, discardMine, probe } = local;
      this.#local = local;
      this.#ownRole = native.role;
      this.#send({
        type: 'state',
        role: native.role,
        disk: native.disk,
        volumeBytes: native.volumeBytes,
        chunkBytes: native.chunkBytes,
        current: native.current,
        bitmap: native.bitmap,
        history: native.history,
        flags: native.flags,
        slotBound: native.slot >= 0,
        slotFlags: native.slotFlags,
        dirtyChunks: native.dirtyChunks,
        discardMine,
        protocol: this.#options.protocol,
        probe,
      });
      this.#decide();
    });
  }

  prepared(): HandshakeAction[] {
    return this.#step(() => {
      this.#send({ type: 'ready' });
      this.#phase = 'ready';
      this.#startIfReady();
    });
  }

  prepareFailed(code: string, message: string): HandshakeAction[] {
    return this.#step(() => {
      if (code === 'LINK_STALE') this.#refuse('STALE', 'the state changed during the handshake');
      else if (code === 'LINK_BUSY') this.#refuse('BUSY', message);
      else this.#refuse('PREPARE', message);
    });
  }

  /** This side must stop: another connection is preferred, the deadline passed, the volume closes ... */
  abort(code: RefusalCode, reason: string): HandshakeAction[] {
    return this.#step(() => this.#refuse(code, reason));
  }

  /** The connection ended. */
  closed(reason: string): HandshakeAction[] {
    return this.#step(() => this.#end({ kind: 'failed', reason }));
  }

  #step(work: () => void): HandshakeAction[] {
    this.#actions = [];
    if (this.#phase !== 'ended' && this.#phase !== 'started') work();
    return this.#actions;
  }

  #send(message: HandshakeMessage): void {
    this.#actions.push({ do: 'send', message });
  }

  #end(outcome: HandshakeOutcome): void {
    this.#phase = 'ended';
    this.#actions.push({ do: 'end', outcome });
  }

  #refuse(code: RefusalCode, reason: string): void {
    // Only a peer that proved itself is told the role.
    const proved = this.#transcript !== null && this.#phase !== 'hello' && this.#phase !== 'proof';
    const role = proved && this.#ownRole !== null ? { role: this.#ownRole } : {};
    this.#send({ type: 'refused', code, reason, ...role });
    this.#end({
      kind: 'refused',
      code,
      reason,
      byPeer: false,
      peerRole: this.peerRole,
      decision: this.#decision,
    });
  }

  /** The other side proved itself, or at least is where this node dialled. */
  #isTrusted(): boolean {
    return this.#options.end === 'dialer' || (this.#phase !== 'hello' && this.#phase !== 'proof');
  }

  #sendHello(): void {
    const { volume, node, peer, nodeId, nonce, secret } = this.#options;
    this.#send({
      type: 'hello',
      magic: HANDSHAKE_MAGIC,
      versionMin: VERSION_MIN,
      versionMax: VERSION_MAX,
      volume,
      node,
      peer,
      nodeId,
      nonce,
      auth: secret === null ? 'none' : 'secret',
    });
  }

  #sendProof(): void {
    const { secret, end } = this.#options;
    this.#send({ type: 'proof', mac: makeProof(secret!, end, this.#transcript!) });
  }

  #onMessage(message: HandshakeMessage): void {
    if (message.type === 'refused') {
      this.#end({
        kind: 'refused',
        code: message.code,
        reason: message.reason,
        byPeer: true,
        peerRole: (this.#isTrusted() ? message.role : null) ?? this.peerRole,
        decision: this.#decision,
      });
      return;
    }
    const { type } = message;
    const phase = this.#phase;
    if (type === 'hello' && phase === 'hello') this.#onHello(message);
    else if (type === 'proof' && phase === 'proof') this.#onProof(message);
    else if (type === 'state' && (phase === 'claim' || phase === 'state') && !this.#peer) {
      this.#peer = message;
      this.#decide();
    } else if (type === 'decision' && phase === 'decision') this.#onDecision(message);
    else if (type === 'ready' && (phase === 'prepare' || phase === 'ready') && !this.#peerReady) {
      this.#peerReady = true;
      this.#startIfReady();
    } else this.#refuse('PROTOCOL', `an unexpected '${type}' message while waiting in '${phase}'`);
  }

  #onHello(hello: HelloMessage): void {
    const { volume, node, nodeId, peer, nonce, secret, isLoopback, end } = this.#options;
    const version = Math.min(hello.versionMax, VERSION_MAX);
    if (version < Math.max(hello.versionMin, VERSION_MIN)) {
      const theirs = `${hello.versionMin}..${hello.versionMax}`;
      this.#refuse(
        'VERSION',
        `no common version of the link protocol: '${node}' speaks ${VERSION_MIN}..${VERSION_MAX}, '${hello.node}' ${theirs}`,
      );
    } else if (hello.volume !== volume) {
      this.#refuse('VOLUME', `expected volume '${volume}', found '${hello.volume}'`);
    } else if (hello.node !== node && hello.nodeId === nodeId && hello.nonce !== nonce) {
      this.#refuse(
        'IDENTITY',
        `the metadata of '${node}' and '${hello.node}' are copies of each other (node id ${nodeId}): make one of them anew with 'tidemark create --force'`,
      );
    } else if (hello.nodeId === nodeId || hello.nonce === nonce) {
      this.#refuse('IDENTITY', `'${node}' is connected to itself: check the peer's address`);
    } else if (hello.node !== peer || hello.peer !== node) {
      this.#refuse(
        'NODE',
        `'${node}' expected to meet '${peer}', but found '${hello.node}', which expected '${hello.peer}'`,
      );
    } else if ((hello.auth === 'none') !== (secret === null)) {
      const [has, lacks] = secret === null ? [hello.node, node] : [node, hello.node];
      this.#refuse('AUTH', `'${has}' has a secret configured, '${lacks}' has none`);
    } else if (secret === null && !isLoopback()) {
      this.#refuse(
        'AUTH',
        'a connection between machines needs a shared secret: set one on both nodes',
      );
    } else {
      const own = { versionMin: VERSION_MIN, versionMax: VERSION_MAX, node, nodeId, nonce };
      const [dialer, listener] = end === 'dialer' ? [own, hello] : [hello, own];
      this.#transcript = { version, volume, dialer, listener };
      this.#peerId = hello.nodeId;
      if (secret === null) {
        this.#claim();
        return;
      }
      this.#phase = 'proof';
      // The dialer proves itself first: a stranger who dials learns nothing that was made with the secret.
      if (end === 'dialer') this.#sendProof();
      else this.#sendHello();
    }
  }

  #onProof(message: MessageOf<'proof'>): void {
    const { secret, end } = this.#options;
    const other: LinkEnd = end === 'dialer' ? 'listener' : 'dialer';
    if (!checkProof(secret!, other, this.#transcript!, message.mac)) {
      this.#refuse('AUTH', 'the proof of the shared secret is wrong: the secrets differ');
      return;
    }
    this.#claim();
  }

  #claim(): void {
    this.#phase = 'claim';
    this.#actions.push({ do: 'claim', nodeId: this.#peerId });
  }

  #peerCopy(): CopyState {
    const { slotBound, ...state } = this.#peer!;
    return { ...state, slot: slotBound ? 0 : -1, nodeId: this.#peerId };
  }

  #decide(): void {
    if (!this.#local || !this.#peer) return;
    const { native, discardMine, probe, otherIdentity } = this.#local;
    const { protocol } = this.#options;
    if (protocol !== this.#peer.protocol) {
      this.#refuse(
        'CONFIG',
        `the protocols differ: ${protocol} at '${this.#options.node}', ${this.#peer.protocol} at '${this.#options.peer}'`,
      );
      return;
    }
    const decision = decide({ ...native, discardMine, protocol }, this.#peerCopy());
    // A blank disk in the place of the one that was lost has nothing to lose: it takes over the name, and is copied whole.
    const replaces =
      this.#peer.current === GENERATION_JUST_CREATED && decision.side === 'source' && decision.full;
    if (otherIdentity !== null && !replaces) {
      this.#refuse('IDENTITY', otherIdentity);
      return;
    }
    this.#decision = decision;
    const offers = !probe && decision.full && decision.side === 'source';
    this.#send({
      type: 'decision',
      kind: decision.kind,
      rule: decision.rule,
      side: decision.side,
      full: decision.full,
      syncGeneration: offers ? this.#options.syncGeneration : GENERATION_NONE,
    });
    this.#phase = 'decision';
  }

  #onDecision(theirs: DecisionMessage): void {
    const decision = this.#decision!;
    const peerRole = this.#peer!.role;
    if (!isMirror(decision, theirs)) {
      const tell = (each: Omit<Decision, 'reason'>) =>
        `${each.kind} (rule ${each.rule}, ${each.side}${each.full ? ', full' : ''})`;
      this.#refuse(
        'DECISION',
        `the two nodes decide differently: '${this.#options.node}' ${tell(decision)}, '${this.#options.peer}' ${tell(theirs)}`,
      );
      return;
    }
    if (this.#local!.probe || this.#peer!.probe) {
      this.#end({ kind: 'probed', decision, peerRole });
    } else if (decision.kind === 'splitBrain' || decision.kind === 'unrelated') {
      this.#end({ kind: 'conflict', decision, peerRole });
    } else if (decision.kind === 'refused') {
      // Both sides know it: no message is needed.
      this.#end({
        kind: 'refused',
        code: 'DECISION',
        reason: decision.reason,
        byPeer: false,
        peerRole,
        decision,
      });
    } else this.#prepare(decision, theirs);
  }

  #prepare(decision: Decision, theirs: DecisionMessage): void {
    const { options, native } = { options: this.#options, native: this.#local!.native };
    let syncGeneration = GENERATION_NONE;
    if (decision.full) {
      syncGeneration = decision.side === 'source' ? options.syncGeneration : theirs.syncGeneration;
      if (syncGeneration === GENERATION_NONE || syncGeneration === GENERATION_JUST_CREATED) {
        this.#refuse('PROTOCOL', `the source of a full resync offers generation ${syncGeneration}`);
        return;
      }
    }
    const peer = this.#peer!;
    this.#phase = 'prepare';
    this.#actions.push({
      do: 'prepare',
      decision,
      params: {
        serial: native.serial,
        peerId: this.#peerId,
        peerName: options.peer,
        incarnation: linkIncarnation(this.#transcript!),
        protocol: options.protocol,
        side: decision.side,
        full: decision.full,
        syncGeneration,
        peerCurrent: peer.current,
        peerBitmap: peer.bitmap,
        peerHistory: peer.history,
        peerFlags: peer.flags,
        peerRole: peer.role,
        peerDisk: peer.disk,
      },
    });
  }

  #startIfReady(): void {
    if (this.#phase !== 'ready' || !this.#peerReady) return;
    this.#phase = 'started';
    this.#actions.push({ do: 'start' });
  }
}
