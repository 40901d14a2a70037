// Nonsense in configs and on the command line: an error that names thing, value and range, and nothing is written.
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Scenario, scenario } from '../vm/guest/support.ts';
import { Cluster } from './cluster.ts';
import { hashArea } from './disks.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

const USAGE = 2;
const FAILED = 1;

/** What a config says instead; a function gets the text of a right one. */
const CONFIGS: ReadonlyArray<{
  what: string;
  change: (right: string) => string;
  says: RegExp;
}> = [
  {
    what: 'a chunk size that is no power of two',
    change: set('chunkBytes', 5000),
    says: /chunkBytes.*5000.*4 ?KiB/,
  },
  {
    what: 'a chunk size that is too large',
    change: set('chunkBytes', '128MiB'),
    says: /chunkBytes.*128 ?MiB.*64 ?MiB/,
  },
  {
    what: 'an extent size that is no size',
    change: set('extentBytes', 'plenty'),
    says: /extentBytes.*'plenty'/,
  },
  {
    what: 'a negative number of extents',
    change: set('activityLogExtents', -1),
    says: /activityLogExtents.*-1.*7\.\.65,?534/,
  },
  {
    what: 'chunks larger than extents',
    change: set('chunkBytes', '2MiB'),
    says: /chunkBytes.*extentBytes/,
  },
  {
    what: 'an unknown key',
    change: set('chunkByte', 4096),
    says: /chunkByte.*chunkBytes/s,
  },
  {
    what: 'protocol B',
    change: set('protocol', 'B'),
    says: /protocol.*'B' is not offered yet.*'A', 'C'/,
  },
  { what: 'protocol X', change: set('protocol', 'X'), says: /protocol.*'X'/ },
  { what: 'an empty name', change: set('name', ''), says: /name.*''/ },
  { what: 'a name with a slash', change: set('name', '../r0'), says: /name.*'\.\.\/r0'/ },
  {
    what: 'a secret that is too short',
    change: set('secret', 'short'),
    says: /secret.*8/,
  },
  {
    what: 'a port out of range',
    change: (right) => right.replace(/"address": "127.0.0.1:\d+"/, '"address": "127.0.0.1:99999"'),
    says: /address.*127\.0\.0\.1:99999.*1\.\.65535/,
  },
  {
    what: 'no secret on an address that is not loopback',
    change: (right) => right.replace(/"address": "127.0.0.1:\d+"/, '"address": "10.1.2.3:7000"'),
    says: /10\.1\.2\.3:7000.*loopback.*secret/,
  },
  {
    what: 'one disk for two nodes of the same machine, by its path',
    change: (right) => right.replace(/"backing": "[^"]*"/, '"backing": 7'),
    says: /backing.*7/,
  },
  {
    what: 'a frontend of no kind',
    change: (right) => right.replace(/"kind": "\w+"/, '"kind": "floppy"'),
    says: /frontend.*'?floppy'?.*(nbd|ublk)/,
  },
  {
    what: 'a ping as long as the peer timeout',
    change: (right) =>
      right
        .replace(/"ping": \d+/, '"ping": 5000')
        .replace(/"peerTimeout": \d+/, '"peerTimeout": 5000'),
    says: /ping.*5.*less than peerTimeout/,
  },
  {
    what: 'a window of no writes',
    change: set('asyncWindow', { writes: 0 }),
    says: /asyncWindow.*writes.*0.*1\.\.65,?536/,
  },
  {
    what: 'a peer that is no node',
    change: set('selectPeers', ['gamma']),
    says: /selectPeers.*'gamma'.*alpha, beta/,
  },
  {
    what: 'a syntax error',
    change: (right) => `${right}\n}`,
    says: /tidemark\.config\.ts:\d+:\d+/,
  },
  {
    what: 'a script that throws',
    change: () => "throw new Error('no config today');\n",
    says: /tidemark\.config\.ts:1:\d+.*no config today/,
  },
  { what: 'no default export', change: () => 'export const x = 1;\n', says: /default export/ },
];

const COMMANDS: ReadonlyArray<{
  what: string;
  words: string[];
  status: number;
  says: RegExp;
}> = [
  { what: 'an unknown verb', words: ['creat'], status: USAGE, says: /creat.*create/s },
  { what: 'an unknown option', words: ['create', '--froce'], status: USAGE, says: /--froce/ },
  { what: 'no value for an option', words: ['create', '--node'], status: USAGE, says: /--node/ },
  {
    what: 'a node that is not there',
    words: ['--node', 'omega', 'create'],
    status: USAGE,
    says: /omega.*alpha, beta/,
  },
  {
    what: 'a volume that is not there',
    words: ['--volume', 'r9', 'create'],
    status: USAGE,
    says: /r9.*r0/,
  },
  {
    what: 'a config that is not there',
    words: ['--config', '/nonexistent/x.ts', 'create'],
    status: USAGE,
    says: /\/nonexistent\/x\.ts/,
  },
  {
    what: 'a timeout that is none',
    words: ['wait', '--timeout', 'soon'],
    status: USAGE,
    says: /soon/,
  },
  {
    what: 'a goal that is none',
    words: ['wait', '--for', 'ever'],
    status: USAGE,
    says: /ever.*connected/s,
  },
  {
    what: 'a log level that is none',
    words: ['up', '--log-level', 'loud'],
    status: USAGE,
    says: /loud/,
  },
  { what: 'no daemon', words: ['status'], status: 3, says: /no daemon/ },
];

