// The simulator's program: runs one seed, or many.
//
//   npm run sim -- --seed 17 --trace
//   npm run sim -- --seeds 500 --start 1
//
// docs/simulator.md tells what a seed does and how to read a failure. The last line is 'N passed, N failed'; the exit status is 1 when a
// seed failed, 2 when the arguments make no sense.

import { type ChildProcess, fork } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { STUCK_MS } from './limits.ts';
import { nativeMutants, setMutant } from './machine.ts';
import { chooseMutant } from './mutants/chosen.ts';
import { runSeed, type SeedResult } from './run_seed.ts';

const SEED_MAX = Number.MAX_SAFE_INTEGER;
const SEEDS_MAX = 10_000_000;
const JOBS_MAX = 2;
/** Trace lines that are printed with a failure; all that were kept are in a file. */
const LINES_SHOWN = 40;
const PROGRESS_MS = 2000;

interface Options {
  seed?: number;
  seeds?: number;
  start: number;
  jobs: number;
  trace: boolean;
  mutant: string;
  traces: string;
  failFast: boolean;
  worker: boolean;
}

function integer(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`'${text}' is no integer from ${min} to ${max}`);
  };
}

function parse(argv: string[]): Options {
  const program = new Command('sim')
    .description('Runs two nodes, or three, under simulated disks, network and clock, from a seed.')
    .option('--seed <n>', `run this seed, 0 to ${SEED_MAX}`, integer(0, SEED_MAX))
    .option('--seeds <n>', 'run so many seeds', integer(1, SEEDS_MAX))
    .option('--start <s>', 'the first of them', integer(0, SEED_MAX), 1)
    .option('--jobs <n>', `processes, 1 to ${JOBS_MAX}`, integer(1, JOBS_MAX), JOBS_MAX)
    .option('--trace', 'print everything that happens; with --seed', false)
    .option('--mutant <name>', 'with this deliberate bug', '')
    .option('--traces <folder>', 'where the traces of failed seeds go', 'build/sim-traces')
    .option('--fail-fast', 'stop at the first seed that fails', false)
    .addOption(new Option('--worker').hideHelp().default(false))
    .allowExcessArguments(false)
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
  const options = program.parse(argv, { from: 'user' }).opts<Options>();
  const wrong = (message: string) => program.error(`sim: ${message}`, { exitCode: 2 });
  if (options.seed !== undefined && options.seeds !== undefined) {
    wrong('--seed and --seeds exclude each other');
  }
  if (options.trace && options.seed === undefined) wrong('--trace needs --seed');
  if (options.start + (options.seeds ?? 0) > SEED_MAX) wrong(`seeds end at ${SEED_MAX}`);
  try {
    mutate(options.mutant);
  } catch (error) {
    wrong((error as Error).message);
  }
  return options;
}

/** A mutant may be in C++, in TypeScript, or in both. */
function mutate(name: string): void {
  chooseMutant(name);
  setMutant(nativeMutants.includes(name) ? name : '');
}

function report(result: SeedResult, folder: string): void {
  const { seed, theme, failure, steps, virtualMs } = result;
  if (failure === null) return;
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `seed-${seed}.txt`);
  writeFileSync(file, `${failure.lines.join('\n')}\n`);
  const shown = failure.lines.slice(-LINES_SHOWN).map((line) => `  ${line.slice(0, 400)}`);
  process.stdout.write(
    `seed ${seed} (${theme}) FAILED at step ${steps}, ${virtualMs.toFixed(3)} ms\n${shown.join('\n')}\n` +
      `  ${failure.message}\n  the last ${failure.lines.length} lines: ${file}; again: npm run sim -- --seed ${seed} --trace\n`,
  );
}

class Tally {
  readonly #folder: string;
  readonly #total: number;
  readonly #cpuMs: number[] = [];
  readonly #checks = new Map<string, number>();
  passed = 0;
  failed = 0;
  steps = 0;
  requests = 0;
  virtualCrashes = 0;
  #toldMs = 0;
  readonly #beginMs = performance.now();

  constructor(total: number, folder: string) {
    this.#total = total;
    this.#folder = folder;
  }

