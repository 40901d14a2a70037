// `npm run test:vm`: runs the scenarios in guest/ against the real ublk driver, in a virtual machine
// on this host's own files. See docs/testing-vm.md.
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { findRecordings } from '../power/recording.ts';
import { replayLine } from '../power/report.ts';
import { bundleScenarios } from './bundle.js';
import { cacheDirectory } from './cache.js';
import { killRunningCommands } from './command.js';
import {
  eventsFile,
  parseEvents,
  resultsOf,
  type ScenarioResult,
  tapLine,
} from './guest/support/events.js';
import { bootMachine, type MachineImage, type MachineOutcome, prepareImage } from './machine.js';

const usage = `usage: node --import tsx test/vm/main.ts [options] [part of a scenario's name ...]
  --shell             an interactive shell in the machine (leave with exit; Ctrl-A X kills it)
  --command TEXT      run this bash text in the machine instead of the scenarios
  --prepare           fetch and build what a machine needs, and boot nothing
  --refresh-kernel    look for a newer kernel than the cached one
  --console           show the kernel's console too
  --keep DIRECTORY    keep logs and results there
  --timeout SECONDS   for the whole run (default 1800)
  --memory MIB        the machine's memory (default 6144, less on a small host)
`;

const checkout = resolve(import.meta.dirname, '..', '..');
const defaultTimeoutSeconds = 1800;
const resultsPrefix = 'tidemark-vm-';
/** In the name of each scenario that records something to be replayed here. */
const RECORDING = 'recording ';
const nodeFlags = '--enable-source-maps';

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      shell: { type: 'boolean', default: false },
      command: { type: 'string' },
      prepare: { type: 'boolean', default: false },
      'refresh-kernel': { type: 'boolean', default: false },
      console: { type: 'boolean', default: false },
      keep: { type: 'string' },
      timeout: { type: 'string' },
      memory: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return { ...values, only: positionals };
}

type Arguments = ReturnType<typeof readArguments>;

function positive(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${name}: '${text}' is not a whole number of at least 1`);
  }
  return value;
}

async function main(): Promise<number> {
  const options = readArguments();
  if (options.help) {
    process.stdout.write(usage);
    return 0;
  }
  const timeoutMs = 1000 * (positive(options.timeout, 'timeout') ?? defaultTimeoutSeconds);
  const memoryMib = positive(options.memory, 'memory');
  const image = await prepareImage(options['refresh-kernel'], note);
  if (options.prepare) {
    note(`ready: kernel ${image.kernel.version} in ${cacheDirectory()}`);
    return 0;
  }

  await removeStaleResults();
  const results = await mkdtemp(join(tmpdir(), `${resultsPrefix}${process.pid}-`));
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      abort.abort();
      killRunningCommands();
    });
  }
  try {
    const boot = (script: string, interactive = false) =>
      bootMachine(
        {
          ...{ image, results, checkout, script, timeoutMs, memoryMib, interactive },
          signal: abort.signal,
          onOutput: (line) => process.stdout.write(`${line}\n`),
          onConsole: (line) => {
            if (options.console) process.stderr.write(`# console: ${line}\n`);
          },
        },
        note,
      );
    if (options.shell) return reportJob(await boot(shellScript(), true));
    if (options.command) return reportJob(await boot(options.command));
    const ok = await runScenarios(options, image, results, boot);
    if (!ok && !options.keep) await keep(results, join(cacheDirectory(), 'last-failure'));
    return ok ? 0 : 1;
  } finally {
    if (options.keep) await keep(results, resolve(options.keep));
    await rm(results, { recursive: true, force: true });
  }
}

