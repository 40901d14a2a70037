/** A connection while it shakes hands: runs what the handshake machine asks for, with the deadlines, and tells the volume how it ended. */
import { TidemarkError } from '../binding/errors.ts';
import type { NativeLinkParams, Role } from '../binding/native.ts';
import type { Clock } from './clock.ts';
import type { Connection } from './connection.ts';
import type {
  Handshake,
  HandshakeAction,
  HandshakeOutcome,
  LocalState,
  Refusal,
} from './handshake.ts';
import type { HelloMessage } from './messages.ts';

/** From the connection to the claim. */
export const HANDSHAKE_MS = 10_000;
/** From the claim to the link. */
export const SETTLE_MS = 20_000;

/** The volume, as a session sees it. */
export interface SessionOwner {
  /** The dialled connection is there. */
  opened(session: Session): void;
  /** The peer's HELLO came and fits. */
  greeted(session: Session): void;
  claim(session: Session, nodeId: string): { refusal: Refusal | null; role: Role };
  /** Resolves when the native volume is idle (R16). */
  localState(session: Session, nodeId: string): Promise<LocalState>;
  prepare(session: Session, params: NativeLinkParams): Promise<void>;
  /** Both sides are ready. */
  start(session: Session): void;
  /** The native link that was prepared for nothing is to end. */
  release(session: Session, why: string): void;
  ended(session: Session, outcome: HandshakeOutcome): void;
}

export class Session {
  readonly id: number;
  readonly peer: string;
  readonly connection: Connection;
  readonly handshake: Handshake;
  readonly #owner: SessionOwner;
  readonly #clock: Clock;
  readonly #settled: () => void;
  #cancelTimer: () => void = () => {};
  #prepare: 'not' | 'running' | 'done' = 'not';
  #ended = false;

  constructor(
    id: number,
    peer: string,
    connection: Connection,
    handshake: Handshake,
    owner: SessionOwner,
    clock: Clock,
    /** Called when the peer has proved itself, or the session is over. */
    settled: () => void,
  ) {
    this.#settled = settled;
    this.id = id;
    this.peer = peer;
    this.connection = connection;
    this.handshake = handshake;
    this.#owner = owner;
    this.#clock = clock;
    connection.handler = {
      opened: () => this.#opened(),
      message: (json) => this.#message(json),
      garbage: (reason) => this.#run(handshake.abort('PROTOCOL', reason)),
      closed: (reason) => this.#run(handshake.closed(reason)),
    };
  }

  get incoming(): boolean {
    return this.connection.incoming;
  }

  /** Whether the session ended without a link. */
  get over(): boolean {
    return this.#ended;
  }

  /** Waits for the dialled connection, then begins. */
  dial(connectMs: number): void {
    this.#cancelTimer = this.#clock.after(connectMs, () => {
      this.connection.destroy();
      this.#run(this.handshake.closed(`no connection within ${connectMs} ms`));
    });
  }

  #opened(): void {
    if (this.#ended) return;
    this.#deadline(HANDSHAKE_MS);
    this.#owner.opened(this);
    this.#run(this.handshake.start());
  }

  /** A connection came in, and its HELLO named this volume and peer. */
  accept(hello: HelloMessage): void {
    this.#deadline(HANDSHAKE_MS);
    this.#run(this.handshake.accept(hello));
    if (!this.#ended) this.#owner.greeted(this);
  }

  abort(refusal: Refusal): void {
    this.#run(this.handshake.abort(refusal.code, refusal.reason));
  }

  /** The native link that was prepared here ended by itself. */
  nativeDown(why: string): void {
    this.#prepare = 'not';
    this.#run(this.handshake.abort('PREPARE', why));
  }

  #message(json: string): void {
    const greeted = this.handshake.greeted;
    this.#run(this.handshake.message(json));
    if (!greeted && this.handshake.greeted && !this.#ended) this.#owner.greeted(this);
    if (this.handshake.peerReady) this.connection.hold();
  }

  #deadline(ms: number): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(ms, () => {
      const phase = this.handshake.phase;
      this.#run(
        this.handshake.abort('TIMEOUT', `the handshake was not over within ${ms} ms (${phase})`),
      );
    });
  }

  #run(actions: HandshakeAction[]): void {
    for (const action of actions) this.#do(action);
  }

  #do(action: HandshakeAction): void {
    switch (action.do) {
      case 'send':
        this.connection.send(action.message);
        break;
      case 'claim': {
        const { refusal, role } = this.#owner.claim(this, action.nodeId);
        if (refusal === null) {
          this.#settled();
          this.#deadline(SETTLE_MS);
        }
        this.#run(this.handshake.claimed(refusal, role));
        break;
      }
      case 'state':
        this.#owner.localState(this, action.nodeId).then(
          (state) => this.#run(this.handshake.state(state)),
          (error: Error) => this.#run(this.handshake.abort('CLOSING', error.message)),
        );
        break;
      case 'prepare':
        this.#runPrepare(action.params);
        break;
      case 'start':
        this.#cancelTimer();
        this.connection.hold();
        this.#owner.start(this);
        break;
      case 'end':
        this.#end(action.outcome);
        break;
    }
  }

  #runPrepare(params: NativeLinkParams): void {
    this.#prepare = 'running';
    this.#owner.prepare(this, params).then(
      () => {
        if (this.#ended) {
          this.#owner.release(this, 'the handshake ended');
          return;
        }
        this.#prepare = 'done';
        this.#run(this.handshake.prepared());
      },
      (error: unknown) => {
        const code = error instanceof TidemarkError ? error.code : '';
        this.#run(this.handshake.prepareFailed(code, (error as Error).message));
      },
    );
  }

  #end(outcome: HandshakeOutcome): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#cancelTimer();
    this.#settled();
    this.connection.finish();
    if (this.#prepare === 'done') this.#owner.release(this, 'the handshake ended');
    this.#owner.ended(this, outcome);
  }
}
