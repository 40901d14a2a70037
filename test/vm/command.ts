// Runs commands for the machine's host side and, bundled, for the scenarios inside it.
// Each command has its own process group and a deadline, so that nothing outlives its caller.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { PATIENCE } from '../tools/patience.ts';

/** A program and its arguments. */
export type Argv = readonly [string, ...string[]];

export interface CommandOptions {
  cwd?: string;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  input?: string;
  /** Any exit status is an answer; without it only 0 is. */
  anyStatus?: boolean;
  timeoutMs?: number;
}

export interface CommandResult {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  elapsedMs: number;
}

const defaultTimeoutMs = 60_000 * PATIENCE;
/** How long a killed process group may take to be gone before it is reported as stuck. */
const killGraceMs = 5_000;
const errorTailBytes = 4_000;

const liveGroups = new Set<number>();

export class CommandError extends Error {
  readonly result: CommandResult;

  constructor(argv: readonly string[], what: string, result: CommandResult, calledFrom = '') {
    const output = `${result.stdout}${result.stderr}`.trim().slice(-errorTailBytes);
    super(`${argv.join(' ')}: ${what}${output ? `\n${output}` : ''}`);
    this.name = 'CommandError';
    this.result = result;
    this.stack = [`${this.name}: ${this.message}`, ...calledFrom.split('\n').slice(1)].join('\n');
  }
}

/** Preloaded is the runtime of a sanitizer, which is for Node alone: other programs behave differently with it. */
export function environmentOf(
  argv: Argv,
  added: Record<string, string> = {},
): Record<string, string | undefined> {
  const { LD_PRELOAD: preloaded, ...rest } = { ...process.env, ...added };
  return argv[0] === process.execPath ? { ...rest, LD_PRELOAD: preloaded } : rest;
}

/** Runs a command to its end; rejects with CommandError unless it exits with 0 (or anyStatus) in time. */
export function run(argv: Argv, options: CommandOptions = {}): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  const started = performance.now();
  const calledFrom = new Error().stack; // A stack taken when it fails would show the event loop.
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0], argv.slice(1), {
      cwd: options.cwd,
      env: environmentOf(argv, options.env),
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const group = child.pid;
    if (group !== undefined) liveGroups.add(group);
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    let stuckTimer: NodeJS.Timeout | undefined;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const finish = (status: number | null, signal: NodeJS.Signals | null, problem?: string) => {
      clearTimeout(timer);
      clearTimeout(stuckTimer);
      if (group !== undefined) liveGroups.delete(group);
      const result = { status, signal, stdout, stderr, elapsedMs: performance.now() - started };
      if (problem) reject(new CommandError(argv, problem, result, calledFrom));
      else resolve(result);
    };
    const timer = setTimeout(() => {
      timedOut = true;
      if (group === undefined) return;
      const wait = waitChannel(group);
      killGroup(group);
      stuckTimer = setTimeout(() => {
        // A process in uninterruptible sleep survives SIGKILL; do not wait for it.
        child.unref();
        child.stdout.destroy();
        child.stderr.destroy();
        finish(null, null, `not finished after ${timeoutMs} ms and cannot be killed (${wait})`);
      }, killGraceMs);
    }, timeoutMs);
    child.on('error', (error) => finish(null, null, error.message));
    child.on('close', (status, signal) => {
      if (timedOut) finish(status, signal, `not finished after ${timeoutMs} ms, killed`);
      else if (signal) finish(status, signal, `killed by ${signal}`);
      else if (status !== 0 && !options.anyStatus) finish(status, signal, `exit status ${status}`);
      else finish(status, signal);
    });
    child.stdin.on('error', () => {}); // A command need not read its input.
    child.stdin.end(options.input ?? '');
  });
}

/** Kills every command still running; for signal handlers and scenario timeouts. */
export function killRunningCommands(): void {
  for (const group of liveGroups) killGroup(group);
}

export function killGroup(group: number, signal: NodeJS.Signals = 'SIGKILL'): void {
  try {
    process.kill(-group, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Where in the kernel a process sleeps, for error texts. */
export function waitChannel(pid: number): string {
  try {
    const state = /^State:\s*(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return `state ${state}, in ${readFileSync(`/proc/${pid}/wchan`, 'utf8') || 'user space'}`;
  } catch {
    return 'gone';
  }
}
