// A run of kills that proved nothing must not pass.
import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import { describeTotals, noKills, sumOf, unproved } from '../../scenarios/kill-totals.ts';

const GOOD = {
  ...{ kills: 200, resyncedChunks: 9000, resyncsHit: 11 },
  ...{ fioRuns: 180, fioUnverified: 2, fioWritesVerified: 70_000 },
};

const test = suite('what a run of kills proved');

test('a run with fio verified and resyncs hit leaves nothing unproved', () => {
  assert.deepEqual(unproved(GOOD), []);
});

test('a run in which fio verified nothing fails', () => {
  assert.deepEqual(unproved({ ...GOOD, fioWritesVerified: 0 }), ['no write of fio was verified']);
});

test('runs of fio without a verification are allowed up to a small share', () => {
  assert.deepEqual(unproved({ ...GOOD, fioUnverified: 9 }), []);
  assert.match(unproved({ ...GOOD, fioUnverified: 10 })[0]!, /10 of 180 runs of fio .* at most 9/);
  assert.deepEqual(unproved({ ...GOOD, fioRuns: 6, fioUnverified: 2 }), []);
  assert.match(unproved({ ...GOOD, fioRuns: 6, fioUnverified: 3 })[0]!, /3 of 6 .* at most 2/);
});

test('thirty kills of which none hit a resync fail; fewer are too few to tell', () => {
  assert.match(unproved({ ...GOOD, kills: 30, resyncsHit: 0 })[0]!, /none of 30 kills/);
  assert.deepEqual(unproved({ ...GOOD, kills: 29, resyncsHit: 0 }), []);
});

test('totals of clusters are added up, each number for itself', () => {
  assert.deepEqual(sumOf(noKills(), GOOD), GOOD);
  assert.equal(sumOf(GOOD, GOOD).fioUnverified, 4);
  assert.match(describeTotals(GOOD), /200 processes killed, 11 rounds .* 2 of its 180 runs not/);
});

test.run();
