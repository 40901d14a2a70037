/** A program that runs beside the measurements: its output is kept in a file, and it ends with this process. */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type Argv, environmentOf } from '../test/vm/command.ts';

/** Under emulation a clean end takes its time. */
const TERM_MS_MAX = 60_000;
const KILL_MS_MAX = 10_000;
const POLL_MS = 10;
const TAIL_CHARS = 2_000;

export class Program {
  readonly pid: number;
  readonly name: string;
  private readonly child: ChildProcess;
  private readonly log: string;
  private readonly exited: Promise<void>;
  private how: string | null = null;

  private constructor(argv: Argv, name: string, log: string, env: Record<string, string>) {
    this.name = name;
    this.log = log;
    const output = openSync(log, 'a');
    // The death signal covers the one end of this process that no handler sees.
    this.child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
      env: environmentOf(argv, env),
      detached: true, // Ctrl-C is for the one who ends it in order.
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.pid = this.child.pid ?? 0;
    this.exited = new Promise((resolve) => {
      const end = (how: string) => {
        this.how ??= how;
        resolve();
      };
      this.child.once('error', (error) => end(error.message));
      this.child.once('exit', (status, signal) => end(signal ?? `exit status ${status}`));
    });
  }

  /** @param log the file that gets standard output and standard error */
  static start(
    argv: Argv,
    options: { name: string; log: string; env?: Record<string, string> },
  ): Program {
    return new Program(argv, options.name, options.log, options.env ?? {});
  }

  get output(): string {
    return readFileSync(this.log, 'utf8');
  }

  /** Waits until `holds`; ends early, with its output, if the program does. */
  async until(
    what: string,
    holds: () => boolean | Promise<boolean>,
    limitMs: number,
  ): Promise<void> {
    const deadline = performance.now() + limitMs;
    while (!(await holds())) {
      this.alive(what);
      if (performance.now() > deadline) throw this.problem(`not in ${limitMs} ms: ${what}`);
      await delay(POLL_MS);
    }
  }

  /** @throws with its output, if it has ended. */
  alive(what: string): void {
    if (this.how !== null) throw this.problem(`ended (${this.how}) before ${what}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Waits for its end; false: it goes on. */
  async ended(limitMs: number): Promise<boolean> {
    const stop = new AbortController();
    const late = delay(limitMs, undefined, { signal: stop.signal }).catch(() => {});
    await Promise.race([this.exited, late]);
    stop.abort();
    return this.how !== null;
  }

  /** SIGTERM, then SIGKILL. @throws if it survives both. */
  async end(): Promise<void> {
    this.signal('SIGTERM');
    if (await this.ended(TERM_MS_MAX)) return;
    this.signal('SIGKILL');
    if (!(await this.ended(KILL_MS_MAX))) throw this.problem('survived SIGKILL');
  }

  private problem(what: string): Error {
    const tail = this.output.trim().slice(-TAIL_CHARS);
    return new Error(`${this.name}: ${what}${tail === '' ? '' : `\n${tail}`}`);
  }
}
