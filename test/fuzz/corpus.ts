// The seed corpora of the fuzz targets: test/fuzz/corpus/<target>.txt, an input a line, in hexadecimal. Lines
// with a '#' are comments. What is above the line LEARNED is kept by hand: inputs that once found something,
// each with what that was. What is below was chosen by this script from what runs have learned: the smallest
// set of inputs that reaches everything.
//
//   node --import tsx test/fuzz/corpus.ts [target...]      renews what is below; run the fuzzers long before
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const BUILD = 'build/fuzz';
const TARGETS = 'test/fuzz/targets';
const CORPUS = 'test/fuzz/corpus';
const LEARNED = '# --- learned ---';
/** Longer inputs are not worth a line. */
const LINE_BYTES_MAX = 200;

/** Names of all fuzz targets. */
export function fuzzTargets(): string[] {
  return readdirSync(TARGETS)
    .map((file) => basename(file, '.cc'))
    .sort();
}

function corpusFile(target: string): string {
  return join(CORPUS, `${target}.txt`);
}

/** Writes the inputs of a target's corpus into a folder, as libFuzzer wants them. Returns how many there are. */
export function unpackCorpus(target: string, folder: string): number {
  mkdirSync(folder, { recursive: true });
  const file = corpusFile(target);
  let inputs = 0;
  if (!existsSync(file)) return inputs;
  for (const [index, line] of readFileSync(file, 'utf8').split('\n').entries()) {
    const hex = line.replace(/#.*/, '').trim();
    if (hex === '') continue;
    if (!/^([0-9a-f]{2})+$/.test(hex)) throw new Error(`${file}:${index + 1}: not hexadecimal`);
    writeFileSync(join(folder, `line-${index + 1}`), Buffer.from(hex, 'hex'));
    inputs += 1;
  }
  return inputs;
}

function renew(target: string): void {
  const file = corpusFile(target);
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const kept = text.split(`${LEARNED}\n`)[0]!;
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-corpus-'));
  try {
    const chosen = join(folder, 'chosen');
    const known = join(folder, 'known');
    mkdirSync(chosen);
    unpackCorpus(target, known);
    const learned = join(BUILD, 'learned', target);
    mkdirSync(learned, { recursive: true });
    const { status, stderr } = spawnSync(
      join(BUILD, `fuzz-${target}`),
      ['-set_cover_merge=1', `-max_len=${LINE_BYTES_MAX}`, chosen, learned, known],
      { encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`${target}: the merge failed:\n${stderr.slice(-4000)}`);
    const lines = readdirSync(chosen)
      .map((name) => readFileSync(join(chosen, name)).toString('hex'))
      .sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
    mkdirSync(CORPUS, { recursive: true });
    writeFileSync(file, `${[`${kept}${LEARNED}`, ...lines].join('\n')}\n`);
    process.stdout.write(`${target}: ${lines.length} inputs\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.chdir(fileURLToPath(new URL('../..', import.meta.url)));
  const named = process.argv.slice(2);
  for (const target of named.length > 0 ? named : fuzzTargets()) renew(target);
}
