// What a scenario is, and what it is given: commands, scratch space, and a list of things to undo
// that is worked off whatever way the scenario ends.
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Argv, type CommandOptions, type CommandResult, run } from '../../command.js';

export interface Scenario {
  /** What happens and what is expected, as a sentence. Unique. */
  name: string;
  /** For the scenario without its cleanup; default 120 s. */
  timeoutMs?: number;
  /** Takes so long that it only runs when a part of its name is given. */
  long?: boolean;
  run: (t: ScenarioContext) => Promise<void>;
}

interface Undo {
  what: string;
  action: () => Promise<unknown> | unknown;
}

const undoTimeoutMs = 30_000;

/** Checks the shape at its definition; a scenario file default-exports one of these, or an array. */
export function scenario(
  name: string,
  body: Scenario['run'],
  options: { timeoutMs?: number; long?: boolean } = {},
): Scenario {
  return { name, run: body, ...options };
}

export class ScenarioContext {
  /** The checkout; the same path as on the host. */
  readonly checkout = process.env.TIDEMARK_CHECKOUT ?? process.cwd();
  /** A directory in memory, empty at the start, gone at the end. */
  readonly directory: string;
  /** A directory that the host sees, for logs. */
  readonly logs: string;
  /** Aborted when the scenario's time is up; polling loops end on it. */
  readonly signal: AbortSignal;
  /** What it logged last, to say where it hung. */
  lastStep = '';
  private readonly undos: Undo[] = [];

  constructor(slug: string, results: string, signal: AbortSignal, directory = join('/tmp', slug)) {
    this.directory = directory;
    this.logs = join(results, 'logs', slug);
    this.signal = signal;
    mkdirSync(this.directory, { recursive: true });
    mkdirSync(this.logs, { recursive: true });
  }

  /** Registers what undoes a step that was just done; run last first. */
  undo(what: string, action: Undo['action']): void {
    this.undos.push({ what, action });
  }

  /** Runs a command to its end; throws with its output unless it succeeds. */
  run(argv: Argv, options?: CommandOptions): Promise<CommandResult> {
    this.log(`$ ${argv.join(' ')}`);
    return run(argv, options);
  }

  /** Adds a line to the scenario's own log, which the host shows when it fails. */
  log(text: string): void {
    this.lastStep = text;
    const seconds = (performance.now() / 1000).toFixed(3);
    appendFileSync(join(this.logs, 'scenario.log'), `[${seconds}] ${text}\n`);
  }

  /** Undoes all steps, going on past failures, and returns what went wrong. */
  async undoAll(): Promise<string[]> {
    const problems: string[] = [];
    for (let step = this.undos.pop(); step; step = this.undos.pop()) {
      const { what, action } = step;
      try {
        await withDeadline(Promise.resolve(action()), undoTimeoutMs, what);
      } catch (error) {
        problems.push(`cleanup: ${what}: ${messageOf(error)}`);
      }
    }
    return problems;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Rejects when the promise has not settled in time; what it started goes on. */
export async function withDeadline<T>(
  promise: Promise<T>,
  timeoutMs: number,
  what: string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${what}: not finished after ${timeoutMs} ms`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
