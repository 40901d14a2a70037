// Runs a test program in a process group of its own, so that it can be ended with all that it started,
// and nothing else can be.

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** So often is looked, with pauses, before members that outlive their leader count as left behind. */
const LOOKS_MAX = 100;
const LOOK_PAUSE_MS = 20;
/** How long the end of the output is waited for when the group is gone. */
const OUTPUT_MS_MAX = 2_000;
/** How much output is kept for its reader; summaries are at the end. */
const OUTPUT_CHARS_MAX = 4 * 1024 * 1024;

export interface GroupOptions {
  /** After this time the whole group is killed. */
  limitMs: number;
  env?: NodeJS.ProcessEnv;
  /** Gets standard output and standard error as they come. */
  onOutput?: (text: string) => void;
}

export interface GroupResult {
  /** Standard output and standard error together. */
  output: string;
  /** Null when a signal ended the program. */
  code: number | null;
  signal: NodeJS.Signals | null;
  timedOut: boolean;
  /** Processes that the program started and that outlived it, as 'pid (command)'. They have been killed. */
  leftBehind: string[];
}

const running = new Set<number>();

/** Kills every group that is running now: for a runner that is itself told to stop. */
export function killRunningGroups(): void {
  for (const leader of running) signalGroup(leader, 'SIGKILL');
}

function signalGroup(leader: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-leader, signal);
  } catch (error) {
    // The group is gone already.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * The live processes of a group, as 'pid (command)'. Zombies are left out: in a container nobody may
 * ever reap them, and kill(2) with signal 0 would call them alive.
 */
function groupMembers(leader: number): string[] {
  const members: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    } catch {
      continue; // It ended just now.
    }
    // pid (command) state ppid pgrp ...; the command may hold spaces and parentheses.
    const end = stat.lastIndexOf(')');
    const [state, , group] = stat.slice(end + 2).split(' ');
    if (Number(group) === leader && state !== 'Z' && state !== 'X') {
      members.push(stat.slice(0, end + 1));
    }
  }
  return members;
}

/** Waits until the group is empty; returns who is still there at the last look. Looks, as in a pause of the machine they had no time to end. */
async function lingerers(leader: number): Promise<string[]> {
  for (let looks = 1; ; looks += 1) {
    const members = groupMembers(leader);
    if (members.length === 0 || looks === LOOKS_MAX) return members;
    await delay(LOOK_PAUSE_MS);
  }
}

/**
 * Runs a program without standard input, and resolves when its whole process group is gone.
 * @throws if the program cannot be started.
 */
export async function runInGroup(
  command: string,
  args: readonly string[],
  options: GroupOptions,
): Promise<GroupResult> {
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: options.env,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      output = (output + text).slice(-OUTPUT_CHARS_MAX);
      options.onOutput?.(text);
    });
  }
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(
    (resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve({ code, signal }));
    },
  );
  const leader = child.pid;
  if (leader === undefined) {
    await exited;
    throw new Error(`${command}: not started`);
  }

  running.add(leader);
  let timedOut = false;
  const limit = setTimeout(() => {
    timedOut = true;
    signalGroup(leader, 'SIGKILL');
  }, options.limitMs);
  try {
    const { code, signal } = await exited;
    clearTimeout(limit);
    const leftBehind = await lingerers(leader);
    if (leftBehind.length > 0) {
      signalGroup(leader, 'SIGKILL');
      await lingerers(leader);
    }
    // Only now: whoever was left behind held the pipes open.
    await Promise.race([closed, delay(OUTPUT_MS_MAX, undefined, { ref: false })]);
    return { output, code, signal, timedOut, leftBehind };
  } finally {
    clearTimeout(limit);
    running.delete(leader);
  }
}
