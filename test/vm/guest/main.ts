// The guest's side of a run: what bundle.ts makes calls this with every scenario file's exports.
import { type ScenarioResult, tapLine } from './support/events.js';
import { runScenarios } from './support/runner.js';
import type { Scenario } from './support/scenario.js';

export async function main(files: Readonly<Record<string, unknown>>): Promise<void> {
  const results = process.env.TIDEMARK_RESULTS;
  if (!results) throw new Error('TIDEMARK_RESULTS is not set; this runs inside the test machine');
  const scenarios = Object.entries(files).flatMap(([file, exported]) => {
    const list = (Array.isArray(exported) ? exported : [exported]) as Scenario[];
    const bad = list.find((one) => typeof one?.name !== 'string' || typeof one?.run !== 'function');
    if (bad !== undefined || list.length === 0) {
      throw new Error(`${file}: its default export is no scenario and no list of scenarios`);
    }
    return list;
  });
  const only = JSON.parse(process.env.TIDEMARK_VM_ONLY || '[]') as string[];
  const outcome = await runScenarios(scenarios, { results, only, tell });
  // A scenario that hangs in the kernel may keep this process's event loop alive.
  process.exit(outcome.length > 0 && outcome.every(({ ok }) => ok) ? 0 : 1);
}

function tell(result: ScenarioResult, index: number, count: number): void {
  if (index === 1) process.stdout.write(`1..${count}\n`);
  process.stdout.write(tapLine(result, index));
}
