import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeEvent, NativeVolume } from '../../../lib/binding/native.ts';
import { NO_FAULTS, SimMachine, type SimRequest } from '../../sim/machine.ts';
import { MIB, SMALL } from './twins.ts';

const test = suite('simulated machine');

function machine(seed: number, name = 'a', more: object = {}): SimMachine {
  return new SimMachine({ name, seed, ...SMALL, ...more });
}

/** Drives one machine: every I/O ends at once, in the order in which it began. */
class Driver {
  readonly machine: SimMachine;
  readonly events: NativeEvent[] = [];
  readonly trace: string[] = [];
  now = 1_000_000;

  constructor(machine: SimMachine) {
    this.machine = machine;
  }

  open(): NativeVolume {
    return this.machine.addon.open(
      { name: this.machine.name, backing: '/sim' },
      { events: (events) => this.events.push(...events), outgoing() {}, room() {} },
    );
  }

  async step(): Promise<void> {
    this.now += 10;
    const text = this.machine.completeIo(0);
    if (text !== '') this.trace.push(text);
    this.machine.poll(this.now);
    while (this.machine.deliver()) await new Promise((resolve) => setImmediate(resolve));
  }

  async finish<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const settled = () => {
      done = true;
    };
    promise.then(settled, settled);
    for (let steps = 0; !done && steps < 10_000; steps++) {
      await this.step();
      await Promise.resolve();
    }
    assert.ok(done, 'nothing came of it');
    return promise;
  }

  async serve(): Promise<NativeVolume> {
    const volume = this.open();
    await this.finish(volume.promote(true));
    await this.finish(volume.startUblk({ deviceId: 3 }));
    return volume;
  }

  /** Of one request; null: the caller lets it hang. */
  async request(request: SimRequest): Promise<{ result: number; stamps?: Float64Array }> {
    const id = this.machine.submit(request);
    for (let steps = 0; steps < 10_000; steps++) {
      await this.step();
      for (const answer of this.machine.completions()) {
        assert.is(answer.id, id);
        return answer;
      }
    }
    throw new Error('the request was not completed');
  }
}

test('a write is read back, zeroes are zeroes, and a closed volume is whole', async () => {
  for (const blockBytes of [512, 4096] as const) {
    const driver = new Driver(machine(1, 'a', { blockBytes }));
    const volume = await driver.serve();
    assert.is(volume.status().device, '/dev/ublkb3');
    const { result } = await driver.request({ op: 'write', offset: 512, length: 8192, stamp: 7 });
    assert.is(result, 0);
    const read = await driver.request({ op: 'read', offset: 0, length: 9216 });
    assert.equal([...read.stamps!], [0, ...new Array(16).fill(7), 0]);
    await driver.request({ op: 'discard', offset: 4096, length: 4096 });
    const again = await driver.request({ op: 'read', offset: 0, length: 9216 });
    assert.equal([...again.stamps!], [0, ...new Array(7).fill(7), ...new Array(8).fill(0), 7, 0]);
    await driver.finish(volume.close());
    assert.not.ok(driver.machine.open);
    const next = driver.open();
    assert.is(next.attach.crashed, false);
    await driver.finish(next.close());
  }
});

test('a power cut takes what was not flushed, and nothing else', async () => {
  let lost = 0;
  let torn = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const driver = new Driver(machine(seed));
    await driver.serve();
    await driver.request({ op: 'write', offset: 0, length: 65536, stamp: 1 });
    await driver.request({ op: 'flush', offset: 0, length: 0 });
    await driver.request({ op: 'write', offset: MIB, length: 4096, stamp: 2, fua: true });
    await driver.request({ op: 'write', offset: 32768, length: 65536, stamp: 3 });
    const durable = driver.machine.readDurableStamps(0, 98304);
    assert.ok(durable.every((stamp, sector) => stamp === (sector < 128 ? 1 : 0)));
    assert.equal(driver.machine.crash('power'), []);
    const left = driver.machine.readStamps(0, 98304);
    const fua = driver.machine.readStamps(MIB, 4096);
    assert.ok(left.subarray(0, 64).every((stamp) => stamp === 1));
    assert.ok(left.subarray(64).every((s, at) => s === 3 || s === (at < 64 ? 1 : 0)));
    assert.ok(fua.every((stamp) => stamp === 2));
    lost += left.subarray(64).every((stamp) => stamp !== 3) ? 1 : 0;
    torn += left.some((stamp, at) => at % 8 !== 0 && stamp !== left[at - 1]) ? 1 : 0;
    const volume = driver.open();
    assert.is(volume.attach.crashedPrimary, true);
    assert.ok(volume.attach.replayedExtents >= 2, 'the log had the extents');
  }
  assert.ok(lost > 0, 'no seed lost all');
  assert.ok(torn > 0, 'no seed tore a block');
});

