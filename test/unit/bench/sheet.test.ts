import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkLimit, checkLines } from '../../../bench/checks.ts';
import { replaceBetween } from '../../../bench/docs.ts';
import { microLimits } from '../../../bench/micro.ts';
import { DEFAULTS, scaleLimits } from '../../../bench/scale.ts';
import { spread } from '../../../bench/scale_place.ts';
import { writeSheet } from '../../../bench/sheet.ts';

const path = fileURLToPath(new URL('../../../docs/performance.md', import.meta.url));
const grid = { title: 'title', head: ['step', 's'], rows: [['attach', '0.1']] };

test('docs/performance.md has a place for the figures of bench:micro and of bench:scale', () => {
  const text = readFileSync(path, 'utf8');
  for (const name of ['micro', 'scale']) {
    assert.ok(replaceBetween(text, name, 'the figures').includes('the figures'));
  }
});

test('figures of a busy machine are not written into the documents', () => {
  const before = readFileSync(path, 'utf8');
  assert.throws(() => writeSheet('scale', grid, 0.06), /the machine was 6 % busy/);
  assert.is(readFileSync(path, 'utf8'), before);
});

test('a figure above its limit has failed, and one that was not measured', () => {
  const limit = (what: string, value: number | null) => checkLimit({ what, value, at_most: 2 });
  const lines = checkLines([limit('at', 2), limit('above', 2.001), limit('missing', null)]);
  assert.equal(lines, [
    'ok   at: 2, at most 2',
    'FAIL above: 2.001, at most 2',
    'FAIL missing: not measured, at most 2',
    '1 passed, 2 failed',
  ]);
});

test('every target of the core and of large volumes has failed when nothing was measured', () => {
  for (const limits of [microLimits([]), scaleLimits([], DEFAULTS.shape)]) {
    assert.ok(limits.length > 0);
    assert.not(limits.map(checkLimit).some(({ passed }) => passed));
  }
});

test('blocks are spread over the whole volume, on their borders', () => {
  const offsets = spread(2 ** 44, 1000);
  assert.is(offsets.length, 1000);
  assert.ok(offsets.every((offset) => offset % 4096 === 0));
  assert.ok(offsets.at(-1)! > 2 ** 44 * 0.998 && offsets.at(-1)! < 2 ** 44);
});

test.run();