export function nonsenseScenarios(place: Place): Scenario[] {
  const { kind } = place;
  return [
    scenario(
      `${kind}: ${CONFIGS.length} kinds of nonsense in a config are refused by create and up, and no disk changes`,
      async (t) => {
        const cluster = await Cluster.prepare(t, place);
        const { alpha } = cluster;
        const right = readFileSync(alpha.paths.config, 'utf8');
        const before = await hashDisks(cluster, place);
        const wrong: string[] = [];
        for (const { what, change, says } of CONFIGS) {
          const spoilt = change(right);
          assert.notEqual(spoilt, right, `${what}: nothing was spoilt`);
          writeFileSync(alpha.paths.config, spoilt);
          wrong.push(...(await refused(alpha, what, ['create'], USAGE, says)));
        }
        // The daemon loads the config by another way.
        for (const { what, change, says } of CONFIGS.slice(-4)) {
          writeFileSync(alpha.paths.config, change(right));
          wrong.push(...(await refused(alpha, `${what}, up`, ['up'], USAGE, says)));
        }
        assert.deepEqual(wrong, []);
        assert.deepEqual(await hashDisks(cluster, place), before, 'a disk was changed');
      },
      { timeoutMs: place.scenarioMs * 2 },
    ),

    scenario(
      `${kind}: ${COMMANDS.length} kinds of nonsense on the command line are refused, and no disk changes`,
      async (t) => {
        const cluster = await Cluster.prepare(t, place);
        const before = await hashDisks(cluster, place);
        const wrong: string[] = [];
        for (const { what, words, status, says } of COMMANDS) {
          wrong.push(...(await refused(cluster.alpha, what, words, status, says)));
        }
        assert.deepEqual(wrong, []);
        assert.deepEqual(await hashDisks(cluster, place), before, 'a disk was changed');
      },
      { timeoutMs: place.scenarioMs },
    ),

    scenario(
      `${kind}: disks that cannot be are refused by create, and stay as they are`,
      async (t) => {
        const cluster = await Cluster.prepare(t, place);
        const { alpha } = cluster;
        const right = readFileSync(alpha.paths.config, 'utf8');
        const before = await hashDisks(cluster, place);
        const tiny = join(cluster.directory, 'tiny');
        writeFileSync(tiny, 'x');
        const empty = join(cluster.directory, 'empty');
        writeFileSync(empty, '');
        const wrong: string[] = [];
        for (const [what, backing, says] of [
          ['a file of one byte', tiny, /tiny.*1 byte|tiny.*small/],
          ['an empty file', empty, /empty.*0 byte|empty.*small/],
          ['a directory', cluster.directory, /neither a block device nor a regular file/],
          ['a device that is no disk', '/dev/null', /\/dev\/null/],
          ['a file that is not there', `${tiny}-not`, /tiny-not.*No such file/],
        ] as const) {
          const text = right.replace(/"backing": "[^"]*"/, `"backing": "${backing}"`);
          writeFileSync(alpha.paths.config, text);
          wrong.push(...(await refused(alpha, what, ['create'], FAILED, says)));
        }
        for (const [what, metadata, says] of [
          ['metadata beyond the end', { offset: '1TiB' }, /offset|1 ?TiB|109951162777/],
          [
            'metadata that leaves no room for data',
            { offset: 0 },
            /size in bytes is 0: out of range/,
          ],
          [
            'a metadata file in a folder that is not there',
            { file: '/nonexistent/metadata' },
            /\/nonexistent\/metadata.*No such file/,
          ],
        ] as const) {
          const text = right.replace(
            /"metadata": "[^"]*"/,
            `"metadata": ${JSON.stringify(metadata)}`,
          );
          writeFileSync(alpha.paths.config, text);
          wrong.push(...(await refused(alpha, what, ['create'], FAILED, says)));
        }
        assert.deepEqual(wrong, []);
        assert.deepEqual(await hashDisks(cluster, place), before, 'a disk was changed');
        assert.equal(readFileSync(tiny, 'utf8'), 'x');
        assert.equal(readFileSync(empty, 'utf8'), '');
      },
      { timeoutMs: place.scenarioMs },
    ),
  ];
}

/** Replaces the field of the volume, or adds it. */
function set(key: string, value: unknown): (right: string) => string {
  return (right) =>
    right.replace('\n});', `\n${JSON.stringify(key)}: ${JSON.stringify(value)},\n});`);
}

/** What is wrong with the refusal; nothing is best. */
async function refused(
  node: ClusterNode,
  what: string,
  words: string[],
  status: number,
  says: RegExp,
): Promise<string[]> {
  const result = await node.cli(words, { anyStatus: true });
  const told = `${what}: exit status ${result.status}, ${result.stderr.trim()}`;
  const problems: string[] = [];
  if (result.status !== status) problems.push(`${told} (expected exit status ${status})`);
  if (!says.test(result.stderr)) problems.push(`${told} (expected ${says})`);
  if (/^\s+at /m.test(result.stderr)) problems.push(`${told} (a stack)`);
  return problems;
}

function hashDisks(cluster: Cluster, place: Place): Promise<string[]> {
  return Promise.all(
    cluster.nodes.map(({ paths }) =>
      hashArea({ path: paths.backing, offset: 0, bytes: place.backingBytes }),
    ),
  );
}
