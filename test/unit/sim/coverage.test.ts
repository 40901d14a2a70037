import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SimChecks, setMutant } from '../../sim/machine.ts';
import { differingBytes, Ordeal } from './ordeal.ts';
import { MIB, Twins } from './twins.ts';

const test = suite('coverage between simulated machines');

test.after.each(() => setMutant(''));

test('two copies come through what may happen to them', async () => {
  for (const seed of [1, 2, 3]) await new Ordeal(seed).run();
});

test('the same seed takes the same steps', async () => {
  const lives = [];
  for (let life = 0; life < 2; life++) {
    const ordeal = new Ordeal(4);
    await ordeal.run();
    lives.push([ordeal.steps, ordeal.now, [...ordeal.a.results], ordeal.a.events]);
  }
  assert.equal(lives[0], lives[1]);
});

/** What the checks, or the machines themselves, say of a core with this bug. */
async function caught(mutant: string): Promise<string> {
  for (let seed = 1; seed <= 60; seed++) {
    setMutant(mutant);
    const ordeal = new Ordeal(seed);
    try {
      await ordeal.run();
    } catch (error) {
      return (error as Error).message;
    }
  }
  return 'nothing';
}

test('a core that forgets a mark is seen, at once or after a crash', async () => {
  const bugs: [mutant: string, seen: RegExp][] = [
    ['data-before-log', /: uncovered: .*durable bit clear, extent \d+ cold/],
    ['transfer-log-forgotten', /: uncovered: .*RAM bit clear/],
    ['evict-without-backing-flush', /R3: extent \d+ leaves the log/],
    ['epoch-acked-without-flush', /: uncovered after a crash: /],
    ['overlapping-writes-together', /R5: .* was submitted while .* is in flight/],
  ];
  for (const [mutant, seen] of bugs) assert.match(await caught(mutant), seen, mutant);
});

test('a request that completes twice is seen', async () => {
  // A write in two pieces, one for each extent; both wait for the peer when the link goes.
  async function life(): Promise<number | undefined> {
    const twins = new Twins(8);
    const { a, b } = twins;
    await twins.finish(a.open().promote(true));
    await twins.finish(a.volume!.startUblk({ deviceId: 0 }));
    b.open();
    await twins.link(a, true);
    await twins.until(() => twins.connected());
    const offset = MIB - 4096;
    const id = a.machine.submit({ op: 'write', offset, length: 8192, stamp: 1 });
    // Only a goes on, for less than the peer's timeout.
    const goOn = () => {
      for (let step = 0; step < 500; step++) {
        twins.now += 10;
        a.step(twins.now, b);
      }
    };
    goOn();
    assert.is(a.machine.counters().transferWrites, 2);
    assert.not.ok(a.results.has(id));
    a.volume!.linkStop('cut');
    goOn();
    return a.results.get(id);
  }
  assert.is(await life(), 0);
  setMutant('completion-doubled');
  const error = await life().catch((caught: Error) => caught.message);
  assert.match(String(error), /request \d+ \(write .*\) was completed twice/);
});

test('what differs is known without reading the disks', async () => {
  const twins = new Twins(7, { chunkBytes: 65536 });
  const { a, b } = twins;
  await twins.finish(a.open().promote(true));
  await twins.finish(a.volume!.startUblk({ deviceId: 0 }));
  assert.is(SimChecks.differing(a.machine, b.machine).length, 0);
  assert.is(SimChecks.uncovered(a.machine, b.machine).length, 0);
  for (let stamp = 1; stamp <= 50; stamp++) {
    const offset = 512 * twins.chance.below(12 * 2048 - 64);
    const id = a.machine.submit({ op: 'write', offset, length: 32768, stamp });
    await twins.until(() => a.results.has(id));
    const chunks = new Set(differingBytes(twins).map((sector) => Math.floor(sector / 128)));
    assert.equal([...SimChecks.differing(a.machine, b.machine)], [...chunks]);
  }
  a.machine.submit({ op: 'discard', offset: 0, length: 12 * MIB });
  await twins.until(() => a.machine.requestsOut === 0);
  assert.is(SimChecks.differing(a.machine, b.machine).length, 0);
  // Neither knows the other: all counts as dirty, whatever differs.
  a.machine.submit({ op: 'write', offset: 0, length: MIB, stamp: 99 });
  await twins.until(() => a.machine.requestsOut === 0);
  assert.is(SimChecks.uncovered(a.machine, b.machine).length, 0);
});

test.run();
