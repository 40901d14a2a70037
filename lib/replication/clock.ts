/** Time as replication and the daemon's volumes use it; tests and the simulator pass their own. */
export interface Clock {
  /** Milliseconds, never going back. */
  now(): number;
  /** Calls back once, unless the returned function is called before. */
  after(ms: number, callback: () => void): () => void;
  /** Calls back again and again, until the returned function is called; does not keep the process alive. */
  every(ms: number, callback: () => void): () => void;
}

/** Longest time of a Node timer. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(Math.ceil(ms), 0), TIMER_MS_MAX));
    return () => clearTimeout(timer);
  },
  every(ms, callback) {
    const timer = setInterval(callback, ms);
    timer.unref();
    return () => clearInterval(timer);
  },
};
