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

/** What the worker was asked and has not answered yet. */
interface Question {
  atMs: number;
  /** Somebody stopped waiting for it: by a timer, which may fire a moment before the clock says so. */
  isLate: boolean;
}

export class StatusWatch {
  private readonly question: () => Promise<ReplicationStatus>;
  private readonly clock: Clock;
  private readonly nextTurn: (run: () => void) => void;
  private known: { status: ReplicationStatus; atMs: number } | null = null;
  /** Oldest first. */
  private readonly open = new Set<Question>();

  /** `nextTurn`: calls back when everything was heard that had come by now. */
  constructor(
    question: () => Promise<ReplicationStatus>,
    clock: Clock,
    nextTurn: (run: () => void) => void = setImmediate,
  ) {
    this.question = question;
    this.clock = clock;
    this.nextTurn = nextTurn;
  }

  /** How long the worker has owed an answer, once that is too long; 0: it answers. */
  get stuckMs(): number {
    for (const { atMs, isLate } of this.open) {
      const waitedMs = this.clock.now() - atMs;
      if (isLate || waitedMs > STATUS_MS) return Math.round(waitedMs);
    }
    return 0;
  }

  /** Waits for the answer as long as it takes. */
  ask(): Promise<ReplicationStatus> {
    return this.put().answer;
  }

  private put(): { question: Question; answer: Promise<ReplicationStatus> } {
    const question = { atMs: this.clock.now(), isLate: false };
    this.open.add(question);
    return { question, answer: this.answerTo(question) };
  }

  private async answerTo(question: Question): Promise<ReplicationStatus> {
    try {
      const status = await this.question();
      this.known = { status, atMs: this.clock.now() };
      return status;
    } finally {
      this.open.delete(question);
    }
  }

  /** The answer, or, when it does not come in time, the one before. */
  async latest(): Promise<KnownStatus> {
    // When the whole machine stood still, timers and questions have their turn before the answer that came.
    if (this.stuckMs > 0) await new Promise<void>((resolve) => this.nextTurn(resolve));
    if (this.stuckMs === 0) {
      const { question, answer } = this.put();
      // It may fail after it was given up.
      answer.catch(() => undefined);
      let cancel = () => {};
      const late = new Promise<null>((resolve) => {
        const giveUp = () => {
          question.isLate = true;
          resolve(null);
        };
        cancel = this.clock.after(STATUS_MS, () => this.nextTurn(giveUp));
      });
      const status = await Promise.race([answer, late]).finally(() => cancel());
      if (status !== null) return { status, ageMs: ageMsOf(status) };
    }
    // Nothing is known only while the volume is being opened.
    if (this.known === null) {
      const status = await this.ask();
      return { status, ageMs: ageMsOf(status) };
    }
    const { status, atMs } = this.known;
    return { status, ageMs: ageMsOf(status) + Math.round(this.clock.now() - atMs) };
  }
}

/** How old it was when the worker told it: the volume's thread, too, may owe it an answer. */
function ageMsOf(status: ReplicationStatus): number {
  return Math.ceil(status.native.ageUs / 1000);
}
