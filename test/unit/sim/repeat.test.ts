import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runSeed } from '../../sim/run_seed.ts';

const test = suite('a seed that is run again');

test('takes the same steps to the last one, whatever ran before it in the process', async () => {
  const seeds = [11, 12, 11, 13, 12];
  const hashes = new Map<number, number>();
  for (const seed of seeds) {
    const { failure, traceHash, steps } = await runSeed(seed, false);
    assert.is(failure?.message, undefined);
    assert.ok(steps > 100);
    const before = hashes.get(seed);
    if (before !== undefined) assert.is(traceHash, before, `seed ${seed}`);
    hashes.set(seed, traceHash);
  }
  assert.is(new Set(hashes.values()).size, 3);
});

test.run();
