import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isLoopback, parseAddress } from '../../../lib/config/address.ts';
import { defineConfig, defineVolume } from '../../../lib/config/define.ts';
import { GEOMETRY, POLICY, TIMEOUTS } from '../../../lib/config/limits.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import type { Volume } from '../../../lib/config/types.ts';
import {
  formatExactBytes,
  formatExactMs,
  nearestWord,
  parseUnit,
} from '../../../lib/config/units.ts';

const PATH = '/etc/tidemark/tidemark.config.ts';

function volume(more: Partial<Volume> = {}): Volume {
  return {
    name: 'r0',
    nodes: {
      alpha: { backing: '/dev/a', address: '127.0.0.1:7790' },
      beta: { backing: 'b.img', address: '127.0.0.1:7791' },
    },
    ...more,
  };
}

function resolveFor(exported: unknown, node?: string) {
  return resolveConfig(exported, {
    path: PATH,
    hostname: 'elsewhere',
    node: node === undefined ? undefined : { name: node, source: '--node' },
  }).config;
}

test('fills in every default from limits.ts', () => {
  const [r0] = resolveFor(defineVolume(volume()), 'alpha').volumes;
  assert.is(r0!.protocol, 'C');
  assert.is(r0!.chunkBytes, GEOMETRY.chunkBytes.default);
  assert.is(r0!.activityLogExtents, GEOMETRY.activityLogExtents.default);
  assert.is(r0!.timeouts.recoveryTimeout, TIMEOUTS.recoveryTimeout.default);
  assert.equal(r0!.policy.asyncWindow, {
    kind: 'value',
    value: { writes: POLICY.windowWrites.default, bytes: POLICY.windowBytes.default },
  });
  assert.equal(r0!.policy.selectPeers, { kind: 'value', value: ['beta'] });
  assert.equal(r0!.local.listen, { host: '127.0.0.1', port: 7790 });
  assert.equal(r0!.local.metadata, { placement: 'end' });
  assert.is(r0!.local.frontend, null);
});

test('one file serves all nodes: the other nodes are the peers', () => {
  const config = volume({ selectPeers: ['alpha', 'beta'] });
  const alpha = resolveFor(config, 'alpha').volumes[0]!;
  const beta = resolveFor(config, 'beta').volumes[0]!;
  assert.equal([alpha.local.name, alpha.peers.map((p) => p.name)], ['alpha', ['beta']]);
  assert.equal([beta.local.name, beta.peers.map((p) => p.name)], ['beta', ['alpha']]);
  assert.equal(alpha.policy.selectPeers, { kind: 'value', value: ['beta'] });
});

test('relative paths start at the folder of the script', () => {
  const beta = resolveFor(
    volume({
      secret: { file: 'r0.secret' },
      nodes: {
        beta: {
          backing: 'b.img',
          metadata: { file: '../md' },
          address: 'localhost:1',
          frontend: { kind: 'nbd', socket: 'run/b.sock' },
        },
      },
    }),
    'beta',
  ).volumes[0]!;
  assert.is(beta.local.backing, '/etc/tidemark/b.img');
  assert.equal(beta.local.metadata, { placement: 'external', file: '/etc/md' });
  assert.equal(beta.secret, { file: '/etc/tidemark/r0.secret' });
  assert.equal((beta.local.frontend as { socket: string }).socket, '/etc/tidemark/run/b.sock');
});

test('a function as a policy becomes a mark that it is one', () => {
  const config = resolveFor(
    volume({ asyncWindow: () => ({ writes: 1 }), flushInterval: '2s' }),
    'alpha',
  );
  assert.equal(config.volumes[0]!.policy.asyncWindow, { kind: 'function' });
  assert.equal(config.volumes[0]!.policy.flushIntervalMs, { kind: 'value', value: 2000 });
  structuredClone(config);
});

