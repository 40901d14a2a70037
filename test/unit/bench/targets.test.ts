import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkLines } from '../../../bench/checks.ts';
import type { Metric, Sample } from '../../../bench/figures.ts';
import { sectionsHere, sectionsVm } from '../../../bench/sections.ts';
import { checksOf, judge, ratioOf, TARGETS, targetTable } from '../../../bench/targets.ts';

const sample = (subject: string, work: string, metric: Metric, value: number): Sample => ({
  subject,
  work,
  round: 1,
  values: { [metric]: value },
});

/** Samples that reach each target of a place by `factor`. */
function reaching(where: 'here' | 'vm', factor: number): Sample[] {
  return TARGETS.filter((target) => target.where === where).flatMap(
    ({ own, peer, metric, at_least }) => [
      sample(own.subject, own.work, metric, 1000 * at_least * factor),
      sample(peer.subject, peer.work, metric, 1000),
    ],
  );
}

test('a target is reached at its ratio, and not just below', () => {
  const target = TARGETS[0]!;
  const { own, peer, metric } = target;
  const of = (value: number) =>
    judge(
      [sample(own.subject, own.work, metric, value), sample(peer.subject, peer.work, metric, 1000)],
      target.where,
    )[0]!.passed;
  assert.is(of(1000 * target.at_least), true);
  assert.is(of(999 * target.at_least), false);
});

test('what was not measured has failed', () => {
  const verdicts = judge([], 'here');
  assert.ok(verdicts.length > 0);
  assert.ok(verdicts.every(({ passed, ratio }) => !passed && ratio === null));
});

test('a check counts each target once, and what is missing without a target', () => {
  const missing = [
    { subject: 'nbdkit', work: null, reason: 'not installed' },
    { subject: 'scale', work: null, reason: 'no space' },
    { subject: 'tidemark-c', work: 'database-16k', reason: 'it broke\nlog' },
  ];
  const limits = [{ what: 'attach, s', value: 1, at_most: 2 }];
  const checks = checksOf({ samples: [], where: 'here', limits, missing });
  const targets = judge([], 'here').length;
  assert.is(checks.length, targets + 2);
  const lines = checkLines(checks);
  assert.ok(lines.includes('FAIL tidemark-c, database-16k: it broke, figures without a target'));
  assert.is(lines.at(-1), `1 passed, ${targets + 1} failed`);
});

test('a target that nobody asked for is left out', () => {
  const titles = judge([], 'here', ['resync/']).map(({ target }) => target.title);
  assert.equal(titles, ['resync, of plain Node sockets']);
  assert.equal(judge([], 'here', ['no such thing']), []);
});

test('all pass when all are far exceeded, and all fail when none is reached', () => {
  // Two targets may share one of our figures: what is twice the larger of them is enough for both.
  const here = TARGETS.filter(({ where }) => where === 'here');
  assert.is(judge(reaching('here', 0.1), 'here').filter(({ passed }) => passed).length, 0);
  const best = here.flatMap(({ own, peer, metric }) => [
    sample(own.subject, own.work, metric, 1e6),
    sample(peer.subject, peer.work, metric, 1),
  ]);
  assert.ok(judge(best, 'here').every(({ passed }) => passed));
});

test('the ratio is that of the medians of all rounds', () => {
  const rounds = [10, 30, 20].map((value) => sample('a', 'w', 'iops', value));
  const samples = [...rounds, sample('b', 'w', 'iops', 40)];
  const sides = {
    own: { subject: 'a', work: 'w' },
    peer: { subject: 'b', work: 'w' },
    metric: 'iops' as const,
  };
  assert.is(ratioOf(samples, sides), 0.5);
  assert.is(ratioOf([...samples, sample('b', 'w', 'iops', -40)], sides), null);
});

test('every target names a subject and a work that are measured', () => {
  const known = (sections: ReturnType<typeof sectionsHere>) =>
    new Set(
      sections.flatMap(({ id, subjects, works }) =>
        subjects.flatMap((subject) =>
          works
            .filter((work) => work.suits(subject))
            .map((work) => `${id}/${subject.id}/${work.id}`),
        ),
      ),
    );
  const names = { here: known(sectionsHere()), vm: known(sectionsVm()) };
  for (const { where, section, own, peer } of TARGETS) {
    for (const { subject, work } of [own, peer]) {
      const name = `${section}/${subject}/${work}`;
      assert.ok(names[where].has(name), `${where}: ${name}`);
    }
  }
});

test('docs/performance.md has the targets', () => {
  const path = fileURLToPath(new URL('../../../docs/performance.md', import.meta.url));
  const table = targetTable();
  assert.ok(
    readFileSync(path, 'utf8').includes(table),
    `docs/performance.md should have\n${table}`,
  );
});

test.run();
