/** `npm run bench:vm`: one boot of the virtual machine of the tests, in which everything is measured over ublk. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { freemem, setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundleModule } from '../test/vm/bundle.ts';
import { bootMachine, prepareImage } from '../test/vm/machine.ts';
import { type GuestOptions, OPTIONS_VARIABLE, PROFILE_FOLDER, RESULT_FILE } from './guest.ts';
import { threadsWaitedNs } from './meters.ts';
import {
  provideTools,
  TOOLS_PROBLEM_VARIABLE,
  TOOLS_VARIABLE,
  toolLibraries,
} from './peer_tools.ts';
import { Profile } from './profile.ts';
import { reasonOf } from './reason.ts';
import { type Result, readResult } from './result.ts';
import { watchBusy } from './run.ts';
import { besideOf, sectionsVm } from './sections.ts';

const MINUTE_MS = 60_000;
/** For the boot, and for starting, filling and ending all subjects. */
const START_MS = 40 * MINUTE_MS;
/** Of one run, beyond the time that fio was given. */
const EXTRA_S = 20;
/** For perf's samples of one run to be read. */
const PROFILE_S = 120;
/** The RAM disks of all subjects, written once, are 4 GiB. */
const MEMORY_MIB = { alone: 8192, beside: 12_288 };
const CPUS = 2;
const WATCH_MS = 1_000;
/** QEMU's threads that are the machine's processors, as it names them. Its others wait for these, which never sleep. */
const PROCESSORS = /^CPU \d/;

/** As for a run here. */
export interface MachineOptions extends Omit<GuestOptions, 'profile'> {
  /** Gets the profiles; null: none are taken. */
  profile: string | null;
  signal: AbortSignal;
  note(text: string): void;
}

export async function measureInMachine(checkout: string, options: MachineOptions): Promise<Result> {
  const { signal, note, profile, ...others } = options;
  const guest: GuestOptions = { ...others, profile: profile !== null };
  if (profile !== null) await Profile.check(profile);
  const image = await prepareImage(false, note);
  const tools = await toolsOrProblem(note);
  const results = await mkdtemp(join(tmpdir(), 'tidemark-bench-vm-'));
  try {
    const program = 'bench.mjs';
    const contents = "import { main } from './guest.ts';\nawait main();\nprocess.exit(0);\n";
    await bundleModule(contents, import.meta.dirname, join(results, program));
    const busy = await watchBusy();
    const host = new HostWatch();
    const memory = MEMORY_MIB[guest.beside === null ? 'alone' : 'beside'];
    note(`booting Linux ${image.kernel.version} under emulation`);
    const outcome = await bootMachine(
      {
        ...{ image, results, checkout, signal },
        script: script(tools, guest, program),
        timeoutMs: timeoutMs(guest),
        cpus: CPUS,
        memoryMib: Math.min(memory, Math.floor(freemem() / 2 ** 21)),
        onStart: (pid) => host.begin(pid),
        onOutput: note,
      },
      note,
    ).finally(() => host.end());
    for (const fault of outcome.faults) note(`kernel fault: ${fault.line}`);
    const why =
      outcome.problem ??
      (outcome.status === 0 ? null : `the benchmark ended there with status ${outcome.status}`);
    const file = join(results, RESULT_FILE);
    if (why !== null && !existsSync(file)) {
      const messages = await readFile(join(results, 'dmesg.log'), 'utf8').catch(() => '');
      throw new Error(`${why}\n${messages.trim().split('\n').slice(-20).join('\n')}`);
    }
    // How busy the machine's own processors were says nothing: it is the host that others use.
    const result = { ...readResult(file), busy_before: busy, waited: host.waited };
    const profiles = join(results, PROFILE_FOLDER);
    if (profile !== null && existsSync(profiles)) {
      await cp(profiles, profile, { recursive: true }).catch((error) => {
        result.missing.push({ subject: 'the profiles', work: null, reason: reasonOf(error) });
      });
    }
    // The rounds that were over before are not lost.
    if (why !== null) result.missing.push({ subject: 'the machine', work: null, reason: why });
    return result;
  } finally {
    await rm(results, { recursive: true, force: true });
  }
}

