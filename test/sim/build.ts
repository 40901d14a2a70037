/**
 * Writes the sources of the simulator under build/sim: the core and lib/ with the mutants in them (test/sim/mutants), and copies of
 * test/sim beside them, whose relative imports so find that lib.
 *
 *   node --import tsx test/sim/build.ts
 *
 *   build/sim/csrc/core           compiled with -DTIDEMARK_SIM_CORE=build/sim/csrc
 *   build/sim/csrc/sim_mutants.h  names and numbers of the mutants for C++
 *   build/sim/lib, build/sim/test/sim
 *
 * Files that are as they should be are left alone, so that nothing is compiled again without need; what has no source any more is removed.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FOLDERS, filesIn, generate } from './mutants/generate.ts';
import { MUTANTS } from './mutants/list.ts';

const TOP = fileURLToPath(new URL('../..', import.meta.url));
const OUT = join(TOP, 'build/sim');

function build(): string {
  const wanted = generate(TOP, MUTANTS);
  let written = 0;
  for (const [file, text] of wanted) {
    const path = join(OUT, file);
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    written += 1;
  }
  const there = FOLDERS.flatMap((folder) => filesIn(OUT, folder));
  const stale = there.filter((file) => !wanted.has(file));
  for (const file of stale) rmSync(join(OUT, file));
  const change = written + stale.length;
  const changes = change === 0 ? 'up to date' : `${written} written, ${stale.length} removed`;
  return `build/sim: ${wanted.size} files, ${MUTANTS.length} mutants, ${changes}`;
}

try {
  console.log(build());
} catch (error) {
  console.error(`test/sim/build.ts: ${(error as Error).message}`);
  process.exitCode = 1;
}
