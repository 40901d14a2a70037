import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const run = promisify(execFile);
const root = new URL('../../', import.meta.url);

test('the compiled package loads an add-on of its own version', async () => {
  const manifest = JSON.parse(await readFile(new URL('package.json', root), 'utf8'));
  const program = `
    import { loadAddon } from './dist/binding/addon.js';
    console.log(loadAddon().version);
  `;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: root,
  });
  assert.is(stdout.trim(), manifest.version);
});

test.run();
