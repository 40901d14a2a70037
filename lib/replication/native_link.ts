/**
 * The native volume's one link, from the handshake's state to the last write of it (R16): which session it belongs to,
 * control messages over it, and its orderly end.
 *
 * Order: prepare() waits until the earlier link is idle and its socket gone, then empties the byte rings. 'linkDown' ends the
 * connection; 'linkIdle' lets the next handshake tell this volume's state.
 */
import { TidemarkError } from '../binding/errors.ts';
import type { NativeHandshakeState, NativeLinkParams, NativeVolume } from '../binding/native.ts';
import { Changes } from './changes.ts';
import type { Clock } from './clock.ts';
import type { ControlMessage } from './promotion.ts';
import type { Session } from './session.ts';

/** How often a volume that is not idle yet is asked again (R16). */
const IDLE_POLL_MS = 20;
/** An orderly end: how long the peer may take to be outdated, and to hang up. */
const OUTDATE_MS = 5_000;
const BYE_MS = 1_000;
/** The longest that hangUp() takes. */
export const HANG_UP_MS = OUTDATE_MS + 2 * BYE_MS;
/** A control message finds no room while the send ring is full. */
const CONTROL_RETRY_MS = 20;
const CONTROL_MS = 5_000;

export interface LinkEnd {
  session: Session;
  why: string;
  /** As agreed, not an error. */
  quiet: boolean;
  /** The peer comes back at once. */
  again: boolean;
}

export class NativeLink {
  readonly #native: NativeVolume;
  readonly #clock: Clock;
  readonly #changes: Changes;
  /** A link that was up has ended. */
  readonly #onDown: (end: LinkEnd) => void;
  #session: Session | null = null;
  /** How the link is going to end as agreed; null: its end would be an error. */
  #farewell: { why: string; again: boolean } | null = null;
  /** Not yet sent. */
  #answer: ControlMessage | null = null;
  #answering = false;
  #idle: Promise<void> = Promise.resolve();
  #resolveIdle: () => void = () => {};
  /** The socket of the earlier link: it may still use the send ring's memory. */
  #closed: Promise<void> = Promise.resolve();

  constructor(native: NativeVolume, clock: Clock, onDown: (end: LinkEnd) => void) {
    this.#native = native;
    this.#clock = clock;
    this.#changes = new Changes(clock);
    this.#onDown = onDown;
  }

  /** Whose link is prepared or up. */
  get session(): Session | null {
    return this.#session;
  }

  /** Every write of the last link has completed, and its socket is gone. */
  async idle(): Promise<void> {
    await this.#idle;
    await this.#closed;
  }

  /** @throws TidemarkError CLOSED when `given up` meanwhile. */
  async state(nodeId: string, givenUp: () => boolean): Promise<NativeHandshakeState> {
    await this.#idle;
    for (;;) {
      if (givenUp()) throw new TidemarkError('CLOSED', 'the handshake ended');
      const state = await this.#native.handshakeState(nodeId);
      if (state.idle) return state;
      await this.#changes.sleep(IDLE_POLL_MS);
    }
  }

  async prepare(session: Session, params: NativeLinkParams, givenUp: () => boolean): Promise<void> {
    await this.idle();
    if (givenUp() || this.#session) throw new TidemarkError('CLOSED', 'the handshake ended');
    this.#idle = new Promise((resolve) => {
      this.#resolveIdle = resolve;
    });
    this.#session = session;
    this.#farewell = null;
    this.#closed = session.connection.closed;
    try {
      this.#native.resetLinkBytes();
      await this.#native.linkPrepare(params);
    } catch (error) {
      if (this.#session === session) this.#session = null;
      // The volume itself says whether it is idle.
      this.#resolveIdle();
      throw error;
    }
  }

