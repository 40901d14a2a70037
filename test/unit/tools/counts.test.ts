import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readDoctestCounts, readPlainCounts, readUvuCounts } from '../../tools/counts.js';

test('uvu: failed is what of the total did not pass, in colour or not', () => {
  const plain = '\n  Total:     5\n  Passed:    3\n  Skipped:   1\n  Duration:  2ms\n\n';
  const coloured = plain.replace('  Passed:    3', '\x1b[31m  Passed:    3\x1b[39m');
  assert.equal(readUvuCounts(plain), { passed: 3, failed: 2, skipped: 1 });
  assert.equal(readUvuCounts(coloured), { passed: 3, failed: 2, skipped: 1 });
});

test('uvu: no summary when it crashed before the end', () => {
  assert.is(readUvuCounts('a.test.ts\n• • Exiting early before testing is finished.\n'), null);
});

test('doctest: test cases count, assertions do not', () => {
  const output = [
    '[doctest] test cases:  3 |  2 passed | 1 failed | 4 skipped',
    '[doctest] assertions: 90 | 89 passed | 1 failed |',
  ].join('\n');
  assert.equal(readDoctestCounts(output), { passed: 2, failed: 1, skipped: 4 });
});

test('doctest: a summary without a count of skipped cases', () => {
  const output = '[doctest] test cases: 0 | 0 passed | 0 failed |';
  assert.equal(readDoctestCounts(output), { passed: 0, failed: 0, skipped: 0 });
});

test('own runners: the last summary counts, and only as a line of its own', () => {
  const output = '1 passed, 0 failed\nthen 9 passed, 9 failed\n12 passed, 1 failed\n';
  assert.equal(readPlainCounts(output), { passed: 12, failed: 1, skipped: 0 });
  assert.is(readPlainCounts('nothing of the kind\n'), null);
});

test.run();
