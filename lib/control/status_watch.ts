/**
 * The status of one volume as the replication worker tells it, and what it told last while it does not answer. A worker that is
 * stuck gets one question at a time, however often somebody here wants to know.
 */

import type { ReplicationStatus } from '../replication/api.ts';
import type { Clock } from '../replication/clock.ts';

/** A worker that owes an answer for so long counts as stuck. */
const STATUS_MS = 1000;

export interface KnownStatus {
  status: ReplicationStatus;
  /** How old it is. */
  ageMs: number;
}

export class StatusWatch {
  private readonly question: () => Promise<ReplicationStatus>;
  private readonly clock: Clock;
  private known: { status: ReplicationStatus; atMs: number } | null = null;
  /** Since when the oldest question is out. */
  private askedMs: number | null = null;

  constructor(question: () => Promise<ReplicationStatus>, clock: Clock) {
    this.question = question;
    this.clock = clock;
  }

  /** How long the worker has owed an answer, once that is too long; 0: it answers. */
  get stuckMs(): number {
    const waitedMs = this.askedMs === null ? 0 : this.clock.now() - this.askedMs;
    return waitedMs > STATUS_MS ? Math.round(waitedMs) : 0;
  }

  /** Waits for the answer as long as it takes. */
  async ask(): Promise<ReplicationStatus> {
    this.askedMs ??= this.clock.now();
    try {
      const status = await this.question();
      this.known = { status, atMs: this.clock.now() };
      return status;
    } finally {
      this.askedMs = null;
    }
  }

  /** The answer, or, when it does not come in time, the one before. */
  async latest(): Promise<KnownStatus> {
    if (this.stuckMs === 0) {
      const asked = this.ask();
      // It may fail after it was given up.
      asked.catch(() => undefined);
      let cancel = () => {};
      const late = new Promise<null>((resolve) => {
        cancel = this.clock.after(STATUS_MS, () => resolve(null));
      });
      const status = await Promise.race([asked, late]).finally(() => cancel());
      if (status !== null) return { status, ageMs: 0 };
    }
    // Nothing is known only while the volume is being opened.
    if (this.known === null) return { status: await this.ask(), ageMs: 0 };
    const { status, atMs } = this.known;
    return { status, ageMs: Math.round(this.clock.now() - atMs) };
  }
}
