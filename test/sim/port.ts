/**
 * Replication as the daemon's main thread sees it: the worker's calls and events, through something that takes time like a message port, and
 * keeps order like one. Errors lose their class on the way, as they do between threads.
 */
import { TidemarkError } from '../../lib/binding/errors.ts';
import type { Replication, ReplicationEvent } from '../../lib/replication/api.ts';
import type { Clock } from '../../lib/replication/clock.ts';
import type { ReplicationHost } from '../../lib/replication/host.ts';
import { CALLS, type CallName, fromRecord, toRecord } from '../../lib/replication/rpc.ts';
import type { Random } from './random.ts';

export class SimPort {
  readonly replication: Replication;
  host: ReplicationHost | null = null;
  readonly #clock: Clock;
  readonly #random: Random | null;
  readonly #listeners: Array<(event: ReplicationEvent) => void> = [];
  readonly #ways: [Array<() => void>, Array<() => void>] = [[], []];

  readonly #broken: (error: Error) => void;

  /**
   * @param random null: no time passes.
   * @param broken told of exceptions that are no answers
   */
  constructor(clock: Clock, random: Random | null, broken: (error: Error) => void) {
    this.#clock = clock;
    this.#broken = broken;
    this.#random = random;
    const calls = Object.fromEntries(
      CALLS.map((name) => [name, (...args: unknown[]) => this.#call(name, args)]),
    );
    this.replication = {
      ...(calls as Omit<Replication, 'onEvent' | 'onExit'>),
      onEvent: (listener) => this.#listeners.push(listener),
      onExit: () => {},
    };
  }

  emit(event: ReplicationEvent): void {
    this.#post(1, () => {
      for (const listener of this.#listeners) listener(event);
    });
  }

  #call(name: CallName, args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#post(0, () => {
        const call = this.host![name] as (...all: unknown[]) => Promise<unknown>;
        call.apply(this.host, args).then(
          (value) => this.#post(1, () => resolve(value)),
          (error: unknown) => {
            if (!(error instanceof TidemarkError)) this.#broken(error as Error);
            this.#post(1, () => reject(fromRecord(toRecord(error))));
          },
        );
      });
    });
  }

  #post(way: 0 | 1, run: () => void): void {
    if (this.#random === null) {
      run();
      return;
    }
    this.#ways[way].push(run);
    this.#clock.after(this.#random.next() * 2, () => this.#ways[way].shift()!());
  }
}
