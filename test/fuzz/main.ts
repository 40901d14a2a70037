// Runs the fuzz targets of test/fuzz/targets, each for some seconds, beginning with its corpus.
//
//   node --import tsx test/fuzz/main.ts [--seconds 60] [--seed 1] [target...]
//
// Without a seed and targets, the property tests of test/unit follow, each property for so long, with inputs never drawn before: the unit
// tests draw the same ones every time.
//
// A target that fails writes the input to build/fuzz/findings/<target>-..., and how to repeat it is
// printed; that input belongs into test/fuzz/corpus/<target>.txt once it is mended. What a run learns is
// kept in build/fuzz/learned/<target>, and the next one goes on from there, unless a seed is given: then a
// run begins from the corpus alone. A target is one test. The last line is 'N passed, N failed'.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Counts, readUvuCounts } from '../tools/counts.ts';
import { BUILD, fuzzTargets, unpackCorpus } from './corpus.ts';

const SECONDS_DEFAULT = 60;
/** Longer inputs say nothing that shorter ones cannot. */
const INPUT_BYTES_MAX = 4096;
/** One run of a target takes milliseconds; without a sanitizer, microseconds. */
const HANG_SECONDS = 25;
const MEMORY_MB_MAX = 2048;
/** What the sanitizer keeps of freed memory: more of it finds older mistakes, and costs fresh pages. */
const QUARANTINE_MB = 32;

const UNITS = 'test/unit';
/** Property tests draw from so many seeds. */
const SEED_MAX = 2 ** 31;

interface Result {
  status: number | null;
  output: string;
}

function run(program: string, args: string[], more: NodeJS.ProcessEnv): Promise<Result> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, ...more };
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-64 * 1024);
      });
    }
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, output }));
  });
}

function numberOf(output: string, pattern: RegExp): number {
  return Number([...output.matchAll(pattern)].at(-1)?.[1] ?? 0);
}

/** Whether it passed. */
async function fuzz(target: string, seconds: number, seed: number | null): Promise<boolean> {
  const program = join(BUILD, `fuzz-${target}`);
  if (!existsSync(program)) {
    process.stdout.write(`${target}: ${program} does not exist\n`);
    return false;
  }
  const learned = join(BUILD, 'learned', target);
  const findings = join(BUILD, 'findings');
  const corpus = join(BUILD, 'corpus', target);
  rmSync(corpus, { recursive: true, force: true });
  if (unpackCorpus(target, corpus) === 0) {
    process.stdout.write(`${target}: it has no corpus\n`);
    return false;
  }
  if (seed !== null) rmSync(learned, { recursive: true, force: true });
  for (const folder of [learned, findings]) mkdirSync(folder, { recursive: true });
  const args = [
    `-max_total_time=${seconds}`,
    ...(seed === null ? [] : [`-seed=${seed}`]),
    `-max_len=${INPUT_BYTES_MAX}`,
    '-len_control=20',
    `-timeout=${HANG_SECONDS}`,
    `-rss_limit_mb=${MEMORY_MB_MAX}`,
    `-artifact_prefix=${join(findings, `${target}-`)}`,
    '-print_final_stats=1',
    learned,
    corpus,
  ];
  const { status, output } = await run(program, args, {
    ASAN_OPTIONS: `quarantine_size_mb=${QUARANTINE_MB}:allocator_may_return_null=1`,
    UBSAN_OPTIONS: 'print_stacktrace=1',
  });
  const runs = numberOf(output, /number_of_executed_units: (\d+)/g);
  const edges = numberOf(output, / cov: (\d+)/g);
  const peak = numberOf(output, /peak_rss_mb: +(\d+)/g);
  const passed = status === 0 && runs > 0;
  const told = `${runs} runs, ${edges} edges, ${peak} MB`;
  process.stdout.write(`${target.padEnd(12)} ${passed ? 'ok' : 'FAILED'} (${told})\n`);
  if (passed) return true;
  const input = /Test unit written to (\S+)/.exec(output)?.[1];
  process.stdout.write(`${output.slice(-8000)}\n${target} ended with status ${status}\n`);
  if (input !== undefined) process.stdout.write(`repeat it with: ${program} ${input}\n`);
  return false;
}

/** The property tests in a file: how many passed and failed. */
async function properties(file: string, seconds: number): Promise<Counts> {
  const seed = String(Math.floor(Math.random() * SEED_MAX));
  const { status, output } = await run(process.execPath, ['--import', 'tsx', file], {
    TIDEMARK_SECONDS: String(seconds),
    TIDEMARK_SEED: seed,
  });
  const counts = readUvuCounts(output) ?? { passed: 0, failed: 1, skipped: 0 };
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  const told = `${counts.passed} properties, seed ${seed}`;
  process.stdout.write(`${file} ${counts.failed === 0 ? 'ok' : 'FAILED'} (${told})\n`);
  if (counts.failed > 0) process.stdout.write(`${output}\n`);
  return counts;
}

process.chdir(fileURLToPath(new URL('../..', import.meta.url)));
const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string' }, seed: { type: 'string' } },
  allowPositionals: true,
});
const seconds = Number(values.seconds ?? SECONDS_DEFAULT);
const seed = values.seed === undefined ? null : Number(values.seed);
if (!Number.isInteger(seconds) || seconds < 1 || (seed !== null && !Number.isInteger(seed))) {
  process.stderr.write('test/fuzz/main.ts: --seconds (1 or more) and --seed are whole numbers\n');
  process.exit(2);
}
const known = fuzzTargets();
const unknown = positionals.find((name) => !known.includes(name));
if (unknown !== undefined) {
  process.stderr.write(
    `test/fuzz/main.ts: unknown target '${unknown}': expected ${known.join(', ')}\n`,
  );
  process.exit(2);
}

let passed = 0;
let failed = 0;
for (const target of positionals.length > 0 ? positionals : known) {
  if (await fuzz(target, seconds, seed)) passed += 1;
  else failed += 1;
}
if (positionals.length === 0 && seed === null) {
  const files = readdirSync(UNITS, { recursive: true, encoding: 'utf8' });
  for (const file of files.filter((name) => basename(name) === 'properties.test.ts').sort()) {
    const counts = await properties(join(UNITS, file), seconds);
    passed += counts.passed;
    failed += counts.failed;
  }
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