  add(result: SeedResult): void {
    const { failure, counts } = result;
    if (failure === null) this.passed += 1;
    else {
      this.failed += 1;
      this.#checks.set(failure.check, (this.#checks.get(failure.check) ?? 0) + 1);
    }
    this.#cpuMs.push(result.cpuMs);
    this.steps += result.steps;
    this.requests += counts.reads + counts.writes + counts.flushes;
    this.virtualCrashes += counts.virtualCrashes;
    report(result, this.#folder);
    const nowMs = performance.now();
    if (nowMs - this.#toldMs < PROGRESS_MS) return;
    this.#toldMs = nowMs;
    const done = this.passed + this.failed;
    const seconds = (nowMs - this.#beginMs) / 1000;
    process.stdout.write(
      `sim: ${done} of ${this.#total} seeds, ${this.failed} failed, ${(done / seconds).toFixed(1)} seeds/s\n`,
    );
  }

  end(): void {
    const sorted = this.#cpuMs.sort((a, b) => a - b);
    const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(0);
    const checks = [...this.#checks].map(([check, count]) => `${check} ${count}`).join(', ');
    process.stdout.write(
      `sim: ${this.steps} steps, ${this.requests} requests, ${this.virtualCrashes} crashes tried in a copy; ` +
        `CPU of a seed: median ${at(0.5)} ms, 90 % ${at(0.9)} ms, most ${at(1)} ms\n` +
        (checks === '' ? '' : `sim: failed: ${checks}\n`) +
        `${this.passed} passed, ${this.failed} failed\n`,
    );
  }
}

/** One process of several: seeds come as messages, results go back. */
function work(): void {
  process.on('message', (seed: number) => {
    void runSeed(seed, false).then((result) => process.send!(result));
  });
  process.on('disconnect', () => process.exit(0));
  process.send!('ready');
}

/** Runs the seeds in child processes; one that dies is a seed that failed. */
async function runMany(options: Options, tally: Tally): Promise<void> {
  const end = options.start + options.seeds!;
  let next = options.start;
  const stops = () => next >= end || (options.failFast && tally.failed > 0);
  const argv = ['--worker', ...(options.mutant === '' ? [] : ['--mutant', options.mutant])];
  const runChild = () =>
    new Promise<void>((resolve) => {
      const child: ChildProcess = fork(fileURLToPath(import.meta.url), argv, {
        stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
      });
      let seed: number | null = null;
      let isReady = false;
      let errors = '';
      const stuck = setTimeout(() => {
        errors += `no end within ${STUCK_MS / 1000} s`;
        child.kill('SIGKILL');
      }, STUCK_MS);
      child.stderr!.on('data', (text: Buffer) => {
        errors = (errors + text.toString()).slice(-4000);
      });
      const give = () => {
        stuck.refresh();
        seed = stops() ? null : next++;
        if (seed === null) child.disconnect();
        else child.send(seed);
      };
      child.on('message', (message: SeedResult | 'ready') => {
        if (message === 'ready') isReady = true;
        else tally.add(message);
        give();
      });
      child.on('exit', (code, signal) => {
        clearTimeout(stuck);
        const how = `${signal ?? `exit status ${code}`}: ${errors}`;
        if (!isReady) {
          // Another one would not begin either.
          tally.add(died(next, how));
          next = end;
        }
        if (seed !== null) tally.add(died(seed, how));
        resolve();
      });
    });
  const worker = async () => {
    while (!stops()) await runChild();
  };
  await Promise.all(Array.from({ length: Math.min(options.jobs, options.seeds!) }, worker));
}

function died(seed: number, how: string): SeedResult {
  return {
    seed,
    theme: '?',
    steps: 0,
    virtualMs: 0,
    cpuMs: 0,
    traceHash: 0,
    failure: { check: 'died', message: `the process ended by ${how}`, lines: [] },
    counts: { reads: 0, writes: 0, flushes: 0, errors: 0, virtualCrashes: 0 },
  };
}

const options = parse(process.argv.slice(2));
if (options.worker) work();
else {
  const tally = new Tally(options.seeds ?? 1, options.traces);
  if (options.seeds === undefined) {
    const result = await runSeed(options.seed ?? options.start, options.trace);
    tally.add(result);
    process.stdout.write(
      `seed ${result.seed} (${result.theme}): ${result.steps} steps, ${result.virtualMs.toFixed(3)} ms, ` +
        `${JSON.stringify(result.counts)}, trace ${result.traceHash.toString(16)}\n`,
    );
  } else await runMany(options, tally);
  tally.end();
  process.exitCode = tally.failed === 0 ? 0 : 1;
}
