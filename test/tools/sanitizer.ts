/**
 * Programs under a sanitizer: where their build lies, the environment that loads it into a stock Node, and what it
 * reported. Every process writes its reports into a folder, so that one of a daemon deep below a test is not lost.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export type SanitizerName = 'address' | 'undefined' | 'thread';

interface Kind {
  /** The compiler's runtime, loaded first into every process. */
  library: string;
  variable: 'ASAN_OPTIONS' | 'UBSAN_OPTIONS' | 'TSAN_OPTIONS';
  options: Record<string, string | number>;
  /** How many times slower its programs may be (patience.ts). */
  patience: number;
  /** How many seeds of the simulator are run. */
  simSeeds: number;
  /** For tidemark-unit. */
  unitArguments?: string[];
}

const SUPPRESSIONS = resolve('test/sanitizers');

/**
 * A report must be found in the folder, not in an exit status: Node's own leaks and races must not end a daemon with the
 * sanitizer's status for them. So errors abort, and the rest says 0.
 */
const COMMON = { abort_on_error: 1, exitcode: 0, log_exe_name: 1, symbolize: 1 };

const KINDS: Record<SanitizerName, Kind> = {
  address: {
    library: 'libasan.so',
    variable: 'ASAN_OPTIONS',
    // Ten frames say where memory came from; Node's deep stacks would cost much time to name.
    options: { ...COMMON, halt_on_error: 1, detect_leaks: 1, malloc_context_size: 10 },
    patience: 4,
    simSeeds: 100,
  },
  undefined: {
    library: 'libubsan.so',
    variable: 'UBSAN_OPTIONS',
    options: { ...COMMON, halt_on_error: 1, print_stacktrace: 1 },
    patience: 3,
    simSeeds: 100,
  },
  thread: {
    library: 'libtsan.so',
    variable: 'TSAN_OPTIONS',
    options: {
      ...COMMON,
      abort_on_error: 0,
      halt_on_error: 0,
      history_size: 4,
      suppressions: join(SUPPRESSIONS, 'thread.supp'),
    },
    patience: 8,
    // One thread steps all nodes: what can race are V8's threads beside it, and that shows in any seed.
    simSeeds: 15,
    // A world of simulated nodes is one thread, has nothing to race with, and would take minutes.
    unitArguments: [
      '--source-file-exclude=*/volume_test.cc,*/volume_faults_test.cc,*/offered_generation_test.cc,*/failover_test.cc',
      // It counts the pages that memory takes, and each has shadows here.
      '--test-case-exclude=lazy bitmap: what stays empty touches no page*',
    ],
  },
};

export const SANITIZERS = Object.keys(KINDS) as SanitizerName[];

export class Sanitizer {
  readonly name: SanitizerName;
  /** Where scripts/setup.sh puts the build. */
  readonly build: string;
  readonly patience: number;
  /** Of test/run.ts; the others have nothing native, or build it themselves. */
  readonly suites: readonly string[] = ['native', 'unit', 'sim', 'e2e'];
  readonly simSeeds: number;
  readonly unitArguments: readonly string[];
  readonly #kind: Kind;

  constructor(name: SanitizerName) {
    this.name = name;
    this.build = `build/${name}`;
    this.#kind = KINDS[name];
    this.patience = this.#kind.patience;
    this.simSeeds = this.#kind.simSeeds;
    this.unitArguments = this.#kind.unitArguments ?? [];
  }

  /** What is added to the environment of a program, and by it to that of all it starts. */
  environment(reports: string): Record<string, string> {
    const { library, variable, options } = this.#kind;
    const compiler = process.env.CXX ?? 'g++';
    const path = execFileSync(compiler, [`-print-file-name=${library}`], {
      encoding: 'utf8',
    }).trim();
    const all = { ...options, log_path: join(reports, 'report') };
    return {
      LD_PRELOAD: path,
      [variable]: Object.entries(all)
        .map(([key, value]) => `${key}=${value}`)
        .join(':'),
      TIDEMARK_PREBUILD: resolve(this.build),
      TIDEMARK_SIM_ADDON: resolve(this.build, 'build/simulator/tidemark_sim.node'),
      TIDEMARK_TEST_PATIENCE: String(this.patience),
    };
  }
}

/** The file name says whose it is: report.<program>.<pid>. */
const OURS = /^report\.(node|tidemark-[a-z-]+)\.\d+$/;

/** A frame in what is compiled from csrc or test. */
const OUR_FRAME =
  /\/(tidemark(_sim)?\.node|tidemark-[a-z-]+)\+0x|\/(csrc|test|node-addon-api)\/\S+\.(cc|h):\d+/;
const NODES_FRAME = /\/node\+0x/;

/** What the sanitizers wrote into the folder about our programs, one text each. */
export function reportsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => OURS.test(name))
    .sort()
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .map(withoutForeignLeaks)
    .filter((text) => text.trim() !== '');
}

/**
 * Stock Node frees little when it ends, and keeps pointers in V8's heap, where no leak check looks: hundreds of
 * "leaks" a process. LeakSanitizer's own suppressions match any frame of a stack, and below every call of ours is
 * Node: they would hide ours, too. So a leak counts when it was our code that asked for the memory. What Node allocates on
 * a call of ours is Node's: it keeps a list of references and wrapped objects to free them with the environment, and
 * a promise that is never settled has no other end.
 */
export function withoutForeignLeaks(report: string): string {
  if (!report.includes('LeakSanitizer: detected memory leaks')) return report;
  const isLeak = (part: string) => /^(Direct|Indirect) leak of /.test(part);
  return report
    .split('\n\n')
    .map((part) => part.trim())
    .filter((part) => isLeak(part) && isOurs(part))
    .join('\n\n');
}

function isOurs(leak: string): boolean {
  const frames = leak.split('\n').filter((line) => /^\s*#\d+ /.test(line));
  const asker = frames.find((frame) => OUR_FRAME.test(frame) || NODES_FRAME.test(frame));
  return asker !== undefined && OUR_FRAME.test(asker);
}
