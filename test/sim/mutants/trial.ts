/**
 * One mutant, seeds of the simulator until one fails; main.ts starts it, from build/sim.
 *
 *   node --import tsx build/sim/test/sim/mutants/trial.ts <mutant> <first seed> <seeds>
 *
 * Prints a line of JSON for every seed that begins, and one at the end (TrialLine). A seed that fails counts only if it passes without the
 * mutant.
 */
import { nativeMutants, setMutant } from '../machine.ts';
import { makePlan } from '../plan.ts';
import { Random } from '../random.ts';
import { runSeed } from '../run_seed.ts';
import { chooseMutant } from './chosen.ts';
import { MUTANTS } from './list.ts';
import type { TrialLine } from './main.ts';

const [name = '', start = '', count = ''] = process.argv.slice(2);
const { theme } = MUTANTS.find((each) => each.name === name)!;
const tell = (line: TrialLine) => process.stdout.write(`${JSON.stringify(line)}\n`);

function choose(mutant: string): void {
  chooseMutant(mutant);
  setMutant(nativeMutants.includes(mutant) ? mutant : '');
}

let left = Number(count);
let failed = false;
for (let seed = Number(start); left > 0 && !failed; seed++) {
  if (theme !== undefined && makePlan(seed, new Random(seed).fork()).theme !== theme) continue;
  left -= 1;
  tell({ seed });
  choose(name);
  const { failure } = await runSeed(seed, false);
  if (failure === null) continue;
  choose('');
  const { failure: anyway } = await runSeed(seed, false);
  failed = anyway === null;
  if (failed) tell({ failed: seed, check: failure.check, message: failure.message });
  else tell({ anyway: seed });
}
if (!failed) tell({ survived: Number(count) });
process.exit(0);
