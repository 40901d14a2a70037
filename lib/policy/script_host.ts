/**
 * The main thread's side of the policy worker. The user's script never runs here: it is loaded, and its functions are
 * called, in a worker that is ended and replaced when it misses a deadline or dies. Calls run one at a time, so that
 * a function that hangs is the one that is blamed.
 *
 * States of the worker: loading -> ready -> (deadline missed, or it ended) loading ... ; closed at the end.
 */

import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { TidemarkError } from '../binding/errors.ts';
import { startThread } from '../binding/thread.ts';
import { ConfigError } from '../config/problems.ts';
import type { ResolvedConfig } from '../config/resolved.ts';
import type {
  CallRequest,
  PolicyCalls,
  PolicyName,
  ScriptSource,
  WorkerMessage,
} from './messages.ts';

/** Loading includes starting a thread and compiling the script, which takes seconds on an emulated CPU. */
export const LOAD_DEADLINE_MS = 30_000;
/** A script that has not come to an end by then is told about: it may never do. */
const LOAD_TOLD_MS = 15_000;
/** A script that wants more has a leak: on the heap, or in buffers, which are no part of it. */
const HEAP_MIB_MAX = 256;
const BUFFERS_BYTES_MAX = 256 * 1024 * 1024;
const RELOAD_PAUSE_MIN_MS = 500;
const RELOAD_PAUSE_MAX_MS = 60_000;

export interface LoadOptions {
  /** The config script. */
  path: string;
  /** The node's name and where that came from ('--node', 'TIDEMARK_NODE'). */
  node?: { name: string; source: string } | undefined;
  hostname?: string | undefined;
  loadDeadlineMs?: number | undefined;
  /** What the script prints; default: dropped. */
  onOutput?: ((text: string) => void) | undefined;
  /** The worker was lost outside a call, or could not be started again. */
  onProblem?: ((message: string) => void) | undefined;
}

interface PendingCall {
  request: CallRequest;
  deadlineMs: number;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

function startWorker(source: ScriptSource): Worker {
  return startThread(new URL('./script_worker.ts', import.meta.url), {
    workerData: source,
    stdout: true,
    stderr: true,
    stdin: false,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB_MAX },
    name: 'tidemark-policy',
  });
}

export class ScriptHost {
  /** As the script said when it was first loaded; a worker that is replaced does not change it. */
  readonly config: ResolvedConfig;
  private readonly source: ScriptSource;
  private readonly options: LoadOptions;
  private worker: Worker | null = null;
  private readonly queue: PendingCall[] = [];
  private running: PendingCall | null = null;
  private deadline: NodeJS.Timeout | null = null;
  private reloadTimer: NodeJS.Timeout | null = null;
  private reloadPauseMs = RELOAD_PAUSE_MIN_MS;
  private readonly waiters: Array<() => void> = [];
  private nextId = 1;
  private closed = false;
  /** Workers started so far. */
  generation = 1;

  private constructor(
    source: ScriptSource,
    options: LoadOptions,
    worker: Worker,
    config: ResolvedConfig,
  ) {
    this.source = source;
    this.options = options;
    this.config = config;
    this.adopt(worker);
  }

  /**
   * Starts a worker, loads the script in it, and validates what it says.
   * @throws ConfigError (CONFIG) with all problems; TidemarkError CONFIG_SCRIPT with the place of an exception;
   *   CONFIG_DEADLINE when the script does not come to an end.
   */
  static async load(options: LoadOptions): Promise<ScriptHost> {
    const source: ScriptSource = {
      path: resolve(options.path),
      node: options.node,
      hostname: options.hostname ?? hostname(),
    };
    const { worker, config } = await loadWorker(source, options);
    return new ScriptHost(source, options, worker, config);
  }

  /** A call now would reach the script; while a worker is being replaced it would be refused. */
  get ready(): boolean {
    return this.worker !== null && !this.closed;
  }

  /** Resolves when there is a worker again (at once when there is one); never after close(). */
  whenReady(): Promise<void> {
    if (this.ready) return Promise.resolve();
    return new Promise((resolveReady) => this.waiters.push(resolveReady));
  }

