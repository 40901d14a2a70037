/**
 * The policies of one volume: which values are in use, when a function is asked again, and what is done with its
 * answer. A state machine: samples, peer events and answers in; values and reports out. No clock of its own.
 *
 * A function's last good answer stays in use when a later call fails; before the first one, the default does. One
 * call of each function is under way at a time.
 */

import type { TidemarkError } from '../binding/errors.ts';
import { POLICY } from '../config/limits.ts';
import type { PolicySource, VolumeConfig } from '../config/resolved.ts';
import type { PolicyValues, ReplicationStatus } from '../replication/api.ts';
import { Facts } from './facts.ts';
import type { PolicyCalls, PolicyName } from './messages.ts';

/** A function is not asked more often, whatever its facts do; peer events are told at once. */
export const ASK_INTERVAL_MS = 1000;
/**
 * A function is asked again after this time though nothing happened: times among its facts, and the script's own clock, move. Who
 * selected no peer would otherwise never be asked again, because no peer can come or go.
 */
export const REFRESH_INTERVAL_MS = 10_000;
/** The same failure is reported so often. */
export const REPORT_INTERVAL_MS = 60_000;

/** {@link ScriptHost.call} */
export type PolicyCaller = <P extends PolicyName>(
  volume: string,
  policy: P,
  facts: PolicyCalls[P]['facts'],
  deadlineMs: number,
) => Promise<PolicyCalls[P]['answer']>;

export interface EvaluatorHooks {
  call: PolicyCaller;
  /** The values in use changed. */
  apply(values: PolicyValues): void;
  /** A function failed, for people. */
  report(message: string): void;
  /** Monotonic milliseconds. */
  now(): number;
}

interface FunctionState {
  busy: boolean;
  /** Asked for while busy. */
  again: boolean;
  askedMs: number;
  /** Facts of the last call, without those that change by themselves. */
  askedFacts: string;
  failure: string | null;
}

/** What moves without anything happening, and is no reason to ask at once. */
const MOVING = new Set(['lastSeenMs', 'idleMs']);

function comparable(facts: unknown): string {
  return JSON.stringify(facts, (key, value) => (MOVING.has(key) ? undefined : value));
}

export class Evaluator {
  readonly values: PolicyValues;
  private readonly config: VolumeConfig;
  private readonly hooks: EvaluatorHooks;
  private readonly facts: Facts;
  private readonly functions = new Map<PolicyName, FunctionState>();
  private readonly reported = new Map<string, { atMs: number; suppressed: number }>();
  private readonly waiters: Array<() => void> = [];
  private stopped = false;

  constructor(config: VolumeConfig, hooks: EvaluatorHooks) {
    this.config = config;
    this.hooks = hooks;
    this.facts = new Facts(config.name, config.local.name);
    const { policy } = config;
    const window = valueOr(policy.asyncWindow, {
      writes: POLICY.windowWrites.default,
      bytes: POLICY.windowBytes.default,
    });
    this.values = {
      windowWrites: window.writes,
      windowBytes: window.bytes,
      flushIntervalMs: valueOr(policy.flushIntervalMs, POLICY.flushInterval.default),
      selectedPeers: valueOr(
        policy.selectPeers,
        config.peers.map((peer) => peer.name),
      ),
    };
    const names: Array<[PolicyName, PolicySource<unknown>]> = [
      ['asyncWindow', policy.asyncWindow],
      ['flushInterval', policy.flushIntervalMs],
      ['selectPeers', policy.selectPeers],
    ];
    for (const [name, source] of names) {
      if (source.kind !== 'function') continue;
      this.functions.set(name, {
        busy: false,
        again: false,
        askedMs: Number.NEGATIVE_INFINITY,
        askedFacts: '',
        failure: null,
      });
    }
  }

  /** Some policy is a function, so that samples are of use. */
  get active(): boolean {
    return this.functions.size > 0;
  }

  /** The last failure of each function, null where the last call was good. For status. */
  get failures(): Partial<Record<PolicyName, string>> {
    const result: Partial<Record<PolicyName, string>> = {};
    for (const [name, state] of this.functions) {
      if (state.failure !== null) result[name] = state.failure;
    }
    return result;
  }

  /** A new sample; asks the functions whose facts changed. */
  sample(status: ReplicationStatus): void {
    this.facts.learn(this.hooks.now(), status);
    for (const name of this.functions.keys()) this.consider(name, false);
  }

