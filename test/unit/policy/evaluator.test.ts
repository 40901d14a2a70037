import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import type { Volume } from '../../../lib/config/types.ts';
import {
  Evaluator,
  REFRESH_INTERVAL_MS,
  REPORT_INTERVAL_MS,
} from '../../../lib/policy/evaluator.ts';
import type { PolicyName } from '../../../lib/policy/messages.ts';
import type { PolicyValues, ReplicationStatus } from '../../../lib/replication/api.ts';
import { apartStatus, connectedStatus } from './status_samples.ts';

interface Call {
  policy: PolicyName;
  facts: Record<string, unknown>;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** An evaluator whose calls, clock and reports a test holds in its hands. */
function harness(more: Partial<Volume>) {
  const volume: Volume = {
    name: 'r0',
    nodes: {
      alpha: { backing: '/a', address: '127.0.0.1:1' },
      beta: { backing: '/b', address: '127.0.0.1:2' },
    },
    ...more,
  };
  const { config } = resolveConfig(volume, { path: '/c.ts', hostname: 'alpha' });
  const calls: Call[] = [];
  const applied: PolicyValues[] = [];
  const reports: string[] = [];
  const clock = { ms: 0 };
  const evaluator = new Evaluator(config.volumes[0]!, {
    call: (_, policy, facts) =>
      new Promise((resolve, reject) => {
        calls.push({
          policy,
          facts: facts as unknown as Record<string, unknown>,
          resolve: resolve as (value: unknown) => void,
          reject,
        });
      }),
    apply: (values) => applied.push(values),
    report: (message) => reports.push(message),
    now: () => clock.ms,
  });
  const sampleAt = (ms: number, status: ReplicationStatus) => {
    clock.ms = ms;
    evaluator.sample(status);
  };
  return { evaluator, calls, applied, reports, clock, sampleAt };
}

test('values need no call', () => {
  const { evaluator, calls, sampleAt } = harness({
    asyncWindow: { writes: 10 },
    flushInterval: '1s',
    selectPeers: 'beta',
  });
  sampleAt(0, connectedStatus());
  assert.is(calls.length, 0);
  assert.not(evaluator.active);
  assert.equal(evaluator.values, {
    windowWrites: 10,
    windowBytes: 64 << 20,
    flushIntervalMs: 1000,
    selectedPeers: ['beta'],
  });
});

test('facts are rates between two samples', async () => {
  const { evaluator, calls, sampleAt } = harness({
    protocol: 'A',
    asyncWindow: () => ({}),
    flushInterval: () => 1,
  });
  const at = (nowUs: number, writes: number, inFlightWrites: number) =>
    connectedStatus({ nowUs, writes, inFlightWrites, sentBytes: writes * 4096, logHot: writes });
  sampleAt(0, at(0, 0, 10));
  assert.is(calls.length, 2);
  assert.is(calls[0]!.facts.ackLatencyMs, null);
  for (const call of calls)
    call.resolve(call.policy === 'flushInterval' ? 1 : { writes: 1, bytes: 4096 });
  await evaluator.settled();
  sampleAt(2000, at(2e6, 200, 30));
  const window = calls[2]!.facts;
  assert.equal(
    [window.writesPerS, window.throughputBytesPerS, window.ackLatencyMs, window.peer],
    [100, 409_600, 200, 'beta'],
  );
  assert.is(window.windowWrites, 1);
  assert.is(calls[3]!.facts.idleMs, 0);
});

test('a function is asked again only when its facts changed, and once a second at most', async () => {
  const { evaluator, calls, sampleAt } = harness({ flushInterval: () => 1 });
  const answer = async () => {
    calls.at(-1)!.resolve(5000);
    await evaluator.settled();
  };
  sampleAt(0, connectedStatus({ logHot: 1 }));
  await answer();
  sampleAt(500, connectedStatus({ logHot: 2 }));
  assert.is(calls.length, 1, 'too early');
  sampleAt(1000, connectedStatus({ logHot: 1 }));
  assert.is(calls.length, 1, 'only idleMs has changed');
  sampleAt(1100, connectedStatus({ logHot: 2 }));
  assert.is(calls.length, 2);
  sampleAt(9000, connectedStatus({ logHot: 3 }));
  assert.is(calls.length, 2, 'one call at a time');
});

test('who selected no peer is asked again after a while, though no peer can come or go', async () => {
  const { evaluator, calls, applied, sampleAt } = harness({ selectPeers: () => [] });
  evaluator.peersChanged(apartStatus());
  calls[0]!.resolve([]);
  await evaluator.settled();
  sampleAt(REFRESH_INTERVAL_MS - 1, apartStatus());
  assert.is(calls.length, 1, 'nothing has changed');
  sampleAt(REFRESH_INTERVAL_MS, apartStatus());
  assert.is(calls.length, 2);
  calls[1]!.resolve(['beta']);
  await evaluator.settled();
  assert.equal(applied.at(-1)!.selectedPeers, ['beta']);
});

test('selectPeers is asked at once when a peer comes or goes, even during a call', async () => {
  const { evaluator, calls, applied } = harness({ selectPeers: () => 'beta' });
  evaluator.peersChanged(connectedStatus());
  evaluator.peersChanged(apartStatus());
  assert.is(calls.length, 1);
  assert.equal(calls[0]!.facts.current, 'beta');
  calls[0]!.resolve([]);
  await new Promise(setImmediate);
  assert.is(calls.length, 2);
  const peer = (calls[1]!.facts.peers as Array<Record<string, unknown>>)[0]!;
  assert.equal(
    [peer.connected, peer.reachable, peer.lastSeenMs, peer.disk],
    [false, false, 0, 'DUnknown'],
  );
  assert.is(peer.dirtyBytes, 64 << 20);
  calls[1]!.resolve(['beta']);
  await evaluator.settled();
  assert.equal(
    applied.map((values) => values.selectedPeers),
    [[], ['beta']],
  );
});

test('an answer that changes nothing is not applied', async () => {
  const { evaluator, calls, applied, sampleAt } = harness({ flushInterval: () => 1 });
  sampleAt(0, connectedStatus());
  calls[0]!.resolve(5000);
  await evaluator.settled();
  assert.equal(applied, []);
});

test('the last good answer stays when a call fails, and the failure is reported once a minute', async () => {
  const { evaluator, calls, applied, reports, sampleAt } = harness({ flushInterval: () => 1 });
  sampleAt(0, connectedStatus());
  calls[0]!.resolve(700);
  await evaluator.settled();
  for (let n = 1; n <= 3; n += 1) {
    sampleAt(n * 1000, connectedStatus({ logHot: 1 }));
    calls[n]!.reject(
      new TidemarkError('POLICY_EXCEPTION', '/c.ts:3:7: flushInterval of r0 threw x'),
    );
    await evaluator.settled();
  }
  assert.is(applied.length, 1);
  assert.is(evaluator.values.flushIntervalMs, 700);
  assert.equal(reports, ['/c.ts:3:7: flushInterval of r0 threw x; 700 ms stays in use']);
  assert.match(evaluator.failures.flushInterval!, 'threw x');
  sampleAt(1000 + REPORT_INTERVAL_MS, connectedStatus({ logHot: 2 }));
  calls[4]!.reject(new TidemarkError('POLICY_DEADLINE', 'late'));
  await evaluator.settled();
  assert.is(reports[1], 'late; 700 ms stays in use (2 more like it since)');
});

test('before any answer the default is in use', async () => {
  const { evaluator, calls, reports, sampleAt } = harness({ selectPeers: () => 'beta' });
  sampleAt(0, connectedStatus());
  calls[0]!.reject(new TidemarkError('POLICY_DEADLINE', 'late'));
  await evaluator.settled();
  assert.equal(evaluator.values.selectedPeers, ['beta']);
  assert.equal(reports, ['late; [beta] stays in use']);
});

test('a call that was refused because the worker is being replaced is no failure, and is made again', async () => {
  const { evaluator, calls, reports, sampleAt } = harness({ flushInterval: () => 1 });
  sampleAt(0, connectedStatus());
  calls[0]!.reject(new TidemarkError('POLICY_UNAVAILABLE', 'being replaced'));
  await evaluator.settled();
  sampleAt(1000, connectedStatus());
  assert.is(calls.length, 2);
  assert.equal([reports, evaluator.failures], [[], {}]);
});

test('an answer that comes after stop changes nothing', async () => {
  const { evaluator, calls, applied, sampleAt } = harness({ flushInterval: () => 1 });
  sampleAt(0, connectedStatus());
  evaluator.stop();
  calls[0]!.resolve(100);
  await evaluator.settled();
  assert.equal(applied, []);
});

test.run();
