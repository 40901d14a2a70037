/**
 * `npm run bench [-- options]`: Tidemark beside its peers in the same run, over NBD on this machine. `npm run bench:vm`: the same in the
 * virtual machine, over ublk. docs/performance.md says what is measured beside what, and how to repeat it.
 *
 * The subjects take turns, several rounds; what counts is the ratio of the medians. Machines differ and are shared: single figures say
 * little.
 */

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { killRunningCommands } from '../test/vm/command.ts';
import { tellChecks } from './checks.ts';
import { writeCharts, writeDocs } from './docs.ts';
import { measureLimits } from './limits.ts';
import { integer } from './options.ts';
import { Here } from './place.ts';
import { Profile } from './profile.ts';
import { reasonOf } from './reason.ts';
import { terminalText } from './report.ts';
import { type Result, readResult } from './result.ts';
import { measureAll } from './run.ts';
import { besideOf, sectionsHere } from './sections.ts';
import { CLI } from './subjects/tidemark.ts';
import { checksOf } from './targets.ts';
import { measureInMachine } from './vm.ts';

const usage = `usage: npm run bench -- [options]      over NBD, on this machine
       npm run bench:vm -- [options]   over ublk, in the virtual machine
  --vm             as bench:vm
  --only TEXT      only what has TEXT in section/subject/work, any/micro or any/scale; may be repeated
  --rounds N       1..100; default 5, in the virtual machine 3
  --seconds N      of each fio run, 1..600; default 3, in the virtual machine 2
  --json FILE      write all samples there
  --from FILE      measure nothing: take the samples that --json wrote
  --svg FOLDER     draw charts there
  --docs           write tables and charts into docs/performance.md and README.md; only from a whole run of at
                   least 3 rounds on a quiet machine
  --profile FOLDER watch the works (not any/micro and any/scale) with perf, and write there what the time of each
                   request went into; that takes time itself
  --beside FOLDER  measure what another checkout's build makes of it as well, in the same run
  --check          compare with the targets; ends with 'N passed, N failed'
`;

/** A whole run takes less than half an hour. */
const DEFAULTS = {
  here: { rounds: '5', seconds: '3' },
  vm: { rounds: '3', seconds: '2' },
};

const checkout = resolve(import.meta.dirname, '..');

function readArguments() {
  return parseArgs({
    options: {
      vm: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      json: { type: 'string' },
      svg: { type: 'string' },
      docs: { type: 'boolean', default: false },
      profile: { type: 'string' },
      beside: { type: 'string' },
      from: { type: 'string' },
      check: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  }).values;
}

function note(text: string): void {
  process.stderr.write(`bench: ${Math.round(performance.now() / 1000)} s: ${text}\n`);
}

/** @throws when nothing was built there, or the virtual machine has something else in its place. */
function builtCheckout(path: string, vm: boolean): string {
  const folder = resolve(path);
  if (vm && /^\/(tmp|run|dev)\//.test(folder))
    throw new Error(`--beside ${path}: the virtual machine has a /tmp, /run and /dev of its own`);
  if (!existsSync(join(folder, CLI)))
    throw new Error(`--beside ${path}: there is no ${CLI}; 'npm run build' makes it there`);
  return folder;
}

async function measure(options: ReturnType<typeof readArguments>): Promise<Result> {
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      abort.abort(new Error(`ended by ${signal}`));
      killRunningCommands();
    });
  }
  const profile = options.profile === undefined ? null : resolve(options.profile);
  const beside = options.beside === undefined ? null : builtCheckout(options.beside, options.vm);
  const defaults = DEFAULTS[options.vm ? 'vm' : 'here'];
  const common = {
    rounds: integer(options.rounds ?? defaults.rounds, 'rounds', 100),
    seconds: integer(options.seconds ?? defaults.seconds, 'seconds', 600),
    only: options.only,
    signal: abort.signal,
    note,
  };
  if (options.vm) return measureInMachine(checkout, { ...common, profile, beside });
  const place = new Here(checkout);
  try {
    const sections = besideOf(sectionsHere(), beside);
    const watched = profile === null ? undefined : await Profile.open(profile, note);
    const result = await measureAll(sections, place, { ...common, profile: watched });
    const { limits, missing } = await measureLimits(options.only, note);
    return { ...result, limits, missing: [...result.missing, ...missing] };
  } finally {
    await place.close();
  }
}

async function main(): Promise<number> {
  const options = readArguments();
  if (options.help) {
    process.stdout.write(usage);
    return 0;
  }
  const watched = options.profile ?? options.beside;
  if (options.from !== undefined && watched !== undefined)
    throw new Error('--from: measures nothing, so not with --profile or --beside');
  if (options.docs && watched !== undefined)
    throw new Error(
      '--docs: not with --profile or --beside, which take time from what is measured',
    );
  const result = options.from === undefined ? await measure(options) : readResult(options.from);
  if (options.json !== undefined) {
    await mkdir(dirname(resolve(options.json)), { recursive: true });
    await writeFile(options.json, `${JSON.stringify(result, null, 1)}\n`);
  }
  process.stdout.write(`${terminalText(result)}\n`);
  if (result.samples.length === 0 && result.limits.length === 0)
    throw new Error('nothing was measured');
  if (options.svg !== undefined) {
    for (const path of writeCharts(result, options.svg)) note(`drawn: ${path}`);
  }
  if (options.docs) writeDocs(checkout, result, options.only);
  if (!options.check) return result.missing.length === 0 ? 0 : 1;
  return tellChecks(checksOf(result, options.only)) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench: ${reasonOf(error)}\n`);
  process.exitCode = 1;
}