  /** A peer came or went: `status` as it is now. */
  peersChanged(status: ReplicationStatus): void {
    this.facts.learn(this.hooks.now(), status);
    if (this.functions.has('selectPeers')) this.consider('selectPeers', true);
  }

  /** Answers that are still under way change nothing any more. */
  stop(): void {
    this.stopped = true;
  }

  private get idle(): boolean {
    return [...this.functions.values()].every((state) => !state.busy);
  }

  /** Resolves when no call is under way; each ends by its deadline. */
  settled(): Promise<void> {
    if (this.idle) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  private factsOf(name: PolicyName): PolicyCalls[PolicyName]['facts'] | null {
    if (name === 'asyncWindow') return this.facts.asyncWindow(this.config.protocol, this.values);
    if (name === 'flushInterval') return this.facts.flushInterval(this.values);
    return this.facts.selectPeers();
  }

  private consider(name: PolicyName, atOnce: boolean): void {
    const state = this.functions.get(name)!;
    const facts = this.factsOf(name);
    if (facts === null || this.stopped) return;
    if (state.busy) {
      state.again ||= atOnce;
      return;
    }
    const nowMs = this.hooks.now();
    const text = comparable(facts);
    const sinceMs = nowMs - state.askedMs;
    if (!atOnce && sinceMs < ASK_INTERVAL_MS) return;
    // A failed call is tried again although nothing changed: the script may be right with the next worker.
    const isNews = text !== state.askedFacts || state.failure !== null;
    if (!atOnce && !isNews && sinceMs < REFRESH_INTERVAL_MS) return;
    state.busy = true;
    state.askedMs = nowMs;
    state.askedFacts = text;
    this.ask(name, state, facts);
  }

  private ask(
    name: PolicyName,
    state: FunctionState,
    facts: PolicyCalls[PolicyName]['facts'],
  ): void {
    const call = this.hooks.call as (
      volume: string,
      policy: PolicyName,
      facts: unknown,
      deadlineMs: number,
    ) => Promise<PolicyCalls[PolicyName]['answer']>;
    call(this.config.name, name, facts, this.config.policy.deadlineMs)
      .then(
        (answer) => {
          state.failure = null;
          if (!this.stopped) this.take(name, answer);
        },
        (error: TidemarkError) => {
          if (this.stopped) return;
          // The worker was not there, through no fault of this function: ask again with the next sample.
          if (error.code === 'POLICY_UNAVAILABLE') {
            state.askedFacts = '';
            return;
          }
          state.failure = error.message;
          this.reportFailure(name, error.message);
        },
      )
      .finally(() => {
        state.busy = false;
        if (state.again) {
          state.again = false;
          this.consider(name, true);
        }
        if (this.idle) for (const waiter of this.waiters.splice(0)) waiter();
      });
  }

  private take(name: PolicyName, answer: PolicyCalls[PolicyName]['answer']): void {
    const before = JSON.stringify(this.values);
    if (name === 'asyncWindow') {
      const window = answer as PolicyCalls['asyncWindow']['answer'];
      this.values.windowWrites = window.writes;
      this.values.windowBytes = window.bytes;
    } else if (name === 'flushInterval') this.values.flushIntervalMs = answer as number;
    else this.values.selectedPeers = answer as string[];
    if (JSON.stringify(this.values) !== before) this.hooks.apply({ ...this.values });
  }

  private reportFailure(name: PolicyName, message: string): void {
    const nowMs = this.hooks.now();
    const last = this.reported.get(name);
    if (last && nowMs - last.atMs < REPORT_INTERVAL_MS) {
      last.suppressed += 1;
      return;
    }
    const more = last && last.suppressed > 0 ? ` (${last.suppressed} more like it since)` : '';
    this.reported.set(name, { atMs: nowMs, suppressed: 0 });
    this.hooks.report(`${message}; ${this.inUse(name)} stays in use${more}`);
  }

  private inUse(name: PolicyName): string {
    const { windowWrites, windowBytes, flushIntervalMs, selectedPeers } = this.values;
    if (name === 'asyncWindow') return `{ writes: ${windowWrites}, bytes: ${windowBytes} }`;
    if (name === 'flushInterval') return `${flushIntervalMs} ms`;
    return `[${selectedPeers.join(', ')}]`;
  }
}

function valueOr<T>(source: PolicySource<T>, fallback: T): T {
  return source.kind === 'value' ? source.value : fallback;
}
