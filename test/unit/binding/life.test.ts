// Ends processes and workers at each stage of a volume's life: none crashes, hangs or keeps a lock.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const CHILD = fileURLToPath(new URL('./life-child.ts', import.meta.url));
const LIMIT_MS = 60_000;

async function child(...args: string[]): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', '--expose-gc', CHILD, ...args],
    { timeout: LIMIT_MS, killSignal: 'SIGKILL' },
  );
  assert.is(stderr, '', args.join(' '));
  return stdout;
}

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
