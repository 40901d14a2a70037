// `npm run test:kills`: kills daemons over NBD, round after round, until so many processes have been killed; each round ends with
// all checks (test/scenarios/kills.ts). A failure is told with its seed and round, its logs are kept, and the next round
// begins with new disks. The last line is 'N passed, N failed', in rounds.
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { describeTotals, noKills, sumOf, unproved } from '../scenarios/kill-totals.ts';
import { Kills } from '../scenarios/kills.ts';
import { nbdPlace } from '../scenarios/place.ts';
import { killRunningCommands } from '../vm/command.ts';
import { ScenarioContext, withDeadline } from '../vm/guest/support/scenario.ts';

const usage = `usage: npm run test:kills -- [options]
  --kills N          daemons to kill (default 200)
  --seed N           of the plan (default: drawn and printed)
  --start N          the first round's number (default 0)
  --keep DIRECTORY   where the logs of a failure go (default a new one under the system's temporary folder)
`;
/** Rounds that one pair of disks goes through. */
const ROUNDS_A_CLUSTER = 25;
const FORM_MS = 60_000;
/** One round, under whatever load the machine has. */
const ROUND_MS = 180_000;

/** What the clusters differ in, by turns. */
const VARIANTS = [
  {},
  { volume: { protocol: 'A' } },
  { metadata: 'external' },
  { metadata: 'internal-start' },
] as const;

function whole(text: string, name: string, low: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= low) return value;
  throw new Error(`--${name}: '${text}' is not a whole number of at least ${low}`);
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '200' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
      start: { type: 'string', default: '0' },
      keep: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return {
    help: values.help,
    kills: whole(values.kills, 'kills', 1),
    seed: whole(values.seed, 'seed', 0),
    start: whole(values.start, 'start', 0),
    keep: values.keep,
  };
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** The files of one cluster, gone at its end. */
let folder: string | null = null;
const abort = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    abort.abort();
    killRunningCommands();
    // Daemons and fio die with this process.
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  });
}

let totals = noKills();
let passed = 0;
let failed = 0;

/** Rounds on one pair of disks, until enough was killed or one fails; returns the next round's number. */
async function runCluster(
  options: ReturnType<typeof readArguments>,
  from: number,
): Promise<number> {
  folder = mkdtempSync(join(tmpdir(), 'kills-'));
  // What the nodes make for themselves goes with it.
  process.env.TMPDIR = folder;
  const t = new ScenarioContext('kills', folder, abort.signal, join(folder, 'scratch'));
  const variant = VARIANTS[Math.floor(from / ROUNDS_A_CLUSTER) % VARIANTS.length]!;
  const { seed } = options;
  let kills: Kills | null = null;
  const before = totals;
  let round = from;
  let failure: unknown;
  try {
    const forming = Kills.form(t, nbdPlace, { seed, ...variant });
    kills = await withDeadline(forming, FORM_MS, 'making a cluster');
    for (let done = 0; done < ROUNDS_A_CLUSTER && totals.kills < options.kills; done += 1) {
      const started = performance.now();
      const what = await withDeadline(kills.round(round), ROUND_MS, 'the round');
      passed += 1;
      say(`ok round ${round}: ${what} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
      totals = sumOf(before, kills.totals);
      round += 1;
    }
    await withDeadline(kills.end(), ROUND_MS, 'the end of a cluster');
  } catch (error) {
    failure = error;
  }
  if (kills !== null) totals = sumOf(before, kills.totals);
  const undone = await t.undoAll();
  if (failure !== undefined || undone.length > 0) {
    failed += 1;
    const text = failure instanceof Error ? (failure.stack ?? failure.message) : String(failure);
    say(`not ok round ${round} of seed ${seed}, variant ${JSON.stringify(variant)}: ${text}`);
    for (const line of undone) say(`  ${line}`);
    const kept = options.keep ?? join('/tmp', `tidemark-kills-${process.pid}`);
    cpSync(t.logs, join(kept, `round-${round}`), { recursive: true });
    say(`  logs kept in ${join(kept, `round-${round}`)}`);
    round += 1;
  }
  rmSync(folder, { recursive: true, force: true });
  folder = null;
  return round;
}

const options = readArguments();
if (options.help) process.stdout.write(usage);
else {
  process.env.TIDEMARK_CHECKOUT ??= join(import.meta.dirname, '..', '..');
  say(`seed ${options.seed}, ${options.kills} kills`);
  const systemTmp = process.env.TMPDIR;
  for (let round = options.start; totals.kills < options.kills && failed < 10; ) {
    round = await runCluster(options, round);
    if (systemTmp === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = systemTmp;
  }
  say(describeTotals(totals));
  for (const what of unproved(totals)) {
    say(`not ok: ${what}`);
    failed += 1;
  }
  say(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
