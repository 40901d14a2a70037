// Ends processes and workers at each stage of a volume's life: none crashes, hangs or keeps a lock.

import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PATIENCE } from '../../tools/patience.ts';

const LIMIT_MS = 60_000 * PATIENCE;
// Two folders below the top, as lib/binding is: the add-on is looked for relative to it.
const CHILD = fileURLToPath(
  new URL(`../../../build/life-${process.pid}/life-child.mjs`, import.meta.url),
);

/** Its temporary files are in a folder that is removed here: a worker that is terminated removes nothing. */
async function child(...args: string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-life-'));
  try {
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ['--enable-source-maps', '--expose-gc', CHILD, ...args],
      { timeout: LIMIT_MS, killSignal: 'SIGKILL', env: { ...process.env, TMPDIR: folder } },
    );
    assert.is(stderr, '', args.join(' '));
    return stdout;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

process.on('exit', () => rmSync(dirname(CHILD), { recursive: true, force: true }));
await build({
  entryPoints: [fileURLToPath(new URL('./life-child.ts', import.meta.url))],
  outfile: CHILD,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'inline',
  logLevel: 'warning',
});

const stages: string[] = JSON.parse(await child('stages'));

for (const stage of stages) {
  test(`the process exits while a volume is: ${stage}`, async () => {
    await child('exit', stage);
  });

  test(`a worker is terminated while a volume is: ${stage}`, async () => {
    await child('terminate', stage);
  });
}

// The others go on by themselves.
for (const stage of [
  'loaded',
  'open',
  'calls under way',
  'creating',
  'closing',
  'closed',
  'abandoned',
]) {
  test(`the process ends by itself when all that is left is: ${stage}`, async () => {
    await child('end', stage);
  });
}

test('a volume that was dropped without close() is abandoned by the garbage collector', async () => {
  await child('garbage');
});

test.run();
