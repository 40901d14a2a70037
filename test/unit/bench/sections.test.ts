import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { besideOf, sectionsHere, sectionsVm } from '../../../bench/sections.ts';

const ids = (sections: ReturnType<typeof sectionsVm>) =>
  sections.map(({ id, subjects }) => [id, ...subjects.map((subject) => subject.id)]);

test('another checkout is measured beside each of our subjects, and beside no other', () => {
  for (const sections of [sectionsHere(), sectionsVm()]) {
    const expected = ids(sections).map((names) =>
      names.flatMap((name) => (name.startsWith('tidemark-') ? [name, `${name}-beside`] : [name])),
    );
    assert.equal(ids(besideOf(sections, '/other')), expected);
  }
});

test('writes over ten times the log are measured in both places', () => {
  for (const sections of [sectionsHere(), sectionsVm()]) {
    const log = sections.find(({ id }) => id === 'log');
    assert.equal(
      log?.subjects.map(({ id }) => id),
      ['tidemark-hot', 'tidemark-cold'],
    );
  }
});

test.run();
