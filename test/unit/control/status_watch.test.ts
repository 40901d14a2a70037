import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StatusWatch } from '../../../lib/control/status_watch.ts';
import type { ReplicationStatus } from '../../../lib/replication/api.ts';

/** A worker whose answers the test gives, in any order, a clock that the timers do not follow, and turns of the event loop. */
function stage() {
  let nowMs = 0;
  const answers: ((status: ReplicationStatus) => void)[] = [];
  const timers = new Set<() => void>();
  const turns: (() => void)[] = [];
  const clock = {
    now: () => nowMs,
    after(_ms: number, callback: () => void) {
      timers.add(callback);
      return () => timers.delete(callback);
    },
    every: () => () => {},
  };
  const watch = new StatusWatch(
    () => new Promise((resolve) => answers.push(resolve)),
    clock,
    (run) => turns.push(run),
  );
  const pass = (ms: number) => {
    nowMs += ms;
  };
  const fire = () => {
    const due = [...timers];
    timers.clear();
    for (const callback of due) callback();
  };
  const turn = () => {
    for (const callback of turns.splice(0)) callback();
  };
  /** Time passes, and all timers fire with nothing heard meanwhile. */
  const expire = (ms: number) => {
    pass(ms);
    fire();
    turn();
  };
  return { watch, answers, pass, fire, turn, expire };
}

const statusOf = (ageUs: number) => ({ native: { ageUs } }) as ReplicationStatus;
const first = statusOf(0);
const second = statusOf(0);

/** Whatever follows from what happened. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A stage on which the worker has answered once, at 0 ms. */
async function known() {
  const made = stage();
  const asked = made.watch.ask();
  made.answers.shift()!(first);
  await asked;
  return made;
}

test('a worker whose answer was given up counts as stuck, though the timer fired before the clock said so', async () => {
  const { watch, expire } = await known();
  const told = watch.latest();
  expire(999.4);
  assert.equal(await told, { status: first, ageMs: 999 });
  assert.is(watch.stuckMs, 999);
});

test('after the whole machine stood still the timer waits for an answer that came meanwhile', async () => {
  const { watch, answers, pass, fire, turn } = await known();
  const told = watch.latest();
  pass(5000);
  fire();
  await settled();
  answers.shift()!(second);
  await settled();
  turn();
  assert.equal(await told, { status: second, ageMs: 0 });
  assert.is(watch.stuckMs, 0);
});

test('... and so does who asks when an older answer is due', async () => {
  const { watch, answers, pass, turn } = await known();
  const older = watch.ask();
  pass(5000);
  const told = watch.latest();
  answers.shift()!(second);
  await older;
  turn();
  await settled();
  answers.shift()!(second);
  assert.equal(await told, { status: second, ageMs: 0 });
});

test('an answer to an older question does not hide one that is late', async () => {
  const { watch, answers, pass, expire } = await known();
  const older = watch.ask();
  pass(500);
  const told = watch.latest();
  answers.shift()!(second);
  assert.is(await older, second);
  expire(1000);
  assert.equal(await told, { status: second, ageMs: 1000 });
  assert.is(watch.stuckMs, 1000);
});

test('an answer for which the thread of the volume had only an old status is that old', async () => {
  const { watch, answers, expire } = await known();
  const old = statusOf(2_000_100);
  const told = watch.latest();
  answers.shift()!(old);
  assert.equal(await told, { status: old, ageMs: 2001 });
  const late = watch.latest();
  expire(1000);
  assert.equal(await late, { status: old, ageMs: 3001 });
});

test('a stuck worker gets no further question, and answers again once the late answer came', async () => {
  const { watch, answers, pass, turn, expire } = await known();
  const told = watch.latest();
  expire(1000);
  await told;
  pass(1500);
  const again = watch.latest();
  turn();
  assert.equal(await again, { status: first, ageMs: 2500 });
  assert.is(answers.length, 1);
  answers.shift()!(second);
  await settled();
  assert.is(watch.stuckMs, 0);
  const fresh = watch.latest();
  answers.shift()!(first);
  assert.equal(await fresh, { status: first, ageMs: 0 });
});

test.run();
