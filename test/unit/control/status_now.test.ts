import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { StatusJson } from '../../../lib/control/status.ts';
import { statusOfNow } from '../../../lib/control/status_now.ts';

/** A daemon that tells a status of each of these ages, and then of the last one again. */
function daemon(...ages: number[]) {
  const told: StatusJson[] = [];
  const ask = async () => {
    const status_age_ms = ages.length > 1 ? ages.shift()! : ages[0]!;
    told.push({ node: 'alpha', volumes: [{ status_age_ms: 0 }, { status_age_ms }] } as StatusJson);
    return told.at(-1)!;
  };
  return { ask, told };
}

test('status that is of before the question is asked for again', async () => {
  const { ask, told } = daemon(60_000, 60_000, 0);
  assert.is(await statusOfNow(ask, 30_000), told[2]);
});

test('old status that is of after the question will do', async () => {
  const { ask, told } = daemon(5);
  assert.is(await statusOfNow(ask, 30_000), told[1]);
});

test('when nothing newer comes, that is the error', async () => {
  const error = await statusOfNow(daemon(60_000).ask, 30).catch((failure) => failure);
  assert.is(error.code, 'TIMEOUT');
  assert.match(error.message, /alpha tells no status newer than 60000 ms/);
});

test.run();
