import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { scratchFolder, writeScript } from '../config/scratch.ts';

const MAIN = fileURLToPath(new URL('../../../lib/cli/main.ts', import.meta.url));
const TSX = import.meta.resolve('tsx');
const folder = scratchFolder('cli');
const runFolder = join(folder, 'run');

const script = (members: string) =>
  `export default { name: 'r0', nodes: { alpha: { backing: 'a.img', address: '127.0.0.1:7790' } }, ${members} };\n`;
const good = writeScript(folder, 'good.config.ts', script(''));
const bad = writeScript(folder, 'bad.config.ts', script("protocol: 'B', secrets: 1"));
const throwing = writeScript(folder, 'throwing.config.ts', "\nthrow new Error('not today');\n");
const short = writeScript(folder, 'short.config.ts', script("secret: { env: 'NO_SUCH_SECRET' }"));

interface Result {
  status: number | null;
  stdout: string;
  stderr: string;
}

function tidemark(args: string[], env: Record<string, string> = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const { TIDEMARK_NODE: _, ...inherited } = process.env;
    const child = spawn(process.execPath, ['--import', TSX, MAIN, ...args], {
      cwd: folder,
      env: { ...inherited, TIDEMARK_RUN_DIR: runFolder, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const result: Result = { status: null, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      result.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      result.stderr += text;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ ...result, status }));
  });
}

const AT = ['--config', good, '--node', 'alpha'];

/** What is called, the exit status, and what standard error must say. */
const WRONG: Array<[string, string[], number, RegExp]> = [
  [
    'a verb that does not exist',
    ['stauts'],
    2,
    /^tidemark: unknown command 'stauts'\s+\(Did you mean status\?\)/,
  ],
  [
    'an option that does not exist',
    ['status', '--jsn'],
    2,
    /unknown option '--jsn'\s+\(Did you mean --json\?\)/,
  ],
  ['an argument too many', ['status', 'r0'], 2, /too many arguments/],
  ['an option without its value', ['wait', '--for'], 2, /argument missing/],
  [
    'a state that cannot be waited for',
    ['wait', '--for', 'heaven'],
    2,
    /Allowed choices are connected, synced, uptodate/,
  ],
  ['a timeout that is none', ['wait', '--timeout', 'soon'], 2, /expected seconds, or a duration/],
  [
    'a log level that does not exist',
    [...AT, 'up', '--log-level', 'loud'],
    2,
    /Allowed choices are fatal/,
  ],
  ['no config', ['status'], 2, /no config: neither .*\/tidemark\.config\.ts nor \/etc\/tidemark/],
  [
    'a config that does not exist',
    ['--config', 'nowhere.ts', 'status'],
    2,
    /nowhere\.ts does not exist/,
  ],
  ['a config with problems', ['--config', bad, 'create'], 2, /2 problems:\n {2}.*\n? {2}/],
  [
    'a config that throws',
    ['--config', throwing, 'status'],
    2,
    /throwing\.config\.ts:2:7: not today/,
  ],
  [
    'a node that nobody named',
    ['--config', good, 'create'],
    2,
    /which node is this machine\? alpha/,
  ],
  [
    'a node that does not exist',
    ['--config', good, '--node', 'omega', 'up'],
    2,
    /'omega' \(--node\) is not a node/,
  ],
  [
    'a volume that does not exist',
    [...AT, '--volume', 'r9', 'create'],
    2,
    /'r9' is not a volume of alpha \(r0\)/,
  ],
  [
    'a secret that is not set',
    ['-c', short, '-n', 'alpha', 'up'],
    2,
    /environment variable NO_SUCH_SECRET with the secret is not set/,
  ],
  [
    'status without a daemon',
    [...AT, 'status'],
    3,
    /no daemon is running at .*r0-alpha\.sock \(NOT_RUNNING\)/,
  ],
  ['primary without a daemon', [...AT, 'primary'], 3, /NOT_RUNNING/],
  ['wait without a daemon', [...AT, 'wait'], 3, /NOT_RUNNING/],
  ['down without a daemon', [...AT, 'down'], 3, /NOT_RUNNING/],
];

/** Starting Node takes most of the time, so that some start while a test looks at another. */
const AHEAD = 3;
const started: Array<Promise<Result>> = [];

function resultOf(index: number): Promise<Result> {
  for (let at = started.length; at <= index + AHEAD && at < WRONG.length; at += 1) {
    started.push(tidemark(WRONG[at]![1]));
  }
  return started[index]!;
}

for (const [index, [what, , status, message]] of WRONG.entries()) {
  test(`${what}: exit status ${status}`, async () => {
    const result = await resultOf(index);
    assert.is(result.status, status, result.stderr);
    assert.match(result.stderr, message);
    assert.ok(result.stderr.startsWith('tidemark: '), result.stderr);
    assert.not.match(result.stderr, /\n\s+at /);
    assert.is(result.stdout, '');
    assert.not(existsSync(join(folder, 'a.img')), 'nothing is written');
  });
}

test('without a verb: the help, exit status 2; asked for it: 0', async () => {
  const without = await tidemark([]);
  assert.is(without.status, 2);
  const asked = await tidemark(['help']);
  assert.equal([asked.status, asked.stderr], [0, '']);
  assert.match(asked.stdout, 'no daemon runs for this config and node');
  assert.match((await tidemark(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test('--debug shows the stack, also of the cause', async () => {
  const result = await tidemark([...AT, '--debug', 'status']);
  assert.match(result.stderr, /\n\s+at /);
  assert.match(result.stderr, 'caused by: Error: connect ENOENT');
});

test('the node comes from TIDEMARK_NODE as well', async () => {
  const result = await tidemark(['--config', good, 'status'], { TIDEMARK_NODE: 'alpha' });
  assert.is(result.status, 3, result.stderr);
});

test('up --detach tells the error of the daemon behind, and leaves nothing', async () => {
  mkdirSync(join(folder, 'detached'));
  const run = join(folder, 'detached', 'run');
  const result = await tidemark(['-c', short, '-n', 'alpha', 'up', '-d'], {
    TIDEMARK_RUN_DIR: run,
  });
  assert.is(result.status, 2, result.stderr);
  assert.match(result.stderr, 'NO_SUCH_SECRET');
  assert.equal(readdirSync(run), ['r0-alpha.log']);
});

test('a log that cannot be written is told before anything is opened', async () => {
  for (const detach of [[], ['-d']]) {
    const result = await tidemark([...AT, 'up', ...detach, '--log', '/proc/x/y']);
    assert.is(result.status, 1);
    assert.match(result.stderr, 'tidemark: log /proc/x/y: ENOENT');
  }
});

test('a run folder that cannot be made is told with a way out', async () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const result = await tidemark([...AT, 'up'], { TIDEMARK_RUN_DIR: join(file, 'run') });
  assert.is(result.status, 1);
  assert.match(result.stderr, /control socket .*ENOTDIR/);
});

test.run();
