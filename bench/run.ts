/** A whole run: the machine is looked at first, then all sections are measured. */

import { readFileSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { busyShare } from './meters.ts';
import type { Place } from './place.ts';
import { RESULT_FORMAT, type Result } from './result.ts';
import { type RoundsOptions, runSections } from './rounds.ts';
import type { Section } from './sections.ts';

/** So long the machine is watched before anything starts. */
const WATCH_MS = 2_000;
const STAT = '/proc/stat';

/** The share of the processors that the machine spends on other things. */
export async function watchBusy(): Promise<number> {
  const before = readFileSync(STAT, 'utf8');
  await delay(WATCH_MS);
  return busyShare(before, readFileSync(STAT, 'utf8'));
}

export async function measureAll(
  sections: readonly Section[],
  place: Place,
  options: RoundsOptions,
): Promise<Result> {
  const began = new Date();
  const busy = await watchBusy();
  options.note(`the machine is ${Math.round(busy * 100)} % busy with other things`);
  const { samples, missing } = await runSections(sections, place, options);
  return {
    format: RESULT_FORMAT,
    where: place.where,
    began: began.toISOString(),
    elapsed_s: Math.round((Date.now() - began.getTime()) / 1000),
    kernel: release(),
    cpus: availableParallelism(),
    node: process.versions.node,
    rounds: options.rounds,
    seconds_each: options.seconds,
    busy_before: busy,
    titles: {
      subjects: Object.fromEntries(
        sections.flatMap(({ subjects }) => subjects.map(({ id, title }) => [id, title])),
      ),
      works: Object.fromEntries(
        sections.flatMap(({ works }) => works.map(({ id, title }) => [id, title])),
      ),
    },
    samples,
    missing,
  };
}
