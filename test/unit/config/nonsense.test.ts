import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ConfigError, formatProblem } from '../../../lib/config/problems.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';

type Raw = Record<string, unknown>;

/** A config that is right; `change` spoils it. */
function volume(change: (volume: Raw, nodes: Record<string, Raw>) => void = () => {}): Raw {
  const nodes: Record<string, Raw> = {
    alpha: {
      backing: '/tmp/a.img',
      address: '127.0.0.1:7790',
      frontend: { kind: 'nbd', socket: '/tmp/a.sock' },
    },
    beta: { backing: '/tmp/b.img', address: '127.0.0.1:7791' },
  };
  const result: Raw = { name: 'r0', nodes };
  change(result, nodes);
  return result;
}

function problemsOf(exported: unknown): string[] {
  try {
    resolveConfig(exported, { path: '/etc/t.config.ts', hostname: 'alpha' });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map(formatProblem);
    throw error;
  }
  return [];
}

/** Each: what is wrong, how, and every message that is expected. */
const NONSENSE: Array<[string, Parameters<typeof volume>[0], string[]]> = [
  [
    'an address without a port',
    (_, nodes) => (nodes.alpha!.address = 'foo'),
    ["volumes[0].nodes.alpha.address: 'foo' is not host:port (port 1..65535)"],
  ],
  [
    'a port out of range',
    (_, nodes) => (nodes.beta!.address = '127.0.0.1:65536'),
    ["volumes[0].nodes.beta.address: '127.0.0.1:65536' is not host:port (port 1..65535)"],
  ],
  [
    'an address that is a number',
    (_, nodes) => (nodes.beta!.address = 7790),
    ['volumes[0].nodes.beta.address: 7790 is not host:port (port 1..65535)'],
  ],
  [
    'an IPv4 address with a part too much',
    (_, nodes) => (nodes.beta!.address = '1.2.3.4.5:80'),
    ["volumes[0].nodes.beta.address: '1.2.3.4.5:80' is not host:port (port 1..65535)"],
  ],
  [
    'a missing address',
    (_, nodes) => delete nodes.beta!.address,
    ["volumes[0].nodes.beta.address: is missing: expected 'host:port'"],
  ],
  [
    'a missing backing',
    (_, nodes) => delete nodes.alpha!.backing,
    ['volumes[0].nodes.alpha.backing: is missing: expected the path of a block device or file'],
  ],
  [
    'an empty backing',
    (_, nodes) => (nodes.alpha!.backing = ''),
    ["volumes[0].nodes.alpha.backing: '' is not the path of a block device or file"],
  ],
  [
    'no secret on a network address',
    (_, nodes) => (nodes.beta!.address = '10.0.0.2:7790'),
    [
      "volumes[0].nodes.beta.address: '10.0.0.2:7790' is not a loopback address: without a secret only 127.0.0.0/8, [::1] and localhost are allowed; set 'secret'",
    ],
  ],
  [
    'one address for two nodes',
    (_, nodes) => (nodes.beta!.address = '127.0.0.1:7790'),
    ["volumes[0].nodes.beta.address: '127.0.0.1:7790' is the address of node alpha too"],
  ],
  [
    'a mistyped key',
    (_, nodes) => (nodes.alpha!.adress = 'x'),
    ["volumes[0].nodes.alpha: unknown key 'adress' (did you mean 'address'?)"],
  ],
  [
    'a key that is like no other',
    (v) => (v.timeouts = { zzzzzzzz: 1 }),
    [
      "volumes[0].timeouts: unknown key 'zzzzzzzz' (known: ping, peerTimeout, connectTimeout, retryMin, retryMax, recoveryTimeout)",
    ],
  ],
  [
    'protocol B',
    (v) => (v.protocol = 'B'),
    ["volumes[0].protocol: 'B' is not offered yet: one of 'A', 'C'"],
  ],
  [
    'a protocol that does not exist',
    (v) => (v.protocol = 'D'),
    ["volumes[0].protocol: 'D' is not one of 'A', 'C'"],
  ],
  [
    'a chunk that is no power of two',
    (v) => (v.chunkBytes = '5KiB'),
    ["volumes[0].chunkBytes: '5KiB' is out of range (4KiB..64MiB, a power of two)"],
  ],
  [
    'a chunk that is too small',
    (v) => (v.chunkBytes = 512),
    ['volumes[0].chunkBytes: 512 is out of range (4KiB..64MiB, a power of two)'],
  ],
  [
    'a size in a unit that does not exist',
    (v) => (v.extentBytes = '4MB'),
    [
      "volumes[0].extentBytes: '4MB' is not a size (an integer of bytes, or text such as '4KiB', '1MiB', '2GiB') in 1MiB..1GiB, a power of two",
    ],
  ],
  [
    'a chunk larger than an extent',
    (v) => Object.assign(v, { chunkBytes: '4MiB', extentBytes: '1MiB' }),
    ['volumes[0].chunkBytes: 4MiB must be at most extentBytes (1MiB)'],
  ],
  [
    'an activity log that is too large',
    (v) => (v.activityLogExtents = 65_535),
    ['volumes[0].activityLogExtents: 65535 is out of range (7..65534)'],
  ],
  [
    'NaN for a count',
    (v) => (v.activityLogExtents = Number.NaN),
    ['volumes[0].activityLogExtents: NaN is not an integer in 7..65534'],
  ],
  [
    'a ping slower than the timeout',
    (v) => (v.timeouts = { ping: '7s' }),
    ['volumes[0].timeouts.ping: 7s must be less than peerTimeout (6s)'],
  ],
  [
    'a retry range upside down',
    (v) => (v.timeouts = { retryMin: '30s' }),
    ['volumes[0].timeouts.retryMin: 30s must be at most retryMax (10s)'],
  ],
  [
    'a negative duration',
    (v) => (v.timeouts = { ping: -1 }),
    ['volumes[0].timeouts.ping: -1 is out of range (50ms..1min)'],
  ],
  [
    'a name with a slash',
    (v) => (v.name = '../r0'),
    [
      "volumes[0].name: '../r0' is not a name (1..63 letters, digits, '.', '_' or '-', beginning with a letter or digit)",
    ],
  ],
  [
    'a node name that is too long',
    (_, nodes) => (nodes['x'.repeat(32)] = { backing: '/c', address: '127.0.0.1:7793' }),
    [
      `volumes[0].nodes: '${'x'.repeat(32)}' is not a name (1..31 letters, digits, '.', '_' or '-', beginning with a letter or digit)`,
    ],
  ],
  ['no nodes', (v) => (v.nodes = {}), ['volumes[0].nodes: has 0 nodes (1..9)']],
  [
    'nodes as a list',
    (v) => (v.nodes = ['alpha', 'beta']),
    ['volumes[0].nodes: a list of 2 is not an object with the nodes by name'],
  ],
  [
    'a node that is a text',
    (_, nodes) => ((nodes as Raw).beta = '/tmp/b.img'),
    ["volumes[0].nodes.beta: '/tmp/b.img' is not an object"],
  ],
  [
    'metadata in a place that does not exist',
    (_, nodes) => (nodes.alpha!.metadata = 'internal'),
    [
      "volumes[0].nodes.alpha.metadata: 'internal' is not 'internal-end', 'internal-start', { offset: size } or { file: path }",
    ],
  ],
  [
    'a metadata offset between blocks',
    (_, nodes) => (nodes.alpha!.metadata = { offset: 1000 }),
    [
      'volumes[0].nodes.alpha.metadata.offset: 1000 is out of range (0B..9007199254740991B, a multiple of 4KiB)',
    ],
  ],
  [
    'metadata in the backing itself',
    (_, nodes) => (nodes.alpha!.metadata = { file: '/tmp/x/../a.img' }),
    ["volumes[0].nodes.alpha.metadata.file: '/tmp/x/../a.img' is the backing disk itself"],
  ],
  [
    'a frontend that does not exist',
    (_, nodes) => (nodes.alpha!.frontend = { kind: 'iscsi' }),
    ["volumes[0].nodes.alpha.frontend.kind: 'iscsi' is not one of 'ublk', 'nbd'"],
  ],
  [
    'an NBD frontend without a place',
    (_, nodes) => (nodes.alpha!.frontend = { kind: 'nbd' }),
    [
      "volumes[0].nodes.alpha.frontend: kind 'nbd' needs 'socket', or 'port' (on 'host', default 127.0.0.1)",
    ],
  ],
  [
    'an NBD frontend for the whole network',
    (_, nodes) => (nodes.alpha!.frontend = { kind: 'nbd', host: '0.0.0.0', port: 10_809 }),
    [
      "volumes[0].nodes.alpha.frontend.host: '0.0.0.0' is not a loopback address: NBD is served on 127.0.0.0/8, ::1 and localhost only",
    ],
  ],
  [
    'a socket path that is too long',
    (_, nodes) => (nodes.alpha!.frontend = { kind: 'nbd', socket: `/${'s'.repeat(107)}` }),
    [
      `volumes[0].nodes.alpha.frontend.socket: '/${'s'.repeat(78)}... is too long for a Unix socket: /${'s'.repeat(107)} has 108 bytes (1..107)`,
    ],
  ],
  [
    'ublk requests that are too large',
    (_, nodes) => (nodes.alpha!.frontend = { kind: 'ublk', maxIoBytes: '2MiB' }),
    [
      "volumes[0].nodes.alpha.frontend.maxIoBytes: '2MiB' is out of range (4KiB..1MiB, a multiple of 4KiB)",
    ],
  ],
  [
    'a CPU that is a text',
    (_, nodes) => (nodes.alpha!.affinity = [0, 'one']),
    ["volumes[0].nodes.alpha.affinity[1]: 'one' is not an integer in 0..1023"],
  ],
  [
    'a window of no writes',
    (v) => (v.asyncWindow = { writes: 0 }),
    ['volumes[0].asyncWindow.writes: 0 is out of range (1..65536)'],
  ],
  [
    'a flush interval that is a boolean',
    (v) => (v.flushInterval = true),
    [
      "volumes[0].flushInterval: true is not a duration (an integer of milliseconds, or text such as '500ms', '5s', '2min') in 10ms..1h",
    ],
  ],
  [
    'a selected peer that is no node',
    (v) => (v.selectPeers = ['gamma']),
    ["volumes[0].selectPeers: 'gamma' is not a node (alpha, beta)"],
  ],
  [
    'a secret that is too short, which is not shown',
    (v) => (v.secret = 'hunter2'),
    ['volumes[0].secret: the secret is not 8..1024 bytes long'],
  ],
  [
    'a secret from nowhere',
    (v) => (v.secret = { vault: 'x' }),
    ['volumes[0].secret: the secret is not a text, { file: path } or { env: name }'],
  ],
];

