/** A whole run: the machine is looked at first, then all sections are measured. */

import { readFileSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { busyShare } from './meters.ts';
import type { Place } from './place.ts';
import { RESULT_FORMAT, type Result } from './result.ts';
import { type Measured, type RoundsOptions, runSections } from './rounds.ts';
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

/** @param checkpoint gets the result as far as it is, after each round */
export async function measureAll(
  sections: readonly Section[],
  place: Place,
  options: Omit<RoundsOptions, 'checkpoint'>,
  checkpoint?: (result: Result) => void,
): Promise<Result> {
  const began = new Date();
  const busy = await watchBusy();
  options.note(`the machine is ${Math.round(busy * 100)} % busy with other things`);
  const resultOf = ({ samples, missing }: Measured): Result => ({
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
    waited: null,
    profiled: options.profile !== undefined,
    titles: titlesOf(sections),
    samples,
    limits: [],
    missing,
  });
  return resultOf(
    await runSections(sections, place, {
      ...options,
      checkpoint: (measured) => checkpoint?.(resultOf(measured)),
    }),
  );
}

function titlesOf(sections: readonly Section[]): Result['titles'] {
  const titles = (list: ReadonlyArray<{ id: string; title: string }>): Record<string, string> =>
    Object.fromEntries(list.map(({ id, title }) => [id, title]));
  return {
    subjects: titles(sections.flatMap(({ subjects }) => subjects)),
    works: titles(sections.flatMap(({ works }) => works)),
  };
}
