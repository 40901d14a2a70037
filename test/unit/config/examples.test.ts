import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import { runScript } from '../../../lib/config/script.ts';

const FOLDER = fileURLToPath(new URL('../../../examples/', import.meta.url));

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.config.ts'))) {
  test(`examples/${file} is right for both of its nodes`, async () => {
    const path = FOLDER + file;
    const { exported } = await runScript(path);
    for (const name of ['alpha', 'beta']) {
      const { config } = resolveConfig(exported, {
        path,
        hostname: 'x',
        node: { name, source: '--node' },
      });
      assert.is(config.node, name);
      assert.ok(config.volumes.length > 0);
    }
  });
}

test.run();
