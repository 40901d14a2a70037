// The main job, as a newcomer runs it.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Ended {
  status: number | null;
  out: string;
  err: string;
}

function demo(args: string[], directory: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, 'demo', ...args], {
      env: { ...process.env, TMPDIR: directory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (text) => {
      out += String(text);
    });
    child.stderr.on('data', (text) => {
      err += String(text);
    });
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, out, err }));
  });
}

test('the demo cuts, resyncs, proves both disks equal, says so as JSON, and leaves nothing', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'demo-'));
  try {
    const { status, out, err } = await demo(['--json'], directory);
    assert.equal(status, 0, err);
    const summary = JSON.parse(out) as Record<string, unknown>;
    assert.equal(summary.ok, true);
    assert.equal(summary.identical, true);
    assert.ok(summary.frontend === 'nbd' || summary.frontend === 'ublk');
    for (const key of ['volume_bytes', 'dirty_chunks', 'resync_chunks', 'resync_bytes']) {
      assert.ok(
        Number.isInteger(summary[key]) && Number(summary[key]) > 0,
        `${key}: ${summary[key]}`,
      );
    }
    assert.ok(Number(summary['resync_chunks']) <= Number(summary['dirty_chunks']));
    assert.deepEqual(await readdir(directory), []);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test.run();
