// Runs the test suites in order, and adds up what passed and failed.
//
//   node --import tsx test/run.ts [suite...] [--match=text] [--sanitizer=address|undefined|thread]
//
//   lint    scripts/lint.sh, one test per linter
//   native  tidemark-unit, the C++ unit tests
//   memory  the same, built under the address and the undefined-behaviour sanitizer
//   unit    test/unit/**/*.test.ts, in one process
//   sim     test/sim/main.ts, the simulator, with 500 seeds, and the mutants that few seeds catch
//   fuzz    test/fuzz/main.ts, each fuzz target for a few seconds from its corpus
//   e2e     test/e2e/**/*.test.ts, each file a process with its own time limit
//   vm      test/vm/main.ts, which boots a virtual machine and prints 'N passed, N failed'
//   stuck   test/long/stuck.ts, threads that are blocked for 30 s: only when it is named
//
// Without a suite, all others. --match runs only the unit and e2e files whose path contains the text.
// With --sanitizer: native, unit, e2e and some seeds of the simulator, each with the build under that
// sanitizer; what it reports about any process of ours is a failure (tools/sanitizer.ts).
// scripts/sanitize.sh makes that build.
// Each program gets a process group that ends with it, and a TMPDIR that is removed after it. A program
// that crashes, hangs, leaves processes behind or runs no test is one failure more. The last line is
// 'N passed, N failed'; the exit status is 1 if anything failed. scripts/test.sh prepares the checkout.

import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, readdir, readFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  type Counts,
  type CountsReader,
  readDoctestCounts,
  readPlainCounts,
  readUvuCounts,
} from './tools/counts.js';
import { killRunningGroups, runInGroup } from './tools/process-group.js';
import { reportsIn, SANITIZERS, Sanitizer, type SanitizerName } from './tools/sanitizer.ts';

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;

/** One program of a suite. */
interface Program {
  name: string;
  command: string;
  args: string[];
  limitMs: number;
  read: CountsReader;
  /** Must exist, or the program is a failure that says so. */
  needs?: string;
  /** Test files that uvu runs together; it would not miss one that forgets its `test.run()`. */
  files?: string[];
}

interface SuiteResult extends Counts {
  name: string;
  durationMs: number;
  /** What went wrong beyond failed tests. */
  remarks: string[];
}

const NODE_TS = ['--import', 'tsx'];
const UNIT_DIR = 'test/unit';
const E2E_DIR = 'test/e2e';

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

async function testFiles(folder: string, match: string): Promise<string[]> {
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder, { recursive: true });
  return entries
    .map((entry) => join(folder, entry))
    .filter((file) => file.endsWith('.test.ts') && file.includes(match))
    .sort();
}

interface Choice {
  /** Text in the path of the files to run. */
  match: string;
  sanitizer: Sanitizer | null;
}

function tidemarkUnit(build: string, args: readonly string[] = []): Program {
  return {
    name: 'tidemark-unit',
    command: `${build}/tidemark-unit`,
    args: ['--no-colors', ...args],
    limitMs: 10 * MINUTE_MS,
    read: readDoctestCounts,
    needs: `${build}/tidemark-unit`,
  };
}

type Suite = (choice: Choice) => Promise<Program[]>;

