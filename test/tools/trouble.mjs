// Preloaded into every thread of a daemon under test (NODE_OPTIONS=--import): does what a file named after the thread says,
// once, and tells by two more files when it begins and when it is over. A block lasts until a third file releases it.
// See test/scenarios/trouble.ts.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, workerData } from 'node:worker_threads';

const POLL_MS = 50;
/** If nobody ever releases it. */
const BLOCK_MS_MAX = 10 * 60_000;
const RELEASE_POLL_MS = 20;

const folder = process.env.TIDEMARK_TROUBLE;
const worker = workerData?.path === undefined ? 'replication' : 'policy';
const order = join(folder, isMainThread ? 'main' : worker);

function busyMs(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

function block() {
  const end = performance.now() + BLOCK_MS_MAX;
  while (!existsSync(`${order}.release`) && performance.now() < end) busyMs(RELEASE_POLL_MS);
}

function leak() {
  const kept = [];
  for (;;) kept.push(Array.from({ length: 1000 }, (_, i) => `${kept.length} ${i}`));
}

const ACTIONS = {
  block,
  exit: () => process.exit(7),
  throw: () => {
    throw new Error('thrown by a test');
  },
  leak,
};

function poll() {
  if (!existsSync(order)) return;
  const text = readFileSync(order, 'utf8');
  rmSync(order);
  writeFileSync(`${order}.begun`, '');
  ACTIONS[text]();
  writeFileSync(`${order}.over`, '');
}

setInterval(poll, POLL_MS).unref();
