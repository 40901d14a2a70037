/**
 * `npm run sim:mutants [-- --only name --quick --seeds N --start S --json FILE]`: for each mutant, seeds of the simulator until one fails.
 *
 * A mutant that no seed catches is a hole in the simulator: that counts as a failure. Each mutant has a process of its own (trial.ts): it
 * may abort, or hang. The last line is 'N passed, N failed'; passed is caught.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { STUCK_MS } from '../limits.ts';
import { MUTANTS, QUICK } from './list.ts';
import type { Mutant } from './mutant.ts';

/** Seeds that a mutant gets. */
const SEEDS = 4000;
const PROCESSES_MAX = 2;
const TRIAL = 'build/sim/test/sim/mutants/trial.ts';
const SIMULATOR = 'build/sim/test/sim/main.ts';

/** What trial.ts says, one a line. */
export type TrialLine =
  | { seed: number }
  /** Failed, and fails without the mutant too. */
  | { anyway: number }
  | { failed: number; check: string; message: string }
  | { survived: number };

interface Result {
  name: string;
  rules: string[];
  /** Of the seeds; '' for all. */
  theme: string;
  /** The seed that caught it; null: none did. */
  seed: number | null;
  /** How many were run. */
  seeds: number;
  /** Which check caught it. */
  check: string;
  message: string;
  seconds: number;
}

const children = new Set<ChildProcess>();

function attempt(mutant: Mutant, start: number, seeds: number): Promise<Result> {
  const began = performance.now();
  const args = ['--import', 'tsx', TRIAL, mutant.name, String(start), String(seeds)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  let at: number | null = null;
  let run = 0;
  let verdict: TrialLine | null = null;
  let errors = '';
  let isStuck = false;
  const stuck = () => {
    isStuck = true;
    child.kill('SIGKILL');
  };
  let timer = setTimeout(stuck, STUCK_MS);
  createInterface({ input: child.stdout! }).on('line', (text) => {
    if (!text.startsWith('{')) return;
    const line = JSON.parse(text) as TrialLine;
    if ('anyway' in line)
      console.log(
        `${mutant.name}: seed ${line.anyway} proves nothing: it fails without the mutant, too`,
      );
    else if (!('seed' in line)) verdict = line;
    else {
      at = line.seed;
      run += 1;
      clearTimeout(timer);
      timer = setTimeout(stuck, STUCK_MS);
    }
  });
  child.stderr!.on('data', (text) => {
    errors = (errors + text).slice(-2000);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      children.delete(child);
      const seconds = (performance.now() - began) / 1000;
      const { name, rules, theme = '' } = mutant;
      const result = (seed: number | null, check: string, message: string) => {
        resolve({ name, rules, theme, seed, seeds: run, check, message, seconds });
      };
      if (verdict && 'failed' in verdict) result(verdict.failed, verdict.check, verdict.message);
      else if (verdict) result(null, '', '');
      else if (signal !== null && at !== null) {
        const [check, why] = isStuck
          ? ['end', `no end within ${STUCK_MS / 1000} s`]
          : ['process', `ended by ${signal}`];
        const seed = at;
        passesWithout(seed).then((passes) => {
          if (passes) result(seed, check, why);
          else reject(new Error(`${name}: seed ${seed} does not pass without the mutant either`));
        }, reject);
      } else reject(new Error(`${TRIAL} ${name}: exit status ${code}\n${errors}`));
    });
  });
}

/** A seed that ended its process is run without any mutant, in another one. */
function passesWithout(seed: number): Promise<boolean> {
  const args = ['--import', 'tsx', SIMULATOR, '--seed', String(seed)];
  const child = spawn(process.execPath, args, {
    stdio: 'ignore',
    timeout: STUCK_MS,
    killSignal: 'SIGKILL',
  });
  children.add(child);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      children.delete(child);
      resolve(code === 0);
    });
  });
}

function isStray({ name, seed, check }: Result): boolean {
  const expected = QUICK.get(name);
  return seed !== null && expected !== undefined && check !== expected;
}

function show(results: readonly Result[]): void {
  const table = new Table({
    head: ['mutant', 'rules', 'theme', 'caught at seed', 'seeds', 'check'],
    style: { head: [], border: [] },
  });
  for (const { name, rules, theme, seed, seeds, check } of results) {
    table.push([name, rules.join(' '), theme, seed === null ? 'SURVIVED' : seed, seeds, check]);
  }
  console.log(table.toString());
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      quick: { type: 'boolean', default: false },
      seeds: { type: 'string', default: String(SEEDS) },
      start: { type: 'string', default: '1' },
      json: { type: 'string', default: 'build/sim/mutants.json' },
    },
  });
  const numberOf = (key: 'seeds' | 'start') => {
    const value = Number(values[key]);
    if (Number.isSafeInteger(value) && value > 0) return value;
    throw new RangeError(`--${key} ${values[key]}: expected a whole number from 1`);
  };
  const [seeds, start] = [numberOf('seeds'), numberOf('start')];
  const only = [...values.only, ...(values.quick ? QUICK.keys() : [])];
  for (const name of only) {
    if (!MUTANTS.some((each) => each.name === name)) throw new RangeError(`no mutant '${name}'`);
  }
  const chosen = MUTANTS.filter(({ name }) => only.length === 0 || only.includes(name));
  const waiting = [...chosen];
  const results: Result[] = [];
  const order = new Map(chosen.map(({ name }, index) => [name, index]));
  mkdirSync(dirname(values.json), { recursive: true });
  const work = async () => {
    for (let mutant = waiting.shift(); mutant; mutant = waiting.shift()) {
      const result = await attempt(mutant, start, seeds);
      results.push(result);
      results.sort((a, b) => order.get(a.name)! - order.get(b.name)!);
      // A run that is ended keeps what it has found.
      writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
      const how = result.seed === null ? 'SURVIVED' : `seed ${result.seed}: ${result.message}`;
      console.log(`${result.name} (${result.seconds.toFixed(1)} s): ${how}`.slice(0, 240));
    }
  };
  const processes = Math.min(PROCESSES_MAX, availableParallelism());
  await Promise.all(Array.from({ length: processes }, work));
  show(results);
  // Caught by something else, a mutant does not show that its check works.
  const strays = values.quick ? results.filter(isStray) : [];
  for (const { name, check } of strays)
    console.log(`${name}: caught by '${check}', expected '${QUICK.get(name)}'`);
  const failed = results.filter(({ seed }) => seed === null).length + strays.length;
  console.log(`${results.length - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    for (const child of children) child.kill('SIGKILL');
    process.exit(1);
  });
}

main().catch((error: Error) => {
  for (const child of children) child.kill('SIGKILL');
  console.error(`test/sim/mutants/main.ts: ${error.message}`);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