test('a process that dies leaves the cache, and its requests', async () => {
  const driver = new Driver(machine(3));
  const volume = await driver.serve();
  await driver.request({ op: 'write', offset: 0, length: 4096, stamp: 1 });
  const write: SimRequest = { op: 'write', offset: 8192, length: 4096, stamp: 2 };
  driver.machine.submit(write);
  assert.is(driver.machine.requestsOut, 1);
  let settled = false;
  volume.demote().finally(() => {
    settled = true;
  });
  assert.equal(driver.machine.crash('process'), [write]);
  assert.not.ok(driver.machine.deliver());
  await new Promise((resolve) => setImmediate(resolve));
  assert.not.ok(settled, 'a promise of a dead process settled');
  assert.throws(() => volume.status(), /closed/);
  assert.ok(driver.machine.readStamps(0, 4096).every((stamp) => stamp === 1));
  assert.throws(() => driver.machine.submit(write), /no frontend/);
});

test('the same seed does the same', async () => {
  async function run(seed: number): Promise<unknown> {
    const driver = new Driver(machine(seed, 'a', { metadata: 'external' }));
    await driver.serve();
    driver.machine.faults = { ...NO_FAULTS, dataReadErrorOneIn: 3 };
    const results: number[] = [];
    for (let at = 0; at < 20; at++) {
      await driver.request({ op: 'write', offset: at * 300 * 1024, length: 20480, stamp: at + 1 });
      const read = await driver.request({ op: 'read', offset: at * 300 * 1024, length: 4096 });
      results.push(read.result);
    }
    driver.machine.crash('power');
    const stamps = [...driver.machine.readStamps(0, 12 * MIB)];
    return { results, stamps, trace: driver.trace, id: driver.machine.nodeId };
  }
  const first = await run(5);
  assert.equal(await run(5), first);
  assert.not.equal(await run(6), first);
});

test('errors of the disk reach who asked', async () => {
  const driver = new Driver(machine(9));
  const volume = await driver.serve();
  driver.machine.faults = { ...NO_FAULTS, dataWriteErrorOneIn: 1 };
  const write = await driver.request({ op: 'write', offset: 0, length: 4096, stamp: 1 });
  assert.is(write.result, -5);
  driver.machine.faults = { ...NO_FAULTS, dataFlushErrorOneIn: 1 };
  const flush = await driver.request({ op: 'flush', offset: 0, length: 0 });
  assert.is(flush.result, -5);
  assert.is(volume.status().disk, 'Failed');
  assert.ok(driver.events.some((event) => event.kind === 'ioError'));
});

test('what the real add-on refuses is refused, with its codes', async () => {
  const driver = new Driver(machine(11));
  const volume = driver.open();
  const code = async (promise: Promise<unknown>) =>
    driver.finish(
      promise.then(
        () => '',
        (error: { code: string }) => error.code,
      ),
    );
  assert.throws(
    () => driver.open(),
    (error: { code: string }) => error.code === 'BACKING_LOCKED',
  );
  assert.is(await code(volume.startUblk({ deviceId: -1 })), 'NOT_PRIMARY');
  assert.is(await code(volume.promote(false)), 'REFUSED');
  assert.is(await code(volume.invalidate('12'.repeat(16))), 'NO_SLOT');
  assert.is(await code(volume.stopFrontend(false)), 'NO_FRONTEND');
  await driver.finish(volume.promote(true));
  await driver.finish(volume.startUblk({ deviceId: -1 }));
  driver.machine.faults = { ...NO_FAULTS, hang: true };
  driver.machine.submit({ op: 'read', offset: 0, length: 512 });
  assert.is(await code(volume.stopFrontend(false)), 'IN_USE');
});

test.run();
