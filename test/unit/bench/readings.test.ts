import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { valuesOf } from '../../../bench/fio.ts';
import {
  batching,
  busyShare,
  costs,
  loopbackBytes,
  machineSwitches,
  processTicks,
  threadSleeps,
  threadsRanNs,
  threadsWaitedNs,
  waitedNs,
} from '../../../bench/meters.ts';
import { means, parseLatencies, thin } from '../../../bench/resync.ts';

const IDLE = { io_bytes: 0, total_ios: 0, iops: 0, bw_bytes: 0, lat_ns: { mean: 0 } };

function report(job: Record<string, unknown>): string {
  return `fio: a note\n${JSON.stringify({ jobs: [{ error: 0, read: IDLE, write: IDLE, ...job }] }, null, 2)}`;
}

test('fio: reads and writes add up, and the latency is that of the writes', () => {
  const percentile = { '50.000000': 2000, '99.000000': 9000, '99.900000': 9900 };
  const { values, bytes } = valuesOf(
    report({
      read: { io_bytes: 700, total_ios: 7, iops: 70, bw_bytes: 7000, lat_ns: { mean: 1 } },
      write: {
        ...{ io_bytes: 300, total_ios: 3, iops: 30, bw_bytes: 3000 },
        lat_ns: { mean: 3000, percentile },
      },
    }),
  );
  assert.is(bytes, 1000);
  assert.equal(values, {
    iops: 100,
    bytes_per_s: 10_000,
    latency_us_mean: 3,
    latency_us_p50: 2,
    latency_us_p99: 9,
    latency_us_p999: 9.9,
  });
});

test('fio: an error, no report and no work are errors', () => {
  assert.throws(() => valuesOf(report({ error: 5 })), /error 5/);
  assert.throws(() => valuesOf('fio: out of memory\n'), /no report: fio: out of memory/);
  assert.throws(() => valuesOf(report({})), /moved no bytes/);
});

test('/proc: the time of a process whose name has spaces and parentheses', () => {
  const stat = '42 (a (b) c) S 1 42 42 0 -1 0 1 2 3 4 170 30 5 6 20 0';
  assert.is(processTicks(stat), 200);
});

test('/proc: busy is all but idle and waiting for disks', () => {
  const before = 'cpu  100 0 100 1000 50 0 0 0 0 0\ncpu0 1 1 1 1\n';
  const after = 'cpu  110 5 115 1060 60 3 7 0 0 0\ncpu0 1 1 1 1\n';
  assert.is(busyShare(before, after), 40 / 110);
  assert.is(busyShare(before, before), 0);
});

test('/proc: context switches of the machine, and sleeps of a thread', () => {
  assert.is(machineSwitches('cpu 1 2\nintr 5 6\nctxt 1234\nbtime 7\n'), 1234);
  assert.throws(() => machineSwitches('cpu 1\n'), /no ctxt/);
  const status = 'Name:\tnode\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n';
  assert.is(threadSleeps(status), 42);
});

test('what a thread counted is told for each request, and what never happened is not', () => {
  const before = { requests: 5, request_batches: 1, wakeups: 7, link_sends: 2 };
  const after = { requests: 45, request_batches: 11, wakeups: 27, link_sends: 12 };
  const expected = { wakeups_per_io: 0.5, requests_per_batch: 4, sends_per_io: 0.25 };
  assert.equal(batching(before, after, 40), expected);
  assert.equal(batching(before, { ...before, wakeups: 8 }, 10), { wakeups_per_io: 0.1 });
});

test('costs are for each byte and each request', () => {
  const before = { cpu_s: 1, wire_bytes: 100, switches: 10 };
  const after = { cpu_s: 3, wire_bytes: 300, switches: 40 };
  const expected = { cpu_s_per_gib: 2, wire_bytes_per_byte: 200 / 2 ** 30 };
  assert.equal(costs(before, after, 2 ** 30, 10), { ...expected, switches_per_io: 3 });
  assert.equal(costs(before, after, 2 ** 30), expected);
});

test('/proc: how long a thread waited for a processor', () => {
  assert.is(waitedNs('123 4567 89\n'), 4567);
  const own = threadsWaitedNs(process.pid, /./);
  assert.ok(own !== null && own >= 0);
  const one = threadsWaitedNs(process.pid, /^(?!.)/);
  assert.is(one, null, 'no thread is without a name');
  assert.is(threadsWaitedNs(2 ** 30, /./), null);
});

test('/proc: what loopback received', () => {
  const dev = 'Inter-| Receive\n face |bytes\n  eth0: 5 1 0\n    lo:123456 7 0 0\n';
  assert.is(loopbackBytes(dev), 123_456);
  assert.throws(() => loopbackBytes('  eth0: 5 1\n'), /no loopback/);
});

test("fio's log of latencies, in microseconds", () => {
  assert.equal(parseLatencies('1000, 150000, 1, 4096, 0\n1001, 2500, 1, 4096, 0\n'), [
    [1000, 150],
    [1001, 2.5],
  ]);
});

test('a long series is thinned, and keeps its end', () => {
  const points = Array.from({ length: 1001 }, (_, at): [number, number] => [at, at]);
  const thinned = thin(points);
  assert.ok(thinned.length <= 202);
  assert.equal(thinned.at(-1), [1000, 1000]);
  assert.equal(thin(points.slice(0, 3)), points.slice(0, 3));
});

test('means over slices of time', () => {
  assert.equal(
    means([
      [0, 10],
      [1, 20],
      [1, 40],
      [2, 7],
    ]),
    [
      [0, 10],
      [1, 30],
      [2, 7],
    ],
  );
  assert.equal(means([]), []);
});

test('threads are counted by their names, and one that works has run longer', () => {
  assert.is(threadsRanNs(process.pid, /^no such thread$/), 0);
  const before = threadsRanNs(process.pid, /^/);
  const ranSince = () => threadsRanNs(process.pid, /^/) - before;
  let tries = 100_000;
  while (ranSince() === 0 && tries > 0) tries -= 1;
  assert.ok(before > 0 && ranSince() > 0);
});

test.run();
