/** The part of `npm run bench:vm` that runs inside the machine; vm.ts bundles it, and reads what it leaves. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Machine } from './place.ts';
import { Profile } from './profile.ts';
import type { Result } from './result.ts';
import { measureAll } from './run.ts';
import { besideOf, sectionsVm } from './sections.ts';

/** In the machine's environment, as JSON. */
export const OPTIONS_VARIABLE = 'TIDEMARK_BENCH_OPTIONS';
/** In the results folder. */
export const RESULT_FILE = 'bench.json';
export const PROFILE_FOLDER = 'profile';

export interface GuestOptions {
  rounds: number;
  seconds: number;
  only: readonly string[];
  /** Whether perf watches everything that is measured. */
  profile: boolean;
  /** Another checkout, whose Tidemark is measured as well. */
  beside: string | null;
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set; this runs in the test machine`);
  return value;
}

export async function main(): Promise<void> {
  const { profile, beside, ...options } = JSON.parse(variable(OPTIONS_VARIABLE)) as GuestOptions;
  const results = variable('TIDEMARK_RESULTS');
  const place = await Machine.open(variable('TIDEMARK_CHECKOUT'));
  const note = (text: string) => process.stdout.write(`${text}\n`);
  const file = join(results, RESULT_FILE);
  const save = (result: Result) => writeFileSync(file, JSON.stringify(result));
  const sections = besideOf(sectionsVm(), beside);
  const watched = profile ? await Profile.open(join(results, PROFILE_FOLDER), note) : undefined;
  save(await measureAll(sections, place, { ...options, profile: watched, note }, save));
  await place.close();
}
