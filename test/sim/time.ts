/** Virtual time: microseconds that go on only when the scheduler says so, and what waits for them. */
import type { Clock } from '../../lib/replication/clock.ts';

/** One run of a daemon. Nothing of a dead one is ever called again. */
export interface Life {
  alive: boolean;
}

interface Timer {
  atUs: number;
  order: number;
  life: Life;
  run: (() => void) | null;
}

export class SimTime {
  nowUs = 0;
  #order = 0;
  readonly #heap: Timer[] = [];

  /** @returns a function that cancels it */
  at(atUs: number, life: Life, run: () => void): () => void {
    this.#order += 1;
    const timer: Timer = { atUs, order: this.#order, life, run };
    this.#push(timer);
    return () => {
      timer.run = null;
    };
  }

  /** When the next timer is due; Infinity without one. */
  get nextUs(): number {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined) return Number.POSITIVE_INFINITY;
      if (first.run !== null && first.life.alive) return first.atUs;
      this.#pop();
    }
  }

  /** Runs the earliest timer if it is due. */
  runDue(): boolean {
    if (this.nextUs > this.nowUs) return false;
    const { run } = this.#pop();
    run!();
    return true;
  }

  /** As lib/ uses time; its timers die with `life`. */
  clockOf(life: Life): Clock {
    const after = (ms: number, run: () => void) =>
      this.at(this.nowUs + Math.max(0, Math.ceil(ms * 1000)), life, run);
    return {
      now: () => this.nowUs / 1000,
      after,
      every: (ms, run) => {
        let cancel = () => {};
        const again = () => {
          cancel = after(ms, () => {
            again();
            run();
          });
        };
        again();
        return () => cancel();
      },
    };
  }

  #before(a: Timer, b: Timer): boolean {
    return a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(timer, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): Timer {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!this.#before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}
