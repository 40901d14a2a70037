import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { prettyLine } from '../../../lib/cli/log.ts';
import {
  formatEta,
  outline,
  progressBar,
  statusText,
  volumeLine,
} from '../../../lib/cli/status_text.ts';
import type { PeerJson, StatusJson, VolumeJson } from '../../../lib/control/status.ts';

const MIB = 1 << 20;

const peer: PeerJson = {
  name: 'beta',
  address: '127.0.0.1:2',
  connection: 'SyncSource',
  reason: '',
  role: 'Secondary',
  disk: 'Inconsistent',
  dirty_chunks: 1024,
  dirty_bytes: 4 * MIB,
  resync: {
    side: 'source',
    bytes_done: 11 * MIB,
    bytes_total: 40 * MIB,
    rate_bytes_per_s: 10 * MIB,
    eta_ms: 2900,
    unreadable_chunks: 0,
  },
  in_flight_writes: 1,
  in_flight_bytes: 4096,
  attempts: 0,
  node_id: null,
};

const volume: VolumeJson = {
  name: 'r0',
  node: 'alpha',
  role: 'Primary',
  disk: 'UpToDate',
  disk_reason: '',
  device: '/dev/ublkb0',
  protocol: 'C',
  on_io_error: 'detach',
  size_bytes: 512 * MIB,
  chunk_bytes: 4096,
  suspended: false,
  status_age_ms: 0,
  suspend_reason: '',
  generations: { current: '0' },
  activity_log: { extents: 1237, hot: 12, extent_bytes: 4 * MIB, transactions: 1 },
  io: {
    reads: 0,
    writes: 0,
    flushes: 0,
    discards: 0,
    read_bytes: 0,
    written_bytes: 0,
    disk_errors: 0,
    remote_reads: 0,
    requests_in_flight: 0,
  },
  link: {
    sent_bytes: 0,
    received_bytes: 0,
    resync_sent_bytes: 0,
    resync_received_bytes: 0,
    resync_wire_bytes: 0,
  },
  thread: { wakeups: 0, request_batches: 0, link_sends: 0, link_receives: 0 },
  replay_marked_chunks: 0,
  stale_map_blocks: 0,
  policy: {
    window_writes: 1,
    window_bytes: 4096,
    flush_interval_ms: 1,
    selected_peers: [],
    failures: {},
  },
  peers: [peer],
};

const status: StatusJson = {
  version: '1',
  node: 'alpha',
  pid: 1,
  replication: { problem: '', restarts: 0, last_death: '' },
  volumes: [],
};

test('a resync has a bar, its amount, the time to its end and its speed', () => {
  assert.is(
    progressBar(peer.resync!),
    '[=====>..............]  27.5% (11 MiB/40 MiB) finish=3s speed=10 MiB/s',
  );
  const end = { ...peer.resync!, bytes_done: 40 * MIB - 1, eta_ms: null, rate_bytes_per_s: 0 };
  assert.match(progressBar(end), '[===================>]  99.9% (40.0 MiB/40 MiB) finish=unknown');
  const none = { ...peer.resync!, bytes_done: 0, bytes_total: 0 };
  assert.match(progressBar(none), '[====================] 100.0%');
});

test('times to the end are short', () => {
  assert.equal([60_500, 756_000, 9_000_000].map(formatEta), ['61s', '12.6min', '2.5h']);
});

test('status says what a resync cannot read', () => {
  const resync = { ...peer.resync!, unreadable_chunks: 3 };
  const text = statusText({
    ...status,
    volumes: [{ ...volume, peers: [{ ...peer, resync }] }],
  });
  assert.match(text, /3 chunks cannot be read here and stay out of sync/);
  assert.not.match(statusText({ ...status, volumes: [volume] }), /cannot be read/);
});

test('status shows what a person looks for', () => {
  const text = statusText({ ...status, volumes: [volume] });
  for (const part of [
    'r0 on alpha: Primary, UpToDate, 512 MiB, /dev/ublkb0',
    'activity log 12/1237 hot',
    '4 MiB (1024 chunks)',
    '1 write ',
    'resync to beta: [=====>',
  ]) {
    assert.match(text, part);
  }
});

test('I/O that is suspended, a failed policy and a refused peer are told with the reason', () => {
  const troubled: VolumeJson = {
    ...volume,
    suspended: true,
    suspend_reason: 'beta is primary',
    policy: { ...volume.policy, failures: { selectPeers: 'c.ts:1:2: threw' } },
    peers: [{ ...peer, connection: 'SplitBrain', reason: 'both wrote', resync: null }],
  };
  const text = statusText({ ...status, volumes: [troubled] });
  assert.match(text, 'I/O SUSPENDED: beta is primary');
  assert.match(text, 'policy selectPeers: c.ts:1:2: threw');
  assert.match(text, 'beta: both wrote');
  assert.match(volumeLine(troubled), '; I/O SUSPENDED: beta is primary');
  assert.match(
    volumeLine(volume),
    'r0: Primary UpToDate, 512 MiB, on /dev/ublkb0; beta SyncSource',
  );
});

test('a replication worker that is stuck is told before all else, also when no volume is open', () => {
  const replication = { ...status.replication, problem: 'has not answered for 3 s' };
  const text = statusText({ ...status, replication, volumes: [volume] });
  assert.match(text, /^PROBLEM: has not answered for 3 s\nr0 on alpha/);
  assert.match(
    statusText({ ...status, replication }),
    /^PROBLEM: has not answered for 3 s\nno volume/,
  );
});

test('an outline of any JSON', () => {
  assert.is(
    outline({ a_b: 1, c: { d: true, e: [] }, f: [{ g: null }], h: [1, 2] }),
    'a b: 1\nc:\n  d: yes\n  e: none\nf:\n  [0]:\n    g: -\nh: 1 2\n',
  );
});

test('a line of the log for a terminal', () => {
  const line = prettyLine(
    '{"level":40,"time":1000,"pid":1,"volume":"r0","peer":"beta","msg":"gone","n":{"a":1}}',
  );
  assert.is(line, '00:00:01.000 warning r0/beta: gone n={"a":1}\n');
  assert.is(prettyLine('no json'), 'no json');
});

test.run();