const SUITES: Record<string, Suite> = {
  lint: async () => [
    {
      name: 'lint',
      command: 'bash',
      args: ['scripts/lint.sh'],
      limitMs: 5 * MINUTE_MS,
      read: readPlainCounts,
    },
  ],
  native: async ({ sanitizer }) => [
    tidemarkUnit(sanitizer?.build ?? 'build/cmake', sanitizer?.unitArguments),
  ],
  memory: async () => [tidemarkUnit('build/address-undefined')],
  unit: async ({ match }) => {
    const files = await testFiles(UNIT_DIR, match);
    if (files.length === 0) return [];
    // uvu takes one pattern for the paths below its folder.
    const names = files.map((file) => escapeRegExp(relative(UNIT_DIR, file)));
    return [
      {
        name: UNIT_DIR,
        command: process.execPath,
        args: [
          ...NODE_TS,
          'node_modules/uvu/bin.js',
          '--no-color',
          UNIT_DIR,
          `^(${names.join('|')})$`,
        ],
        limitMs: 10 * MINUTE_MS,
        read: readUvuCounts,
        files,
      },
    ];
  },
  sim: async () => [
    {
      name: 'test/sim',
      command: process.execPath,
      // The copy that has the mutants, of which none is chosen.
      args: [...NODE_TS, 'build/sim/test/sim/main.ts', '--seeds=500', '--start=1'],
      limitMs: 15 * MINUTE_MS,
      read: readPlainCounts,
      needs: 'build/sim/test/sim/main.ts',
    },
    {
      name: 'test/sim/mutants',
      command: process.execPath,
      args: [
        ...NODE_TS,
        'test/sim/mutants/main.ts',
        '--quick',
        '--seeds=60',
        '--json=build/sim/mutants-quick.json',
      ],
      limitMs: 10 * MINUTE_MS,
      read: readPlainCounts,
      needs: 'build/sim/test/sim/mutants/trial.ts',
    },
  ],
  fuzz: async () => [
    {
      name: 'test/fuzz',
      command: process.execPath,
      args: [...NODE_TS, 'test/fuzz/main.ts', '--seconds=4', '--seed=1'],
      limitMs: 5 * MINUTE_MS,
      read: readPlainCounts,
    },
  ],
  e2e: async ({ match }) =>
    (await testFiles(E2E_DIR, match)).map((file) => ({
      name: file,
      command: process.execPath,
      args: [...NODE_TS, file],
      limitMs: 6 * MINUTE_MS,
      read: readUvuCounts,
    })),
  vm: async () => [
    {
      name: 'test/vm',
      command: process.execPath,
      args: [...NODE_TS, 'test/vm/main.ts', '--timeout', '2600'],
      limitMs: 45 * MINUTE_MS,
      read: readPlainCounts,
      needs: 'test/vm/main.ts',
    },
  ],
  stuck: async () => [
    {
      name: 'test/long/stuck.ts',
      command: process.execPath,
      args: [...NODE_TS, 'test/long/stuck.ts'],
      limitMs: 40 * MINUTE_MS,
      read: readUvuCounts,
    },
  ],
};

const LONG_SUITES = ['stuck'];

/** Only with --sanitizer. */
const SANITIZED_SUITES: Record<string, Suite> = {
  ...SUITES,
  sim: async ({ sanitizer }) => [
    {
      name: 'test/sim',
      command: process.execPath,
      args: [...NODE_TS, 'test/sim/main.ts', `--seeds=${sanitizer!.simSeeds}`, '--start=1'],
      limitMs: 5 * MINUTE_MS,
      read: readPlainCounts,
    },
  ],
};

/** Of the program that runs now; gone after it, also when a signal ends this process. */
const folders = new Set<string>();

async function makeFolder(kind: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `tidemark-${kind}-`));
  folders.add(folder);
  return folder;
}

function removeFolders(): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  folders.clear();
}

/** Of one report, in the summary. */
const REPORT_CHARS_MAX = 6_000;

/** Runs one program and adds its counts, and what else is wrong with it, to the suite's result. */
async function runProgram(
  program: Program,
  result: SuiteResult,
  sanitizer: Sanitizer | null,
): Promise<void> {
  const fail = (why: string) => {
    result.failed += 1;
    result.remarks.push(`${program.name}: ${why}`);
  };
  if (program.needs !== undefined && !existsSync(program.needs)) {
    fail(`${program.needs} does not exist`);
    return;
  }
  for (const file of program.files ?? []) {
    if (!(await readFile(file, 'utf8')).includes('.run()')) fail(`${file} never calls run()`);
  }
  const limitMs = program.limitMs * (sanitizer?.patience ?? 1);
  const folder = await makeFolder('test');
  // Not inside: a program may remove what is in its own.
  const reports = await makeFolder('reports');
  try {
    const { output, code, signal, timedOut, leftBehind } = await runInGroup(
      program.command,
      program.args,
      {
        limitMs,
        env: { ...process.env, TMPDIR: folder, ...sanitizer?.environment(reports) },
        onOutput: (text) => process.stdout.write(text),
      },
    );
    const counts = program.read(output);
    if (counts) {
      result.passed += counts.passed;
      result.failed += counts.failed;
      result.skipped += counts.skipped;
    }
    if (timedOut) {
      const what = counts ? 'did not exit after its tests' : 'did not finish';
      fail(`${what} within ${limitMs / SECOND_MS} s, killed`);
    } else if (signal !== null) fail(`ended by ${signal}`);
    else if (counts === null) fail(`exit status ${code} without a summary of its tests`);
    else if (code !== 0 && counts.failed === 0) fail(`exit status ${code}, but no failed test`);
    else if (counts.passed + counts.failed === 0) fail('ran no test');
    // Under a sanitizer some cannot be run, and are named (tools/sanitizer.ts).
    else if (counts.skipped > 0 && sanitizer === null) fail(`skipped ${counts.skipped} tests`);
    if (leftBehind.length > 0) fail(`left processes behind, now killed: ${leftBehind.join(', ')}`);
    for (const report of reportsIn(reports)) {
      fail(`the sanitizer reports:\n${report.slice(0, REPORT_CHARS_MAX)}`);
    }
  } finally {
    removeFolders();
  }
}

