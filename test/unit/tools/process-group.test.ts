import { existsSync, readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runInGroup } from '../../tools/process-group.js';

const LIMIT_MS = 20_000;
/** Long enough for a program to start, under a sanitizer, too. */
const SHORT_LIMIT_MS = 2_000;
/** Starts another program and says its process id. Shells cannot be run under the thread sanitizer. */
const PARENT =
  "const child = require('node:child_process').spawn('sleep', ['600'], { stdio: 'ignore' }); console.log(child.pid);";

function runScript(script: string, limitMs = LIMIT_MS) {
  return runInGroup(process.execPath, ['-e', script], { limitMs });
}

/** A zombie is not alive, whether or not somebody reaps it. */
function isAlive(pid: string): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
}

test('reports the exit status and both outputs', async () => {
  const result = await runScript("console.log('out'); console.error('err'); process.exitCode = 3;");
  assert.is(result.code, 3);
  assert.match(result.output, 'out\n');
  assert.match(result.output, 'err\n');
  assert.is(result.timedOut, false);
  assert.equal(result.leftBehind, []);
});

test('kills what a program left behind, and says so', async () => {
  const result = await runScript(`${PARENT} child.unref();`);
  assert.is(result.code, 0);
  const pid = result.output.trim();
  assert.equal(result.leftBehind, [`${pid} (sleep)`]);
  assert.is(isAlive(pid), false);
});

test('kills the whole group at the time limit', async () => {
  const result = await runScript(PARENT, SHORT_LIMIT_MS);
  assert.is(result.timedOut, true);
  assert.is(result.signal, 'SIGKILL');
  assert.is(isAlive(result.output.trim()), false);
});

test('rejects when the program cannot be started', async () => {
  try {
    await runInGroup('/nonexistent/program', [], { limitMs: LIMIT_MS });
    assert.unreachable('it started');
  } catch (error) {
    assert.is((error as NodeJS.ErrnoException).code, 'ENOENT');
  }
});

test.run();