async function runScenarios(
  options: Arguments,
  image: MachineImage,
  results: string,
  boot: (script: string) => Promise<MachineOutcome>,
): Promise<boolean> {
  await bundleScenarios(join(results, 'scenarios.mjs'));
  note(`booting Linux ${image.kernel.version} under emulation`);
  const outcome = await boot(scenarioScript(options.only));

  const events = await readFile(join(results, eventsFile), 'utf8').then(parseEvents, () => []);
  const why = outcome.problem ?? `the runner ended with status ${outcome.status}`;
  const scenarios = resultsOf(events, why);
  // The guest printed what ended; the rest is told here.
  const told = new Set(events.flatMap((entry) => (entry.event === 'result' ? [entry.name] : [])));
  scenarios.forEach((result, index) => {
    if (!told.has(result.name)) process.stdout.write(tapLine(result, index + 1));
  });
  const made = scenarios.filter(({ name, ok }) => ok && name.includes(RECORDING)).length;
  const replayed = await replayRecordings(results, scenarios.length);
  scenarios.push(...replayed);
  if (replayed.length < made) {
    const error = `${replayed.length} of ${made} are there`;
    scenarios.push({ name: 'recordings to be replayed', ok: false, elapsedMs: 0, error });
    note(`recordings to be replayed: ${error}`);
  }
  const failed = scenarios.filter(({ ok }) => !ok).length;
  const machineFailed = outcome.status !== 0 || outcome.faults.length > 0;
  for (const fault of outcome.faults) note(`kernel fault: ${fault.line}`);
  if (outcome.problem) note(outcome.problem);
  if (scenarios.length === 0) {
    const names = options.only.map((part) => `'${part}'`).join(', ');
    note(`no scenario ran${names ? `; none is named like ${names}` : ''}`);
  } else if (failed === 0 && machineFailed) {
    note(`all scenarios passed, but the machine did not: ${outcome.problem ?? why}`);
  }
  note(`booted in ${seconds(outcome.bootMs)}, ${seconds(outcome.totalMs)} altogether`);
  process.stdout.write(`${scenarios.length - failed} passed, ${failed} failed\n`);
  return scenarios.length > 0 && failed === 0 && !machineFailed;
}

/** What the scenarios recorded for it is judged here, where that takes seconds: each recording is one test more. */
async function replayRecordings(results: string, before: number): Promise<ScenarioResult[]> {
  const found: ScenarioResult[] = [];
  for (const recording of findRecordings(join(results, 'logs'))) {
    const started = performance.now();
    const { ok, text } = await replayLine(recording);
    const elapsedMs = performance.now() - started;
    const result: ScenarioResult = ok
      ? { name: text, ok, elapsedMs }
      : { name: recording.note.name, ok, elapsedMs, error: text };
    found.push(result);
    process.stdout.write(tapLine(result, before + found.length));
  }
  return found;
}

function scenarioScript(only: readonly string[]): string {
  const quoted = JSON.stringify(only).replaceAll("'", "'\\''");
  return `export TIDEMARK_VM_ONLY='${quoted}'
exec '${process.execPath}' ${nodeFlags} "$TIDEMARK_RESULTS/scenarios.mjs"
`;
}

/** A shell on the serial console, with job control, as large as the terminal here. */
function shellScript(): string {
  const { rows = 24, columns = 80 } = process.stdout;
  return `modprobe ublk_drv
export TERM='${(process.env.TERM ?? 'vt100').replaceAll("'", '')}'
stty -F /dev/ttyS0 sane rows ${rows} cols ${columns}
exec setsid --ctty --wait bash -i < /dev/ttyS0 > /dev/ttyS0 2>&1
`;
}

function reportJob(outcome: MachineOutcome): number {
  for (const fault of outcome.faults) note(`kernel fault: ${fault.line}`);
  if (outcome.problem) note(outcome.problem);
  return outcome.faults.length > 0 ? 1 : (outcome.status ?? 1);
}

/** A run that was killed outright could not remove its directory; the next one does. */
async function removeStaleResults(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = name.startsWith(resultsPrefix)
      ? Number.parseInt(name.slice(resultsPrefix.length), 10)
      : 0;
    if (pid > 0 && !existsSync(`/proc/${pid}`)) {
      await rm(join(tmpdir(), name), { recursive: true, force: true });
    }
  }
}

async function keep(results: string, directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  await cp(results, directory, { recursive: true });
  note(`logs kept in ${directory}`);
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? 'never' : `${(ms / 1000).toFixed(1)} s`;
}

function note(text: string): void {
  process.stdout.write(`# ${text}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test:vm: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