async function runSuite(
  name: string,
  match: string,
  sanitizer: Sanitizer | null,
): Promise<SuiteResult> {
  const result: SuiteResult = {
    name,
    passed: 0,
    failed: 0,
    skipped: 0,
    durationMs: 0,
    remarks: [],
  };
  const start = performance.now();
  const suites = sanitizer === null ? SUITES : SANITIZED_SUITES;
  const programs = await suites[name]!({ match, sanitizer });
  if (programs.length === 0) {
    result.failed += 1;
    result.remarks.push(match === '' ? 'no test files' : `no test files match '${match}'`);
  }
  for (const program of programs) {
    process.stdout.write(`\n=== ${name}: ${program.name}\n`);
    await runProgram(program, result, sanitizer);
  }
  result.durationMs = performance.now() - start;
  return result;
}

function printSummary(results: readonly SuiteResult[]): void {
  const row = (...cells: [string, ...(string | number)[]]) => {
    const [name, ...numbers] = cells;
    const line = name.padEnd(8) + numbers.map((cell) => String(cell).padStart(9)).join('');
    process.stdout.write(`${line}\n`);
  };
  process.stdout.write('\n');
  row('suite', 'passed', 'failed', 'skipped', 'seconds');
  for (const { name, passed, failed, skipped, durationMs } of results) {
    row(name, passed, failed, skipped, (durationMs / SECOND_MS).toFixed(1));
  }
  for (const { name, remarks } of results) {
    for (const remark of remarks) process.stdout.write(`${name}: ${remark}\n`);
  }
  process.stdout.write('\n');
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    killRunningGroups();
    removeFolders();
    process.exit(128 + constants.signals[signal]);
  });
}

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const { values, positionals } = parseArgs({
  options: { match: { type: 'string', default: '' }, sanitizer: { type: 'string' } },
  allowPositionals: true,
});
function isSanitizer(name: string): name is SanitizerName {
  return (SANITIZERS as string[]).includes(name);
}

function refuse(what: string, given: string, known: readonly string[]): never {
  process.stderr.write(`test/run.ts: unknown ${what} '${given}': expected ${known.join(', ')}\n`);
  process.exit(2);
}

let sanitizer: Sanitizer | null = null;
if (values.sanitizer !== undefined) {
  if (!isSanitizer(values.sanitizer)) refuse('sanitizer', values.sanitizer, SANITIZERS);
  sanitizer = new Sanitizer(values.sanitizer);
}
const known: readonly string[] = sanitizer?.suites ?? Object.keys(SUITES);
for (const name of positionals) if (!known.includes(name)) refuse('suite', name, known);

const results: SuiteResult[] = [];
const usual = known.filter((name) => !LONG_SUITES.includes(name));
for (const name of positionals.length > 0 ? positionals : usual) {
  results.push(await runSuite(name, values.match, sanitizer));
}
printSummary(results);
const sum = (key: 'passed' | 'failed') => results.reduce((total, each) => total + each[key], 0);
process.stdout.write(`${sum('passed')} passed, ${sum('failed')} failed\n`);
process.exitCode = sum('failed') === 0 ? 0 : 1;