  /**
   * Calls a policy function. The deadline counts from when it is the call's turn.
   * @throws TidemarkError POLICY_EXCEPTION or POLICY_ANSWER, with the place in the script; POLICY_DEADLINE (the worker
   *   is replaced then); POLICY_WORKER when the worker ended under the call; POLICY_UNAVAILABLE when there was none, or
   *   another call cost it.
   */
  call<P extends PolicyName>(
    volume: string,
    policy: P,
    facts: PolicyCalls[P]['facts'],
    deadlineMs: number,
  ): Promise<PolicyCalls[P]['answer']> {
    return new Promise((resolveCall, reject) => {
      if (!this.ready) {
        reject(new TidemarkError('POLICY_UNAVAILABLE', 'the policy worker is being replaced'));
        return;
      }
      const request = { id: this.nextId++, volume, policy, facts };
      this.queue.push({
        request,
        deadlineMs,
        resolve: resolveCall as (v: unknown) => void,
        reject,
      });
      this.startNext();
    });
  }

  /** Ends the worker; calls that wait are refused. Idempotent. */
  async close(): Promise<void> {
    this.closed = true;
    if (this.reloadTimer) clearTimeout(this.reloadTimer);
    const worker = this.worker;
    this.lose(new TidemarkError('POLICY_WORKER', 'the policy worker was stopped'));
    await worker?.terminate();
  }

  private adopt(worker: Worker): void {
    this.worker = worker;
    worker.on('message', (message: WorkerMessage) => {
      if (this.worker === worker) this.receive(message);
    });
    const gone = (why: string) => {
      if (this.worker !== worker) return;
      const idle = this.running === null;
      this.lose(new TidemarkError('POLICY_WORKER', `the policy worker ended: ${why}`));
      if (idle) this.options.onProblem?.(`the policy worker ended: ${why}`);
      this.replace();
    };
    worker.on('error', (error) => gone(String(error?.message ?? error)));
    worker.on('exit', (code) => gone(`exit status ${code}`));
    // The daemon's life does not depend on it.
    worker.unref();
    for (const waiter of this.waiters.splice(0)) waiter();
  }

  private startNext(): void {
    if (this.running !== null || this.worker === null) return;
    const call = this.queue.shift();
    if (call === undefined) return;
    this.running = call;
    this.deadline = setTimeout(() => this.missed(call), call.deadlineMs);
    this.worker.postMessage(call.request);
  }

  private receive(message: WorkerMessage): void {
    if (message.kind === 'loaded' || message.kind === 'failed') return;
    if (message.kind === 'buffers') {
      this.weigh(message.bytes);
      return;
    }
    const call = this.running;
    if (call === null || call.request.id !== message.id) return;
    this.finish();
    if (message.kind === 'answer') call.resolve(message.value);
    else {
      const code = message.kind === 'exception' ? 'POLICY_EXCEPTION' : 'POLICY_ANSWER';
      const verb =
        message.kind === 'exception' ? 'threw' : 'returned an answer that cannot be used:';
      const { volume, policy } = call.request;
      const text = `${message.place}: ${policy} of ${volume} ${verb} ${message.message}`;
      call.reject(new TidemarkError(code, text));
    }
    this.startNext();
  }

  /** The heap's limit is the engine's; what is outside it is counted here, after each call. */
  private weigh(bytes: number): void {
    if (bytes <= BUFFERS_BYTES_MAX) return;
    const mib = (count: number) => `${Math.round(count / 1024 / 1024)} MiB`;
    const why = `the script holds ${mib(bytes)} in buffers, more than ${mib(BUFFERS_BYTES_MAX)}`;
    const worker = this.worker;
    this.lose(new TidemarkError('POLICY_WORKER', `the policy worker is replaced: ${why}`));
    this.options.onProblem?.(`the policy worker is replaced: ${why}`);
    void worker?.terminate();
    this.replace();
  }

  private finish(): void {
    if (this.deadline) clearTimeout(this.deadline);
    this.deadline = null;
    this.running = null;
  }

