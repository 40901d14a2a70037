// Runs the scenarios one after the other inside the machine, all in one process, since starting Node costs
// seconds there, and reports each to the host.
import { appendFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { killRunningCommands } from '../../command.js';
import { eventsFile, type RunEvent, type ScenarioResult } from './events.js';
import { KernelLog } from './kmsg.js';
import { clearAway, type Inventory, leftBehind, takeInventory } from './leftovers.js';
import { messageOf, type Scenario, ScenarioContext, withDeadline } from './scenario.js';

const defaultTimeoutMs = 120_000;
/** A process that was killed may take a moment to be gone. */
const settleMs = 2_000;

export interface RunnerOptions {
  results: string;
  /** Parts of scenario names; empty means all. */
  only: readonly string[];
  tell: (result: ScenarioResult, index: number, count: number) => void;
}

export async function runScenarios(
  all: readonly Scenario[],
  options: RunnerOptions,
): Promise<ScenarioResult[]> {
  const { only } = options;
  const chosen = all.filter(({ name, long }) =>
    only.length === 0 ? !long : only.some((part) => name.includes(part)),
  );
  const names = chosen.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice) throw new Error(`two scenarios are named '${twice}'`);

  const emit = (event: RunEvent) => {
    appendFileSync(join(options.results, eventsFile), `${JSON.stringify(event)}\n`);
  };
  emit({ event: 'plan', names });
  const kernelLog = new KernelLog();
  kernelLog.read(); // The host judges what came before.
  const results: ScenarioResult[] = [];
  for (const one of chosen) {
    emit({ event: 'start', name: one.name });
    const result = await runOne(one, options.results, kernelLog);
    results.push(result);
    emit({ event: 'result', ...result });
    options.tell(result, results.length, chosen.length);
  }
  kernelLog.close();
  emit({ event: 'end' });
  return results;
}

async function runOne(
  one: Scenario,
  results: string,
  kernelLog: KernelLog,
): Promise<ScenarioResult> {
  const started = performance.now();
  const before = takeInventory();
  const abort = new AbortController();
  const t = new ScenarioContext(slugOf(one.name), results, abort.signal);
  const problems: string[] = [];
  try {
    await withDeadline(one.run(t), one.timeoutMs ?? defaultTimeoutMs, 'the scenario');
  } catch (error) {
    problems.push(describe(error));
    if (t.lastStep) problems.push(`last step: ${t.lastStep}`);
  }
  abort.abort();
  killRunningCommands();
  problems.push(...(await t.undoAll()));
  const left = await leaks(before);
  problems.push(...left.map((entry) => `left behind: ${entry}`));
  await clearAway(left);
  try {
    rmSync(t.directory, { recursive: true, force: true });
  } catch (error) {
    problems.push(`cleanup: ${messageOf(error)}`);
  }
  for (const fault of kernelLog.faults()) problems.push(`kernel: ${fault.line}`);

  const elapsedMs = Math.round(performance.now() - started);
  if (problems.length === 0) return { name: one.name, ok: true, elapsedMs };
  return { name: one.name, ok: false, elapsedMs, error: problems.join('\n') };
}

async function leaks(before: Inventory): Promise<string[]> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const left = leftBehind(before, takeInventory());
    if (left.length === 0 || performance.now() > deadline) return left;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The message, and of the stack what is the scenario's own: not Node's frames, not the harness's. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return messageOf(error);
  const stack = (error.stack ?? error.message).split('\n');
  const foreign =
    /^ {4}at .*(\(|async |at )(node:|.*\/test\/vm\/(command\.ts|guest\/support\/|guest\/main\.ts)|.*<stdin>)/;
  return stack.filter((line) => !foreign.test(line)).join('\n');
}

/** A scenario's name as a file name. */
export function slugOf(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .slice(0, 80);
}
