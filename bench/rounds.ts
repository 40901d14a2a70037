/** The rounds: in each, every work goes over all subjects, one after the other, and each time another one begins. */

import type { Sample } from './figures.ts';
import type { Place } from './place.ts';
import type { Profile } from './profile.ts';
import { reasonOf } from './reason.ts';
import type { Section } from './sections.ts';
import type { Subject } from './subject.ts';
import type { Work } from './works.ts';

export interface RoundsOptions {
  rounds: number;
  seconds: number;
  /** Only what has one of these texts in `section/subject/work`; empty: all. */
  only: readonly string[];
  /** Takes a profile of each work on each subject, in each round. */
  profile?: Profile | undefined;
  /** Ends the run early, in order. */
  signal?: AbortSignal;
  /** After each round, with all that was measured so far. */
  checkpoint?(measured: Measured): void;
  note(text: string): void;
}

/** Something that could not be measured, and why. */
export interface Missing {
  subject: string;
  /** null: all of them. */
  work: string | null;
  reason: string;
}

export interface Measured {
  samples: Sample[];
  missing: Missing[];
}

export function isWanted(only: readonly string[], name: string): boolean {
  return only.length === 0 || only.some((text) => name.includes(text));
}

/** `list` from its element `turn` on, and around. */
export function rotated<T>(list: readonly T[], turn: number): T[] {
  const first = list.length === 0 ? 0 : turn % list.length;
  return [...list.slice(first), ...list.slice(0, first)];
}

export async function runSections(
  sections: readonly Section[],
  place: Place,
  options: RoundsOptions,
): Promise<Measured> {
  const measured: Measured = { samples: [], missing: [] };
  for (const section of sections) await runSection(section, place, options, measured);
  return measured;
}

async function runSection(
  section: Section,
  place: Place,
  options: RoundsOptions,
  measured: Measured,
): Promise<void> {
  const wanted = (subject: Subject) =>
    section.works.filter(
      (work) =>
        work.suits(subject) && isWanted(options.only, `${section.id}/${subject.id}/${work.id}`),
    );
  const running: Subject[] = [];
  try {
    for (const subject of section.subjects.filter((one) => wanted(one).length > 0)) {
      options.signal?.throwIfAborted();
      options.note(`${section.id}: starting ${subject.title}`);
      try {
        await subject.start(place);
        running.push(subject);
      } catch (error) {
        measured.missing.push({ subject: subject.id, work: null, reason: reasonOf(error) });
        options.note(`${subject.id} is missing: ${reasonOf(error)}`);
        await stop(subject, options, measured);
      }
    }
    for (let round = 1; round <= options.rounds; ++round) {
      for (const [index, work] of section.works.entries()) {
        for (const subject of rotated(running, round - 1 + index)) {
          if (!wanted(subject).includes(work)) continue;
          // What failed once may have taken its whole time limit.
          if (hasFailed(measured, subject, work)) continue;
          options.signal?.throwIfAborted();
          const name = `${section.id}, round ${round}/${options.rounds}: ${work.title}: ${subject.title}`;
          options.note(name);
          await measure(section, subject, work, round, options, measured);
        }
      }
      options.checkpoint?.(measured);
    }
  } finally {
    for (const subject of running) await stop(subject, options, measured);
    await release(place, options, measured);
  }
}

/** Disks that somebody still has do not come back: the next section takes others. */
async function release(
  place: Place,
  { note }: RoundsOptions,
  { missing }: Measured,
): Promise<void> {
  try {
    await place.release();
  } catch (error) {
    note(`the disks are not given back: ${reasonOf(error)}`);
    missing.push({ subject: 'the disks', work: null, reason: `their end: ${reasonOf(error)}` });
  }
}

/** What does not end is told, and keeps nobody else from ending. */
async function stop(
  subject: Subject,
  { note }: RoundsOptions,
  { missing }: Measured,
): Promise<void> {
  try {
    await subject.stop();
  } catch (error) {
    note(`${subject.id} does not end: ${reasonOf(error)}`);
    missing.push({ subject: subject.id, work: null, reason: `its end: ${reasonOf(error)}` });
  }
}

async function measure(
  section: Section,
  subject: Subject,
  work: Work,
  round: number,
  options: RoundsOptions,
  { samples, missing }: Measured,
): Promise<void> {
  try {
    const once = () => work.measure(subject, options.seconds);
    const name = [section.id, subject.id, work.id, round].join('-');
    const { values, series } = await (options.profile?.around(name, once) ?? once());
    const sample: Sample = { subject: subject.id, work: work.id, round, values };
    if (series !== undefined) sample.series = series;
    samples.push(sample);
  } catch (error) {
    options.note(`${subject.id}, ${work.id}: ${reasonOf(error)}`);
    missing.push({ subject: subject.id, work: work.id, reason: reasonOf(error) });
  }
}

function hasFailed({ missing }: Measured, subject: Subject, work: Work): boolean {
  return missing.some((one) => one.subject === subject.id && one.work === work.id);
}
