import { EventEmitter, once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { FlushIntervalFacts, SelectPeersFacts } from '../../../lib/config/policies.ts';
import { ConfigError } from '../../../lib/config/problems.ts';
import { type LoadOptions, loadConfig, ScriptHost } from '../../../lib/policy/script_host.ts';
import { scratchFolder, writeScript } from '../config/scratch.ts';

const folder = scratchFolder('script-host');
let scripts = 0;

/** A config script of node alpha with the given members of the volume. */
function script(members: string, before = ''): string {
  scripts += 1;
  return writeScript(
    folder,
    `s${scripts}.config.ts`,
    `import { defineVolume, type FlushIntervalFacts } from 'tidemark';
${before}
export default defineVolume({
  name: 'r0',
  nodes: {
    alpha: { backing: 'a.img', address: '127.0.0.1:7790' },
    beta: { backing: 'b.img', address: '127.0.0.1:7791' },
  },
${members}
});
`,
  );
}

const load = (path: string, more: Partial<LoadOptions> = {}) =>
  ScriptHost.load({ path, node: { name: 'alpha', source: '--node' }, ...more });

async function failure(promise: Promise<unknown>): Promise<TidemarkError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TidemarkError) return error;
    throw error;
  }
  throw new Error('expected a failure');
}

const FLUSH = { volume: 'r0', hotExtents: 3, extents: 7 } as FlushIntervalFacts;
const SELECT = { volume: 'r0', peers: [], current: null } as unknown as SelectPeersFacts;
const DEADLINE_MS = 5000;

test('a function gets its facts and its answer comes back, also from an async one', async () => {
  const host = await load(
    script(`
  flushInterval: (facts) => facts.hotExtents * 100,
  asyncWindow: async () => ({ bytes: '1MiB' }),
  selectPeers: () => 'beta',`),
  );
  assert.is(await host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS), 300);
  assert.equal(await host.call('r0', 'asyncWindow', {} as never, DEADLINE_MS), {
    writes: 2048,
    bytes: 1_048_576,
  });
  assert.equal(await host.call('r0', 'selectPeers', SELECT, DEADLINE_MS), ['beta']);
  await host.close();
});

test('an exception is told with the line and column that the user wrote', async () => {
  const path = script(`
  flushInterval: (facts: FlushIntervalFacts) => {
    const value = (facts as unknown as { nothing: { here: number } }).nothing.here;
    return value;
  },`);
  const host = await load(path);
  const error = await failure(host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS));
  assert.is(error.code, 'POLICY_EXCEPTION');
  assert.ok(
    error.message.startsWith(`${path}:11:79: flushInterval of r0 threw TypeError: Cannot read`),
    error.message,
  );
  assert.is(host.generation, 1, 'the worker stays');
  await host.close();
});

test('an answer that cannot be used is told with the place of the function', async () => {
  const path = script(`
  flushInterval: () => 'soon',
  asyncWindow: () => ({ writes: 70_000, byte: 1 }),
  selectPeers: async () => ['beta', 'gamma'],`);
  const host = await load(path);
  const flush = await failure(host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS));
  assert.is(flush.code, 'POLICY_ANSWER');
  assert.match(flush.message, `${path}:10:18: flushInterval of r0 returned an answer`);
  assert.match(flush.message, "'soon' is not a duration");
  const window = await failure(host.call('r0', 'asyncWindow', {} as never, DEADLINE_MS));
  assert.match(window.message, 'writes: 70000 is out of range (1..65536)');
  assert.match(window.message, "unknown key 'byte' (did you mean 'bytes'?)");
  const select = await failure(host.call('r0', 'selectPeers', SELECT, DEADLINE_MS));
  assert.match(select.message, `${path}:12:`);
  assert.match(select.message, "'gamma' is not a peer of alpha (beta)");
  await host.close();
});

test('a function that hangs costs its worker, which is replaced, and others wait for none of it', async () => {
  const host = await load(
    script(`
  flushInterval: (facts) => { while (facts.hotExtents > 3) {} return 1000; },`),
  );
  const hung = host.call('r0', 'flushInterval', { ...FLUSH, hotExtents: 4 }, 100);
  const behind = host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS);
  assert.is((await failure(hung)).code, 'POLICY_DEADLINE');
  assert.is((await failure(behind)).code, 'POLICY_UNAVAILABLE');
  assert.not(host.ready);
  await host.whenReady();
  assert.is(host.generation, 2);
  assert.is(await host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS), 1000);
  await host.close();
});