  /** Both sides are ready: from here on the connection carries frames. */
  start(session: Session): void {
    const { connection } = session;
    connection.handler = {
      opened: () => {},
      message: () => {},
      garbage: () => {},
      closed: (reason) => {
        if (this.#session === session) this.#native.linkStop(reason);
      },
    };
    this.#native.linkStart().then(
      (started) => {
        // Otherwise 'linkDown' has come, or comes.
        if (started && this.#session === session) connection.attach(this.#native);
      },
      () => connection.destroy(),
    );
  }

  /** The link was prepared for nothing. */
  release(session: Session, why: string): void {
    if (this.#session === session) this.#native.linkStop(why);
  }

  outgoing(): void {
    this.#session?.connection.drainOutgoing();
  }

  room(): void {
    this.#session?.connection.drainReceived();
  }

  /** 'linkDown' came. */
  down(why: string): void {
    const session = this.#session;
    if (!session) return;
    this.#session = null;
    this.#answer = null;
    const farewell = this.#farewell;
    this.#farewell = null;
    if (session.handshake.phase === 'started') {
      session.connection.destroy();
      const { why: reason, again } = farewell ?? { why, again: false };
      this.#onDown({ session, why: reason, quiet: farewell !== null, again });
    } else session.nativeDown(why);
    this.#changes.wake();
  }

  /** 'linkIdle' came. */
  wentIdle(): void {
    this.#resolveIdle();
  }

  /** Sends as soon as there is room; false: the link ended before, or there was none for too long. */
  async send(message: ControlMessage): Promise<boolean> {
    const session = this.#session;
    const json = JSON.stringify(message);
    const end = this.#clock.now() + CONTROL_MS;
    while (session && this.#session === session && this.#clock.now() < end) {
      // A volume that was closed meanwhile has no link either.
      if (await this.#native.sendControl(json).catch(() => false)) return true;
      await this.#changes.sleep(CONTROL_RETRY_MS);
    }
    return false;
  }

  /** Sends an answer, or the newer one that came while this waited for room: who asks and does not read costs no memory. */
  answer(message: ControlMessage): void {
    this.#answer = message;
    if (!this.#answering) void this.#sendAnswers();
  }

  async #sendAnswers(): Promise<void> {
    this.#answering = true;
    while (this.#answer) {
      const message = this.#answer;
      this.#answer = null;
      await this.send(message);
    }
    this.#answering = false;
  }

  /** Ends the link in an orderly way; resolves when it is down. `outdates`: of a primary, which tells the peer first (R18). */
  async hangUp(reason: string, options: { outdates: boolean; again: boolean }): Promise<void> {
    const session = this.#session;
    if (!session) return;
    const isDown = () => this.#session !== session;
    if (options.outdates) {
      // A peer that does not answer is left to the generations: they say who is newer.
      const outdated = this.#native.outdatePeer().catch(() => {});
      await this.#atMost(OUTDATE_MS, outdated);
    }
    if (!isDown()) {
      this.#farewell = { why: reason, again: options.again };
      const told = await this.send({ type: 'bye', again: options.again, reason });
      // The peer hangs up: so the farewell has arrived.
      if (told) await this.#changes.until(isDown, BYE_MS);
    }
    if (isDown()) return;
    this.#native.linkStop(reason);
    await this.#changes.until(isDown, BYE_MS);
  }

  /** Waits, and leaves no timer behind: that would keep the worker alive. */
  async #atMost(ms: number, awaited: Promise<void>): Promise<void> {
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#clock.after(ms, resolve);
    });
    await Promise.race([awaited, late]);
    cancel();
  }

  /** The peer said farewell. */
  bye(reason: string, again: boolean): void {
    const why = again ? 'the peer begins anew' : `the peer disconnected: ${reason}`;
    this.#farewell = { why, again };
    this.#native.linkStop(why);
  }

  /** The volume closes: nothing uses its memory after this. */
  async end(): Promise<void> {
    this.#session?.connection.destroy();
    this.#session = null;
    this.#changes.wake();
    await this.#closed;
  }
}
