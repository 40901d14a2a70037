import { existsSync, statSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Here } from '../../../bench/place.ts';

const GIB = 2 ** 30;

test('a disk is a sparse file of its own, gone with the release, and the folder with the end', async () => {
  const place = new Here('/checkout');
  try {
    const [one, other] = [await place.disk(12 * GIB), await place.disk(GIB)];
    assert.is.not(one, other);
    assert.is(statSync(one).size, 12 * GIB);
    assert.is(statSync(one).blocks, 0);
    await place.release();
    assert.not.ok(existsSync(one) || existsSync(other));
    const next = await place.disk(GIB);
    assert.is.not(next, one);
    assert.ok(existsSync(place.folder));
  } finally {
    await place.close();
  }
  assert.not.ok(existsSync(place.folder));
});

test.run();