test('a promise that never settles misses the deadline too', async () => {
  const host = await load(script('  flushInterval: () => new Promise<number>(() => {}),'));
  const error = await failure(host.call('r0', 'flushInterval', FLUSH, 50));
  assert.is(error.code, 'POLICY_DEADLINE');
  assert.match(error.message, 'did not answer within 50 ms');
  await host.close();
});

test('a script that ends its process ends only its worker', async () => {
  const host = await load(script('  flushInterval: () => process.exit(3),'));
  const error = await failure(host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS));
  assert.is(error.code, 'POLICY_WORKER');
  assert.match(error.message, 'exit status 3');
  await host.whenReady();
  await host.close();
});

test('a script that keeps more in buffers than it may have loses its worker, between two calls', async () => {
  let report!: (text: string) => void;
  const reported = new Promise<string>((resolve) => {
    report = resolve;
  });
  const host = await load(
    script(
      `  flushInterval: ({ hotExtents }) => {
    kept.push(Buffer.alloc(hotExtents * 1024 * 1024));
    return 1000;
  },`,
      'const kept: Buffer[] = [];',
    ),
    { onProblem: report },
  );
  const fill = (hotExtents: number) =>
    host.call('r0', 'flushInterval', { ...FLUSH, hotExtents }, DEADLINE_MS);
  assert.is(await fill(200), 1000);
  assert.is(await fill(50), 1000);
  assert.is(await fill(20), 1000);
  assert.match(await reported, /replaced: the script holds 270 MiB in buffers, more than 256 MiB/);
  await host.whenReady();
  assert.is(host.generation, 2);
  assert.is(await fill(1), 1000);
  await host.close();
});

test('an exception outside of every call is reported, and the worker replaced', async () => {
  let report!: (text: string) => void;
  const reported = new Promise<string>((resolve) => {
    report = resolve;
  });
  // It waits for a file, so that the answer comes first on any machine.
  const sign = join(folder, 'throw');
  const host = await load(
    script(
      `
  flushInterval: () => {
    setInterval(() => { if (existsSync('${sign}')) throw new Error('later'); }, 10);
    return 1000;
  },`,
      "import { existsSync } from 'node:fs';",
    ),
    { onProblem: report },
  );
  assert.is(await host.call('r0', 'flushInterval', FLUSH, DEADLINE_MS), 1000);
  writeFileSync(sign, '');
  assert.match(await reported, 'the policy worker ended: later');
  await host.whenReady();
  assert.is(host.generation, 2);
  await host.close();
});

test('a script that never comes to an end is told about, and given up', async () => {
  const told: string[] = [];
  const onProblem = (text: string) => void told.push(text);
  const endless = script('', 'for (;;) {}');
  const error = await failure(load(endless, { loadDeadlineMs: 1500, onProblem }));
  assert.match(told[0] ?? '', 'the script has run for 750 ms');
  assert.is(error.code, 'CONFIG_DEADLINE');
  assert.match(error.message, 'did not come to an end within 1500 ms');
});

test('a script that throws, does not parse or is not there is told with its place', async () => {
  const throwing = script('', "const n: number = 1; throw new Error('no disk today');");
  assert.match((await failure(load(throwing))).message, `${throwing}:2:28: no disk today`);
  const broken = writeScript(folder, 'broken.config.ts', 'export default {\n  a: [1, 2\n};\n');
  assert.match((await failure(load(broken))).message, `${broken}:3:1: Unexpected token`);
  const missing = await failure(load(`${folder}/missing.config.ts`));
  assert.is(missing.code, 'CONFIG_SCRIPT');
  assert.match(missing.message, `${folder}/missing.config.ts: `);
});

test('problems of the config arrive as such', async () => {
  const error = await failure(load(script("  protocol: 'Z' as 'A', chunkByte: 1 as never,")));
  assert.instance(error, ConfigError);
  assert.is((error as ConfigError).problems.length, 2);
});

test('what the script prints goes where it was told, and not to standard output', async () => {
  let printed = '';
  const output = new EventEmitter();
  const config = await loadConfig({
    path: script('', "console.log('hello from the script');"),
    node: { name: 'alpha', source: '--node' },
    onOutput: (text) => {
      printed += text;
      output.emit('text');
    },
  });
  if (printed === '') await once(output, 'text');
  assert.match(printed, 'hello from the script');
  assert.is(config.volumes[0]!.peers[0]!.name, 'beta');
});

test.run();
