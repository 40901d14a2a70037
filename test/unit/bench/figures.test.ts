import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { figureOf, median, quantile, type Sample, spread } from '../../../bench/figures.ts';

const sample = (round: number, iops: number): Sample => ({
  subject: 's',
  work: 'w',
  round,
  values: { iops },
});

test('the median of an odd and of an even number of values, in any order', () => {
  assert.is(median([9, 1, 5]), 5);
  assert.is(median([4, 1, 2, 9]), 3);
  assert.is(median([7]), 7);
});

test('a quantile lies between its neighbours in proportion', () => {
  assert.is(quantile([0, 10], 0.25), 2.5);
  assert.is(quantile([3, 1, 2], 0), 1);
  assert.is(quantile([3, 1, 2], 1), 3);
});

test('nothing has no median, and no share beyond 1 a quantile', () => {
  assert.throws(() => median([]), RangeError);
  assert.throws(() => quantile([1], 1.1), RangeError);
  assert.throws(() => quantile([1], Number.NaN), RangeError);
});

test('a figure is of one subject, one work and one metric', () => {
  const samples: Sample[] = [
    sample(1, 100),
    sample(2, 130),
    sample(3, 110),
    { subject: 'other', work: 'w', round: 1, values: { iops: 1 } },
    { subject: 's', work: 'other', round: 1, values: { iops: 1 } },
    { subject: 's', work: 'w', round: 4, values: { bytes_per_s: 1 } },
  ];
  const figure = figureOf(samples, 's', 'w', 'iops');
  assert.equal(figure, { median: 110, min: 100, max: 130, rounds: 3 });
  assert.is(figureOf(samples, 's', 'w', 'latency_us_p99'), null);
});

test('the spread is half of what lies between the rounds, as a share of the median', () => {
  assert.is(spread({ median: 100, min: 90, max: 130, rounds: 3 }), 0.2);
  assert.is(spread({ median: 0, min: 0, max: 0, rounds: 1 }), 0);
});

test.run();
