/** The main thread's side of the replication worker. */
import type { Worker } from 'node:worker_threads';
import { TidemarkError } from '../binding/errors.ts';
import type { AttachReport } from '../binding/native.ts';
import { startThread } from '../binding/thread.ts';
import type {
  FrontendSpec,
  PolicyValues,
  Replication,
  ReplicationEvent,
  ReplicationStatus,
  VolumeSpec,
} from './api.ts';
import { type CallName, fromRecord, type Report } from './rpc.ts';

/** Batches pass through it and nothing is kept: who needs more has a leak, which must not cost the whole process. */
const HEAP_MIB_MAX = 512;
/** How long the worker may take to end after it closed its volumes. */
const EXIT_MS = 5_000;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Starts the worker; its first call rejects when the native add-on cannot be loaded. */
export function startReplication(): Replication {
  return new ReplicationClient();
}

class ReplicationClient implements Replication {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #eventListeners: Array<(event: ReplicationEvent) => void> = [];
  readonly #exitListeners: Array<(error: Error) => void> = [];
  readonly #exited: Promise<void>;
  #lastId = 0;
  #shutdown: Promise<void> | null = null;
  /** Why the worker is gone. */
  #failure: Error | null = null;

  constructor() {
    this.#worker = startThread(new URL('./worker.ts', import.meta.url), {
      name: 'tidemark-replication',
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB_MAX },
    });
    this.#worker.on('message', (report: Report) => this.#onReport(report));
    this.#worker.on('error', (error: unknown) => {
      const cause = error instanceof Error ? error : new Error(String(error));
      this.#failure ??= new TidemarkError(
        'WORKER_FAILED',
        `the replication worker failed: ${cause.message}`,
        { cause },
      );
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', (status) => {
        this.#onExit(status);
        resolve();
      });
    });
  }

  open(spec: VolumeSpec): Promise<AttachReport> {
    return this.#call('open', spec);
  }

  startLinks(volume: string): Promise<void> {
    return this.#call('startLinks', volume);
  }

  startFrontend(volume: string, frontend: FrontendSpec): Promise<string> {
    return this.#call('startFrontend', volume, frontend);
  }

  stopFrontend(volume: string, force: boolean): Promise<void> {
    return this.#call('stopFrontend', volume, force);
  }

  promote(volume: string, force: boolean): Promise<void> {
    return this.#call('promote', volume, force);
  }

  demote(volume: string): Promise<void> {
    return this.#call('demote', volume);
  }

  invalidate(volume: string, peer: string): Promise<void> {
    return this.#call('invalidate', volume, peer);
  }

  disconnect(volume: string, peer?: string): Promise<void> {
    return this.#call('disconnect', volume, peer);
  }

  connect(volume: string, peer?: string, discardMine?: boolean): Promise<void> {
    return this.#call('connect', volume, peer, discardMine);
  }

  setPolicy(volume: string, values: PolicyValues): Promise<void> {
    return this.#call('setPolicy', volume, values);
  }

  resume(volume: string): Promise<void> {
    return this.#call('resume', volume);
  }

  status(volume: string): Promise<ReplicationStatus> {
    return this.#call('status', volume);
  }

  askPeers(volume: string, deadlineMs: number): Promise<string | null> {
    return this.#call('askPeers', volume, deadlineMs);
  }

  close(volume: string): Promise<void> {
    return this.#call('close', volume);
  }

  shutdown(): Promise<void> {
    this.#shutdown ??= this.#end();
    return this.#shutdown;
  }

  onEvent(listener: (event: ReplicationEvent) => void): void {
    this.#eventListeners.push(listener);
  }

  onExit(listener: (error: Error) => void): void {
    this.#exitListeners.push(listener);
  }

  #call<T>(method: CallName, ...args: unknown[]): Promise<T> {
    if (this.#failure) return Promise.reject(this.#failure);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: (value) => resolve(value as T), reject });
      this.#worker.postMessage({ id, method, args });
    });
  }

  async #end(): Promise<void> {
    try {
      await this.#call('shutdown');
    } finally {
      const timer = setTimeout(() => void this.#worker.terminate(), EXIT_MS);
      await this.#exited;
      clearTimeout(timer);
    }
  }

  #onReport(report: Report): void {
    if (report.kind === 'event') {
      for (const listener of this.#eventListeners) listener(report.event);
      return;
    }
    const waiting = this.#waiting.get(report.id);
    this.#waiting.delete(report.id);
    if (report.kind === 'result') waiting?.resolve(report.value);
    else waiting?.reject(fromRecord(report.error));
  }

  #onExit(status: number): void {
    const unexpected = this.#shutdown === null || this.#failure !== null;
    this.#failure ??= new TidemarkError(
      'WORKER_EXITED',
      unexpected
        ? `the replication worker ended with status ${status}`
        : 'the replication worker has been shut down',
    );
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    if (unexpected) for (const listener of this.#exitListeners) listener(this.#failure);
  }
}
