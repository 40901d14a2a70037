import { chmodSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readSecret } from '../../../lib/config/secret.ts';
import { scratchFolder, writeScript } from './scratch.ts';

const folder = scratchFolder('secret');

test('a secret comes from a text, a file without its last newline, or the environment', () => {
  const file = writeScript(folder, 'good', 'correct horse\n');
  chmodSync(file, 0o600);
  process.env.TIDEMARK_TEST_SECRET = 'battery staple';
  assert.is(readSecret(null), null);
  assert.is(readSecret({ value: 'in the config' }), 'in the config');
  assert.is(readSecret({ file }), 'correct horse');
  assert.is(readSecret({ env: 'TIDEMARK_TEST_SECRET' }), 'battery staple');
  delete process.env.TIDEMARK_TEST_SECRET;
});

test('a secret that others may read, is too short or is not there is refused, and never shown', () => {
  const open = writeScript(folder, 'open', 'correct horse');
  chmodSync(open, 0o640);
  const short = writeScript(folder, 'short', 'hunter2');
  chmodSync(short, 0o600);
  const cases: Array<[Parameters<typeof readSecret>[0], RegExp]> = [
    [{ file: open }, /has mode 0640: others may read it; chmod 600/],
    [{ file: short }, /short: the secret is not 8\.\.1024 bytes long/],
    [{ file: `${folder}/none` }, /secret file .*none: ENOENT/],
    [{ env: 'TIDEMARK_NO_SUCH' }, /environment variable TIDEMARK_NO_SUCH .* is not set/],
  ];
  for (const [source, message] of cases) {
    assert.throws(
      () => readSecret(source),
      (error: Error & { code: string }) =>
        error.code === 'SECRET' &&
        message.test(error.message) &&
        !/horse|hunter/.test(error.message),
    );
  }
});

test.run();