  private missed(call: PendingCall): void {
    const { volume, policy } = call.request;
    const worker = this.worker;
    this.finish();
    call.reject(
      new TidemarkError(
        'POLICY_DEADLINE',
        `${this.source.path}: ${policy} of ${volume} did not answer within ${call.deadlineMs} ms; its worker is replaced`,
      ),
    );
    this.lose(new TidemarkError('POLICY_WORKER', 'the policy worker is being replaced'));
    void worker?.terminate();
    this.replace();
  }

  /** No worker from here on: whoever waits is told. */
  private lose(why: Error): void {
    this.worker = null;
    const running = this.running;
    const waiting = this.queue.splice(0);
    this.finish();
    running?.reject(why);
    for (const call of waiting) {
      call.reject(new TidemarkError('POLICY_UNAVAILABLE', why.message, { cause: why }));
    }
  }

  private replace(): void {
    if (this.closed) return;
    this.generation += 1;
    loadWorker(this.source, this.options).then(
      ({ worker }) => {
        if (this.closed) void worker.terminate();
        else {
          this.reloadPauseMs = RELOAD_PAUSE_MIN_MS;
          this.adopt(worker);
        }
      },
      (error: Error) => {
        if (this.closed) return;
        this.options.onProblem?.(`the policy worker could not be started again: ${error.message}`);
        this.reloadTimer = setTimeout(() => this.replace(), this.reloadPauseMs);
        this.reloadTimer.unref();
        this.reloadPauseMs = Math.min(this.reloadPauseMs * 2, RELOAD_PAUSE_MAX_MS);
      },
    );
  }
}

/** Resolves when the worker has loaded and validated the script; the worker is ended otherwise. */
function loadWorker(
  source: ScriptSource,
  options: LoadOptions,
): Promise<{ worker: Worker; config: ResolvedConfig }> {
  const deadlineMs = options.loadDeadlineMs ?? LOAD_DEADLINE_MS;
  const worker = startWorker(source);
  for (const stream of [worker.stdout, worker.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => options.onOutput?.(text));
  }
  return new Promise((resolveLoad, reject) => {
    const end = (error: Error) => {
      stop();
      // Kept: an 'error' that nobody listens to would end the process.
      worker.on('error', () => undefined);
      worker.terminate().then(
        () => reject(error),
        () => reject(error),
      );
    };
    const toldMs = Math.min(LOAD_TOLD_MS, deadlineMs / 2);
    const told = setTimeout(() => {
      options.onProblem?.(
        `${source.path}: the script has run for ${toldMs} ms without coming to an end; it is given up after ${deadlineMs} ms`,
      );
    }, toldMs);
    const timer = setTimeout(() => {
      end(
        new TidemarkError(
          'CONFIG_DEADLINE',
          `${source.path}: the script did not come to an end within ${deadlineMs} ms`,
        ),
      );
    }, deadlineMs);
    const onError = (error: Error) => {
      end(new TidemarkError('CONFIG_SCRIPT', `${source.path}: ${error.message}`, { cause: error }));
    };
    const onExit = (code: number) => {
      end(
        new TidemarkError(
          'CONFIG_SCRIPT',
          `${source.path}: the script ended its process with status ${code}`,
        ),
      );
    };
    const onMessage = (message: WorkerMessage) => {
      if (message.kind === 'loaded') {
        stop();
        resolveLoad({ worker, config: message.config });
      } else if (message.kind === 'failed') {
        const { code, path, problems } = message;
        end(problems ? new ConfigError(path, problems) : new TidemarkError(code, message.message));
      }
    };
    const stop = () => {
      clearTimeout(timer);
      clearTimeout(told);
      worker.off('error', onError);
      worker.off('exit', onExit);
      worker.off('message', onMessage);
    };
    worker.on('error', onError);
    worker.on('exit', onExit);
    worker.on('message', onMessage);
  });
}

/** Loads and validates a config, without keeping its worker. */
export async function loadConfig(options: LoadOptions): Promise<ResolvedConfig> {
  const host = await ScriptHost.load(options);
  await host.close();
  return host.config;
}
