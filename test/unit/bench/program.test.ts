import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Program } from '../../../bench/program.ts';

const LIMIT_MS = 20_000;

const test = suite<{ folder: string }>('program');

test.before.each((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'tidemark-bench-test-'));
});
test.after.each(({ folder }) => rmSync(folder, { recursive: true, force: true }));

const start = (folder: string, text: string): Program =>
  Program.start(['sh', '-c', text], { name: 'it', log: join(folder, 'log') });

async function messageOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'it went well',
    (error: Error) => error.message,
  );
}

test('is waited for until it has said what is expected', async ({ folder }) => {
  const program = start(folder, 'echo ready; exec sleep 60');
  await program.until('it is ready', () => program.output.includes('ready'), LIMIT_MS);
  program.alive('now');
  await program.end();
  assert.is(existsSync(`/proc/${program.pid}`), false);
});

test('an end before that is an error with its output', async ({ folder }) => {
  const program = start(folder, 'echo it is broken >&2; exit 3');
  const message = await messageOf(program.until('it is ready', () => false, LIMIT_MS));
  assert.is(message, 'it: ended (exit status 3) before it is ready\nit is broken');
  assert.throws(() => program.alive('now'), /exit status 3/);
  await program.end();
});

test('a program that does not get there in time is an error', async ({ folder }) => {
  const program = start(folder, 'exec sleep 60');
  const message = await messageOf(program.until('it is ready', () => false, 1));
  assert.is(message, 'it: not in 1 ms: it is ready');
  assert.is(await program.ended(1), false);
  await program.end();
});

test('a program that is not there is an error with its name', async ({ folder }) => {
  const program = Program.start(['/no/such/program'], { name: 'it', log: join(folder, 'log') });
  const message = await messageOf(program.until('it is ready', () => false, LIMIT_MS));
  assert.match(message, /\/no\/such\/program/);
});

test.run();
