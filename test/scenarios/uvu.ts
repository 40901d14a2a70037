// Runs scenarios as uvu tests on this machine. Inside the virtual machine its own runner does this.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import { PATIENCE } from '../tools/patience.ts';
import { killRunningCommands } from '../vm/command.ts';
import { type Scenario, ScenarioContext, withDeadline } from '../vm/guest/support/scenario.ts';

const DEFAULT_TIMEOUT_MS = 60_000 * PATIENCE;
/** Of each log of a scenario that failed. */
const LOG_TAIL_BYTES = 6_000;

/** Registers and runs them. TIDEMARK_SCENARIO runs only those whose name contains its text. */
export function runAsTests(name: string, scenarios: readonly Scenario[]): void {
  const only = process.env.TIDEMARK_SCENARIO ?? '';
  const tests = suite(name);
  for (const one of scenarios) {
    if (one.name.includes(only)) tests(one.name, () => runScenario(one));
  }
  tests.run();
}

async function runScenario(one: Scenario): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 's-'));
  const abort = new AbortController();
  const t = new ScenarioContext('scenario', folder, abort.signal, join(folder, 'scratch'));
  const problems: string[] = [];
  let failure: unknown;
  try {
    await withDeadline(one.run(t), one.timeoutMs ?? DEFAULT_TIMEOUT_MS, 'the scenario');
  } catch (error) {
    failure = error;
    problems.push(`last step: ${t.lastStep}`);
  }
  abort.abort();
  killRunningCommands();
  const undone = await t.undoAll();
  problems.push(...undone);
  if (failure !== undefined || undone.length > 0) {
    process.stderr.write(`\n${one.name}:\n${problems.join('\n')}\n${logTails(t.logs)}`);
  }
  if (process.env.TIDEMARK_KEEP_LOGS) process.stderr.write(logTails(t.logs));
  rmSync(folder, { recursive: true, force: true });
  if (failure !== undefined) throw failure;
  if (undone.length > 0) throw new Error(undone.join('\n'));
}

function logTails(folder: string): string {
  if (!existsSync(folder)) return '';
  const names = readdirSync(folder).sort();
  return names
    .map((name) => {
      const text = readFileSync(join(folder, name), 'utf8').slice(-LOG_TAIL_BYTES);
      return `--- ${name}\n${text}\n`;
    })
    .join('');
}
