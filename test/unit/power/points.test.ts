// Where the power is cut: no mark may be left out of what is called every mark.
import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import { type LogEntry, LogFlag } from '../../power/log_writes.ts';
import { choosePoints, isMark, parsePoint, pointText } from '../../power/points.ts';

const FIRST = 10;

/** A log in which every `every`-th entry is a flush, and the one after it a write with FUA. */
function makeLog(count: number, every: number): LogEntry[] {
  return Array.from({ length: count }, (_, index) => {
    const flags = index % every === 0 ? LogFlag.flush : index % every === 1 ? LogFlag.fua : 0;
    return { index, offset: 0, bytes: 512, flags, data: Buffer.alloc(0), mark: '' };
  });
}

const LOG = makeLog(2_003, 5);
const MARKS = LOG.filter((entry) => entry.index >= FIRST && isMark(entry)).map(
  ({ index }) => index,
);

const bare = (points: ReturnType<typeof choosePoints>) =>
  points.filter(({ seed }) => seed === 0).map(({ after }) => after);

const test = suite('the points at which the power is cut');

test('every flush and every write with FUA is there, however few points between them are', () => {
  for (const betweenMax of [0, 7, 1_000_000]) {
    for (const seed of [1, 2, 3]) {
      const points = choosePoints(LOG, FIRST, betweenMax, seed);
      assert.deepEqual(bare(points), [...MARKS, LOG.length - 1].filter(unique), `seed ${seed}`);
    }
  }
});

test('points between the marks are as many as asked for, and come by the seed', () => {
  const between = (seed: number) =>
    choosePoints(LOG, FIRST, 100, seed).filter((point) => point.seed !== 0);
  assert.equal(between(1).length, 100);
  assert.deepEqual(between(1), between(1));
  assert.notDeepEqual(between(1), between(2));
  const all = choosePoints(LOG, FIRST, 1_000_000, 1);
  for (const mark of MARKS.filter((index) => index > FIRST)) {
    assert.ok(
      all.some(({ after, seed }) => after === mark - 1 && seed !== 0),
      `before ${mark}`,
    );
  }
});

test('they come in the order of the log, from the first entry to the end', () => {
  for (const betweenMax of [0, 200, 5_000]) {
    const points = choosePoints(LOG, FIRST, betweenMax, 5);
    const order = points.map(({ after }) => after);
    assert.deepEqual(
      order,
      [...order].sort((one, other) => one - other),
    );
    assert.ok(order[0]! >= FIRST);
    assert.deepEqual(points.at(-1), { after: LOG.length - 1, seed: 0 });
    assert.equal(new Set(points.map(pointText)).size, points.length);
  }
});

test('a point is read as it is printed', () => {
  assert.deepEqual(parsePoint(pointText({ after: 12, seed: 345 })), { after: 12, seed: 345 });
  assert.throws(() => parsePoint('12'), /'12' is no point: expected ENTRY:SEED/);
});

function unique(index: number, at: number, list: readonly number[]): boolean {
  return list.indexOf(index) === at;
}

test.run();
