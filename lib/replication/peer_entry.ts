/**
 * What links.ts knows of one peer: whether it is wanted, how the tries to reach it ended, and when the next one may begin.
 */
import type { HandshakeOutcome } from './handshake.ts';
import type { RefusalCode } from './messages.ts';

/** Immediate retries in a row after the state changed during a handshake. */
export const STALE_RETRIES_MAX = 5;

export interface RetryOptions {
  retryMinMs: number;
  retryMaxMs: number;
  /** 0 <= value < 1 */
  random(): number;
}

/** Refusals that pass by themselves: not shown as Refused. */
const PASSING: ReadonlySet<RefusalCode> = new Set([
  'BUSY',
  'DUPLICATE',
  'STALE',
  'STANDALONE',
  'NOT_SELECTED',
  'CLOSING',
  'TIMEOUT',
]);

export class PeerEntry {
  readonly name: string;
  readonly #options: RetryOptions;
  /** Not StandAlone. */
  wanted = true;
  discardMine = false;
  halted: 'SplitBrain' | 'Unrelated' | null = null;
  refused = false;
  reason = '';
  /** The last refusal that was told as an event; the same one again is no news. */
  told = '';
  attempts = 0;
  /** As PeerLinkStatus has it. */
  reachable: boolean | null = null;
  staleRetries = 0;
  retryAt = 0;
  /** `heardAt`: when its connection was there, or the HELLO came; null: not yet. */
  dial: { id: number; heardAt: number | null } | null = null;
  /** Answered while probing: not dialled again. */
  asked = false;

  constructor(name: string, options: RetryOptions) {
    this.name = name;
    this.#options = options;
  }

  /** Nothing is wrong with it. */
  calm(): void {
    this.attempts = 0;
    this.staleRetries = 0;
    this.halted = null;
    this.refused = false;
  }

  retrySoon(now: number): void {
    this.retryAt = now + this.#jitter(this.#options.retryMinMs);
  }

  /** A try ended; `dialled`: by this node. Returns the refusal that is news, or null. */
  settle(outcome: HandshakeOutcome, dialled: boolean, now: number): string | null {
    this.reachable =
      outcome.kind === 'refused' ? outcome.code !== 'TIMEOUT' : outcome.kind !== 'failed';
    if (outcome.kind === 'probed') {
      this.asked = true;
      this.calm();
      this.reason = '';
      this.retrySoon(now);
      return null;
    }
    if (outcome.kind === 'conflict') {
      const { kind, reason } = outcome.decision;
      const halted = kind === 'splitBrain' ? 'SplitBrain' : 'Unrelated';
      const isNews = this.halted !== halted;
      Object.assign(this, { halted, refused: false, reason });
      this.asked = true;
      return isNews ? reason : null;
    }
    const { reason } = outcome;
    const code = outcome.kind === 'refused' ? outcome.code : 'TIMEOUT';
    if (outcome.kind === 'refused' && outcome.decision) this.asked = true;
    if (code === 'STALE' && this.staleRetries < STALE_RETRIES_MAX) {
      this.staleRetries += 1;
      // The side that dialled tries again at once, the other leaves it the first move.
      if (dialled) this.retryAt = now;
      else this.retrySoon(now);
      return null;
    }
    if (code === 'DUPLICATE' || code === 'BUSY') {
      // A busy peer counts as tried, so that the next one gets its turn; the time to wait does not grow.
      if (code === 'BUSY') this.attempts += 1;
      this.refused = false;
      this.reason = reason;
      this.retrySoon(now);
      return null;
    }
    this.refused = !PASSING.has(code);
    this.reason = reason;
    this.attempts += 1;
    this.retryAt = now + this.#backoff();
    if (!this.refused || this.told === reason) return null;
    this.told = reason;
    return reason;
  }

  #jitter(ms: number): number {
    return Math.round(ms * (0.5 + this.#options.random() / 2));
  }

  #backoff(): number {
    const { retryMinMs, retryMaxMs } = this.#options;
    // 2^30 of anything is over every maximum.
    return this.#jitter(Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(this.attempts - 1, 30)));
  }
}
