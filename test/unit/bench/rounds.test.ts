import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Place } from '../../../bench/place.ts';
import { type RoundsOptions, rotated, runSections } from '../../../bench/rounds.ts';
import type { Section } from '../../../bench/sections.ts';
import type { Subject } from '../../../bench/subject.ts';

/** Writes down what is done with its subjects. */
class Diary {
  readonly lines: string[] = [];
  released = 0;
  readonly place = {
    release: async () => {
      this.released += 1;
    },
  } as unknown as Place;

  subject(id: string, trouble?: string): Subject {
    return {
      id,
      title: id,
      bytes: 1,
      start: async () => {
        this.lines.push(`start ${id}`);
        if (trouble !== undefined) throw new Error(trouble);
      },
      stop: async () => {
        this.lines.push(`stop ${id}`);
      },
      fio: () => [],
      pids: () => null,
    };
  }

  section(subjects: Subject[], works: string[], fails = ''): Section {
    return {
      id: 'section',
      title: 'section',
      subjects,
      works: works.map((id) => ({
        id,
        title: id,
        suits: () => true,
        measure: async (subject) => {
          this.lines.push(`${subject.id} ${id}`);
          if (`${subject.id} ${id}` === fails) throw new Error('it broke');
          return { values: { iops: 1 } };
        },
      })),
    };
  }
}

const options = (over: Partial<RoundsOptions> = {}): RoundsOptions => ({
  rounds: 1,
  seconds: 1,
  only: [],
  note: () => {},
  ...over,
});

test('the subjects take turns within each work, and each time another one begins', async () => {
  const diary = new Diary();
  const section = diary.section([diary.subject('a'), diary.subject('b')], ['x', 'y']);
  await runSections([section], diary.place, options({ rounds: 2 }));
  assert.equal(diary.lines, [
    ...['start a', 'start b'],
    ...['a x', 'b x', 'b y', 'a y'],
    ...['b x', 'a x', 'a y', 'b y'],
    ...['stop a', 'stop b'],
  ]);
  assert.is(diary.released, 1);
});

test('a subject that does not start is told, and the others are measured', async () => {
  const diary = new Diary();
  const section = diary.section([diary.subject('a', 'not installed'), diary.subject('b')], ['x']);
  const { samples, missing } = await runSections([section], diary.place, options());
  assert.equal(missing, [{ subject: 'a', work: null, reason: 'not installed' }]);
  assert.equal(
    samples.map(({ subject }) => subject),
    ['b'],
  );
  assert.ok(diary.lines.includes('stop a'));
});

test('a work that fails is told, and has no sample', async () => {
  const diary = new Diary();
  const section = diary.section([diary.subject('a')], ['x', 'y'], 'a x');
  const { samples, missing } = await runSections([section], diary.place, options());
  assert.equal(missing, [{ subject: 'a', work: 'x', reason: 'it broke' }]);
  assert.equal(
    samples.map(({ work }) => work),
    ['y'],
  );
});

test('a work that failed is not done again, and each round is handed on when it is over', async () => {
  const diary = new Diary();
  const section = diary.section([diary.subject('a')], ['x', 'y'], 'a x');
  const counts: number[] = [];
  const checkpoint: RoundsOptions['checkpoint'] = ({ samples }) => counts.push(samples.length);
  const { missing } = await runSections([section], diary.place, options({ rounds: 3, checkpoint }));
  assert.is(missing.length, 1);
  assert.is(diary.lines.filter((line) => line === 'a x').length, 1);
  assert.equal(counts, [1, 2, 3]);
});

test('a subject that does not end is told, and the others are ended', async () => {
  const diary = new Diary();
  const stuck = diary.subject('a');
  stuck.stop = () => Promise.reject(new Error('survived SIGKILL'));
  const section = diary.section([stuck, diary.subject('b')], ['x']);
  const { samples, missing } = await runSections([section], diary.place, options());
  assert.is(samples.length, 2);
  assert.equal(missing, [{ subject: 'a', work: null, reason: 'its end: survived SIGKILL' }]);
  assert.is(diary.lines.at(-1), 'stop b');
  assert.is(diary.released, 1);
});

test('disks that do not come back are told, and the next section is measured', async () => {
  const diary = new Diary();
  diary.place.release = () => Promise.reject(new Error('in use'));
  const sections = ['a', 'b'].map((id) => diary.section([diary.subject(id)], ['x']));
  const { samples, missing } = await runSections(sections, diary.place, options());
  assert.is(samples.length, 2);
  assert.equal(missing[0], { subject: 'the disks', work: null, reason: 'their end: in use' });
});

test('only what is asked for is started and done', async () => {
  const diary = new Diary();
  const section = diary.section([diary.subject('a'), diary.subject('b')], ['x', 'y']);
  await runSections([section], diary.place, options({ only: ['section/b/y'] }));
  assert.equal(diary.lines, ['start b', 'b y', 'stop b']);
});

test('a run that is ended early stops what runs', async () => {
  const diary = new Diary();
  const abort = new AbortController();
  const section = diary.section([diary.subject('a')], ['x', 'y']);
  const note = (text: string) => {
    if (text.includes(': x:')) abort.abort(new Error('ended by SIGINT'));
  };
  const run = runSections([section], diary.place, options({ note, signal: abort.signal }));
  await run.then(
    () => assert.unreachable(),
    (error) => assert.is(error.message, 'ended by SIGINT'),
  );
  assert.equal(diary.lines, ['start a', 'a x', 'stop a']);
});

test('rotation goes around', () => {
  assert.equal(rotated([1, 2, 3], 4), [2, 3, 1]);
  assert.equal(rotated([], 4), []);
});

test.run();
