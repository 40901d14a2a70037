/** Waiting for something that a state machine's events bring about, with a limit. */
import type { Clock } from './clock.ts';

export class Changes {
  readonly #clock: Clock;
  #waiters: Array<() => void> = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Something changed: all who wait look again. */
  wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  /** Waits until the condition holds; false: it did not in time. */
  async until(condition: () => boolean, limitMs: number): Promise<boolean> {
    const end = this.#clock.now() + limitMs;
    while (!condition()) {
      const left = end - this.#clock.now();
      if (left <= 0) return false;
      await new Promise<void>((resolve) => {
        const cancel = this.#clock.after(left, resolve);
        this.#waiters.push(() => {
          cancel();
          resolve();
        });
      });
    }
    return true;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#clock.after(ms, resolve));
  }
}
