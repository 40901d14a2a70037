/**
 * One mutant, seeds of the simulator until one fails; main.ts starts it, from build/sim.
 *
 *   node --import tsx build/sim/test/sim/mutants/trial.ts <mutant> <first seed> <seeds>
 *
 * Prints a line of JSON for every seed that begins, and one at the end (TrialLine).
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

chooseMutant(name);
setMutant(nativeMutants.includes(name) ? name : '');
let left = Number(count);
let failed = false;
for (let seed = Number(start); left > 0 && !failed; seed++) {
  if (theme !== undefined && makePlan(seed, new Random(seed).fork()).theme !== theme) continue;
  left -= 1;
  tell({ seed });
  const { failure } = await runSeed(seed, false);
  failed = failure !== null;
  if (failure !== null) tell({ failed: seed, check: failure.check, message: failure.message });
}
if (!failed) tell({ survived: Number(count) });
process.exit(0);
