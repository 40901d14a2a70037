/** The pause before a replication worker that died is started again: none after a long life, then doubled. */

const MIN_MS = 500;
const MAX_MS = 60_000;
/** A worker that lived for so long has not died of its start. */
const LONG_LIFE_MS = 60_000;

export class RestartPause {
  private nextMs = 0;
  private bornMs = 0;
  private wake: () => void = () => {};

  /** A worker was started. */
  born(): void {
    this.bornMs = performance.now();
  }

  /** It died: waits as long as it is due, or until cancel(). */
  async wait(): Promise<void> {
    const pauseMs = performance.now() - this.bornMs > LONG_LIFE_MS ? 0 : this.nextMs;
    this.nextMs = Math.min(Math.max(pauseMs * 2, MIN_MS), MAX_MS);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, pauseMs);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  cancel(): void {
    this.wake();
  }
}