interface Tools {
  folder: string;
  /** Why there are none; '': there are. */
  problem: string;
}

/** Without them there are still figures of all who need none. */
async function toolsOrProblem(note: (text: string) => void): Promise<Tools> {
  try {
    return { folder: await provideTools(note), problem: '' };
  } catch (error) {
    const problem = reasonOf(error);
    note(`no userland of DRBD, MD and NBD: ${problem}`);
    return { folder: '', problem };
  }
}

/**
 * How long the machine's processors wait for the host's. The guest cannot see that, and takes it for slowness of what it measures: with two
 * processors that never sleep (`idle=poll`), a neighbour that takes half of one is enough.
 */
class HostWatch {
  private timer: NodeJS.Timeout | undefined;
  private readonly nice = sessionNice();
  private began = 0;
  private share: number | null = null;

  /** Anew with each boot. */
  begin(pid: number): void {
    this.end();
    putFirst(pid);
    this.began = performance.now();
    this.timer = setInterval(() => {
      const ns = threadsWaitedNs(pid, PROCESSORS);
      if (ns === null) return;
      this.share = ns / 1e6 / (performance.now() - this.began) / CPUS;
    }, WATCH_MS);
    this.timer.unref();
  }

  end(): void {
    clearInterval(this.timer);
    setSessionNice(this.nice);
  }

  get waited(): number | null {
    return this.share;
  }
}

/** Of nice values: nobody comes before it. */
const FIRST = -19;
const OWN_SESSION = '/proc/self/autogroup';

/** Neighbours wait for the machine, and not it for them. Whoever may not ask for that takes turns with them, as `waited` will tell. */
function putFirst(pid: number): void {
  setSessionNice(FIRST);
  try {
    // Just begun: what becomes its processors are threads that inherit it.
    setPriority(pid, FIRST);
  } catch {
    // Not allowed, or it has ended, which others will notice.
  }
}

/** Where sessions share the processors, that of this one, to which the machine belongs. */
function sessionNice(): number {
  if (!existsSync(OWN_SESSION)) return 0;
  return Number(/nice (-?\d+)/.exec(readFileSync(OWN_SESSION, 'utf8'))?.[1] ?? 0);
}

function setSessionNice(nice: number): void {
  try {
    if (existsSync(OWN_SESSION)) writeFileSync(OWN_SESSION, String(nice));
  } catch {
    // Not allowed.
  }
}

function timeoutMs({ rounds, seconds, beside, profile }: GuestOptions): number {
  const sections = besideOf(sectionsVm(), beside);
  const runs = sections.reduce(
    (sum, { subjects, works }) => sum + subjects.length * works.length,
    0,
  );
  const each = seconds + EXTRA_S + (profile ? PROFILE_S : 0);
  return START_MS + rounds * runs * each * 1000;
}

/** The kernel would take fewer samples where one takes long, as all does under emulation. */
const SAMPLE_FAST = ['echo 0 > /proc/sys/kernel/perf_cpu_time_max_percent'];

/** Bash; nothing in it holds a single quote but what is quoted here. */
function script(tools: Tools, options: GuestOptions, program: string): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
  return [
    `export ${TOOLS_VARIABLE}=${quoted(tools.folder)}`,
    `export ${TOOLS_PROBLEM_VARIABLE}=${quoted(tools.problem)}`,
    ...(tools.problem === ''
      ? [`export LD_LIBRARY_PATH=${quoted(toolLibraries(tools.folder))}`]
      : []),
    `export ${OPTIONS_VARIABLE}=${quoted(JSON.stringify(options))}`,
    ...(options.profile ? SAMPLE_FAST : []),
    `exec ${quoted(process.execPath)} --enable-source-maps "$TIDEMARK_RESULTS/${program}"`,
    '',
  ].join('\n');
}
