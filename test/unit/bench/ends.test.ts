import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { endAll } from '../../../bench/ends.ts';

test('all ends are tried, and the first that fails is told', async () => {
  const tried: string[] = [];
  const end = (name: string, works: boolean) => async () => {
    tried.push(name);
    if (!works) throw new Error(`${name} is stuck`);
  };
  const all = endAll([end('array', false), end('device', false), end('server', true)]);
  await all.then(
    () => assert.unreachable(),
    (error) => assert.is(error.message, 'array is stuck'),
  );
  assert.equal(tried, ['array', 'device', 'server']);
  await endAll([end('other', true)]);
});

test.run();