for (const [what, change, expected] of NONSENSE) {
  test(`refuses ${what}`, () => {
    assert.equal(problemsOf({ volumes: [volume(change)] }), expected);
  });
}

test('lists all problems of all volumes at once, with their paths', () => {
  const found = problemsOf({
    volumes: [
      volume((v, nodes) => {
        v.protocol = 'X';
        nodes.alpha!.address = 'nowhere';
        nodes.beta!.address = '10.1.1.1:7790';
      }),
      volume((v, nodes) => {
        v.name = 'r1';
        nodes.alpha!.backing = '/tmp/a2.img';
        nodes.beta!.backing = '/tmp/b2.img';
        v.chunkBytes = 5;
      }),
    ],
  });
  assert.is(found.length, 5, found.join('\n'));
  for (const path of [
    'volumes[0].protocol',
    'volumes[0].nodes.alpha.address',
    'volumes[0].nodes.beta.address',
    'volumes[1].chunkBytes',
    'volumes[1].nodes.alpha.frontend.socket',
  ]) {
    assert.ok(
      found.some((line) => line.startsWith(`${path}: `)),
      `${path} in\n${found.join('\n')}`,
    );
  }
});

test('refuses two volumes on one disk of a node', () => {
  const two = volume((v, nodes) => {
    v.name = 'r1';
    delete nodes.alpha!.frontend;
    nodes.beta!.backing = '/tmp/other.img';
  });
  assert.equal(problemsOf({ volumes: [volume(), two] }), [
    "volumes[1].nodes.alpha.backing: '/tmp/a.img' is used by volumes[0].nodes.alpha.backing too",
  ]);
});

test('refuses a default export that is no config, and none', () => {
  for (const [exported, found] of [
    [undefined, 'there is none'],
    [42, 'found 42'],
    [[], 'found []'],
    [() => {}, 'found a function'],
  ]) {
    assert.equal(problemsOf(exported), [
      `the default export must be defineVolume({...}) or defineConfig({ volumes: [...] }): ${found}`,
    ]);
  }
});

test('refuses a config whose volumes are missing, empty or no list', () => {
  assert.equal(problemsOf({ volumes: [] }), ['volumes: is empty: 1..64 volumes']);
  assert.equal(problemsOf({ volumes: 'r0' }), ["volumes: 'r0' is not a list of volumes"]);
});

test('a lone volume has paths as its writer wrote them', () => {
  assert.equal(problemsOf(volume((_, nodes) => (nodes.alpha!.address = 'foo'))), [
    "nodes.alpha.address: 'foo' is not host:port (port 1..65535)",
  ]);
});

test('shows no value of an object in a message, since it may be a secret', () => {
  const found = problemsOf({ volumes: { secret: 'correct horse battery' } });
  assert.equal(found, ['volumes: { secret } is not a list of volumes']);
});

test.run();
