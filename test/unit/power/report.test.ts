// A replay that proved nothing must not pass.
import { strict as assert } from 'node:assert';
import { suite } from 'uvu';
import { unprovedBy } from '../../power/report.ts';

const test = suite('what a replay proves');

test('a replay of every mark, of copies that differed, proves something', () => {
  assert.equal(unprovedBy({ marks: 10, marksReplayed: 10, differed: 1 }), null);
});

test('one mark that was left out, a log without marks, and copies that never differed are failures', () => {
  assert.match(unprovedBy({ marks: 10, marksReplayed: 9, differed: 1 })!, /not every mark/);
  assert.match(unprovedBy({ marks: 0, marksReplayed: 0, differed: 1 })!, /no mark/);
  assert.match(unprovedBy({ marks: 10, marksReplayed: 10, differed: 0 })!, /never differed/);
});

test.run();
