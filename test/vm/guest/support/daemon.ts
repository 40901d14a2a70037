// A process that runs beside the scenario, with its output kept, and killed at the end whatever happens.
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PATIENCE } from '../../../tools/patience.ts';
import { type Argv, environmentOf, killGroup, waitChannel } from '../../command.js';
import { type ScenarioContext, withDeadline } from './scenario.js';
import { type WaitOptions, waitFor } from './wait.js';

export interface DaemonOptions {
  /** Names the log file; default the program's. */
  name?: string;
  cwd?: string;
  env?: Record<string, string>;
}

export interface DaemonExit {
  status: number | null;
  signal: NodeJS.Signals | null;
}

const stopTimeoutMs = 30_000 * PATIENCE;
const killTimeoutMs = 15_000;
const logTailBytes = 3_000;

export class Daemon {
  readonly pid: number;
  readonly name: string;
  readonly exited: Promise<DaemonExit>;
  /** Everything it wrote to stdout and stderr. */
  output = '';
  /** What it wrote to stdout alone. */
  stdout = '';
  exit: DaemonExit | undefined;
  private readonly child: ChildProcess;

  private constructor(t: ScenarioContext, argv: Argv, options: DaemonOptions) {
    this.name = options.name ?? basename(argv[0]);
    const log = join(t.logs, `${this.name}.log`);
    // It dies with this process, however that ends; its pid is the program's own.
    this.child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
      cwd: options.cwd,
      env: environmentOf(argv, options.env),
      detached: true, // Its own process group, so that its children go with it.
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const take = (text: string) => {
      this.output += text;
      appendFileSync(log, text);
    };
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      take(text);
    });
    this.child.stderr?.setEncoding('utf8').on('data', take);
    this.exited = new Promise((resolve) => {
      const end = (exit: DaemonExit) => {
        this.exit ??= exit;
        resolve(this.exit);
      };
      this.child.on('error', (error) => {
        take(`${error.message}\n`);
        end({ status: 127, signal: null });
      });
      // 'close' comes once the output is complete; a grandchild that holds the pipes must not delay the end.
      this.child.on('close', (status, signal) => end({ status, signal }));
      this.child.on('exit', (status, signal) => {
        // What it leaves in its group goes now: later the number may be another process's.
        if (this.pid > 0) killGroup(this.pid);
        setTimeout(() => end({ status, signal }), 200).unref();
      });
    });
    this.pid = this.child.pid ?? 0;
  }

  static start(t: ScenarioContext, argv: Argv, options: DaemonOptions = {}): Daemon {
    t.log(`$ ${argv.join(' ')} &`);
    const daemon = new Daemon(t, argv, options);
    if (daemon.pid > 0) t.undo(`kill ${daemon.name}`, () => daemon.destroy());
    return daemon;
  }

  /** Waits for text in its output; ends early, with the output, if the daemon does. */
  async waitForOutput(
    t: ScenarioContext,
    pattern: RegExp,
    options: WaitOptions = {},
  ): Promise<RegExpExecArray> {
    const match = await waitFor(
      t,
      `${this.name} to print ${pattern}`,
      () => pattern.exec(this.output) ?? (this.exit ? 'ended' : undefined),
      options,
    ).catch((error) => {
      throw new Error(`${error.message}\n${this.tail()}`);
    });
    if (match === 'ended') {
      throw new Error(
        `${this.name} ended (${this.describeExit()}) before it printed ${pattern}\n${this.tail()}`,
      );
    }
    return match;
  }

  /** Sends a signal to the process alone. */
  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.end(killTimeoutMs, 'SIGKILL');
  }

  /** SIGTERM, and waits; returns how it ended. */
  async stop(timeoutMs = stopTimeoutMs): Promise<DaemonExit> {
    this.child.kill('SIGTERM');
    return this.end(timeoutMs, 'SIGTERM');
  }

  /** Waits for an end of its own accord. */
  end(timeoutMs: number, after = 'its start'): Promise<DaemonExit> {
    return withDeadline(this.exited, timeoutMs, `${this.name} to end after ${after}`).catch(
      (error) => {
        throw new Error(`${error.message} (${waitChannel(this.pid)})\n${this.tail()}`);
      },
    );
  }

  tail(): string {
    return this.output.trim().slice(-logTailBytes);
  }

  private describeExit(): string {
    return this.exit?.signal ?? `exit status ${this.exit?.status}`;
  }

  private async destroy(): Promise<void> {
    if (this.exit) return;
    killGroup(this.pid);
    await this.end(killTimeoutMs, 'SIGKILL');
  }
}