test('listen can differ from the address, or not be', () => {
  const nodes = (listen: string | false) => ({
    alpha: { backing: '/dev/a', address: '127.0.0.1:7790', listen },
  });
  const at = (listen: string | false) => resolveFor(volume({ nodes: nodes(listen) }), 'alpha');
  assert.equal(at('127.0.0.1:9000').volumes[0]!.local.listen, { host: '127.0.0.1', port: 9000 });
  assert.is(at(false).volumes[0]!.local.listen, null);
});

test("the node is named by the command line, then the config, then the host's name", () => {
  const context = { path: PATH, hostname: 'beta' };
  assert.is(resolveConfig(volume(), context).config.node, 'beta');
  const named = defineConfig({ node: 'alpha', volumes: [volume()] });
  assert.is(resolveConfig(named, context).config.node, 'alpha');
  const asked = defineConfig({
    node: ({ hostname }) => hostname.replace('b', 'b'),
    volumes: [volume()],
  });
  assert.is(resolveConfig(asked, context).config.node, 'beta');
  const told = { ...context, node: { name: 'beta', source: 'TIDEMARK_NODE' } };
  assert.is(resolveConfig(named, told).config.node, 'beta');
});

test('a node that nobody named, and one that no volume has, are told with the known ones', () => {
  assert.throws(() => resolveFor(volume()), /which node is this machine\? alpha, beta: say --node/);
  assert.throws(
    () => resolveFor(volume(), 'gamma'),
    /node: 'gamma' \(--node\) is not a node of any volume \(alpha, beta\)/,
  );
});

test('a volume without a copy on this node is left out', () => {
  const other = volume({
    name: 'r1',
    nodes: { beta: { backing: '/dev/c', address: '127.0.0.1:7791' } },
  });
  const config = resolveFor(defineConfig({ volumes: [volume(), other] }), 'alpha');
  assert.equal(
    config.volumes.map((v) => v.name),
    ['r0'],
  );
});

test('sizes and durations are read exactly, or not at all', () => {
  for (const [text, bytes] of [
    ['4KiB', 4096],
    ['1.5 MiB', 1_572_864],
    ['512', 512],
    ['2TiB', 2 ** 41],
  ] as const) {
    assert.is(parseUnit(text, 'bytes'), bytes, text);
  }
  for (const text of ['4kb', '4 K', '-1', '1e3', '', 'KiB', '0.3B', '99999999TiB', '0x10']) {
    assert.is(parseUnit(text, 'bytes'), null, text);
  }
  assert.is(parseUnit('1.5s', 'ms'), 1500);
  assert.is(parseUnit('2min', 'ms'), 120_000);
  assert.is(parseUnit('5', 'count'), null);
  assert.is(parseUnit(1.5, 'bytes'), null);
  assert.is(formatExactBytes(4096), '4KiB');
  assert.is(formatExactBytes(4097), '4097B');
  assert.is(formatExactMs(90_000), '90s');
});

test('addresses: names, IPv4 and IPv6 in brackets', () => {
  assert.equal(parseAddress('[fe80::1]:7790'), { host: 'fe80::1', port: 7790 });
  assert.equal(parseAddress('node-1.example.org:1'), { host: 'node-1.example.org', port: 1 });
  for (const wrong of [
    '::1:80',
    'a:0',
    'a:',
    ':1',
    'a b:1',
    '[a]:1',
    '300.1.1.1:1',
    'a:1:2',
    '-a:1',
  ]) {
    assert.is(parseAddress(wrong), null, wrong);
  }
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'LOCALHOST'])
    assert.ok(isLoopback(host), host);
  for (const host of ['10.0.0.1', '0.0.0.0', '::', '127.example.org', 'localhost.example.org']) {
    assert.not(isLoopback(host), host);
  }
});

test('the nearest word is suggested only when it is near', () => {
  assert.is(nearestWord('backng', ['backing', 'address']), 'backing');
  assert.is(nearestWord('chunksize', ['chunkBytes', 'name']), null);
  assert.is(nearestWord('queue', ['queueDepth', 'id']), 'queueDepth');
  assert.is(nearestWord('xyz', ['backing', 'address']), null);
});

test.run();
