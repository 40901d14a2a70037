import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  BACKING,
  GEOMETRY,
  type Limit,
  NBD,
  ON_IO_ERROR,
  POLICY,
  TIMEOUTS,
  UBLK,
} from '../../../lib/config/limits.ts';
import { ConfigError, showValue } from '../../../lib/config/problems.ts';
import { resolveConfig } from '../../../lib/config/resolve.ts';
import { checkLimit, formatExactBytes, formatExactMs } from '../../../lib/config/units.ts';
import { anything, options } from '../properties.ts';

const CONTEXT = {
  path: '/etc/tidemark/tidemark.config.ts',
  hostname: 'alpha',
};

/** The problems that were found; null: none. Anything else that is thrown is the test's failure. */
function problems(exported: unknown): ConfigError['problems'] | null {
  try {
    resolveConfig(exported, CONTEXT);
    return null;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    assert.ok(error.problems.length > 0);
    for (const { message } of error.problems) {
      assert.ok(message.length > 0 && message.length < 2000, message);
      assert.not.match(message, /cannot read|is not (a function|iterable)|\[object Object\]/i);
    }
    return error.problems;
  }
}

/** A number that the limit allows, as the number or as a text with its unit. */
function allowed(limit: Limit): fc.Arbitrary<[number, unknown]> {
  const { min, max, unit, powerOfTwo, multipleOf = 1 } = limit;
  const numbers = powerOfTwo
    ? fc.integer({ min: Math.log2(min), max: Math.log2(max) }).map((bits) => 2 ** bits)
    : fc
        .integer({ min: Math.ceil(min / multipleOf), max: Math.floor(max / multipleOf) })
        .map((times) => times * multipleOf);
  return fc.tuple(numbers, fc.boolean()).map(([value, asText]) => {
    if (!asText || unit === 'count') return [value, value];
    return [value, unit === 'bytes' ? formatExactBytes(value) : formatExactMs(value)];
  });
}

/** Where each number of a volume is, in the script and in what is made of it. */
const NUMBERS: ReadonlyArray<[path: string[], Limit, resolved: string[]]> = [
  [['chunkBytes'], GEOMETRY.chunkBytes, ['chunkBytes']],
  [['extentBytes'], GEOMETRY.extentBytes, ['extentBytes']],
  [['activityLogExtents'], GEOMETRY.activityLogExtents, ['activityLogExtents']],
  ...Object.entries(TIMEOUTS).map(([name, limit]): [string[], Limit, string[]] => [
    ['timeouts', name],
    limit,
    ['timeouts', name],
  ]),
  [['asyncWindow', 'writes'], POLICY.windowWrites, ['policy', 'asyncWindow', 'value', 'writes']],
  [['asyncWindow', 'bytes'], POLICY.windowBytes, ['policy', 'asyncWindow', 'value', 'bytes']],
  [['flushInterval'], POLICY.flushInterval, ['policy', 'flushIntervalMs', 'value']],
  [['policyDeadline'], POLICY.deadline, ['policy', 'deadlineMs']],
  [['nodes', 'alpha', 'lockTimeout'], BACKING.lockTimeout, ['local', 'lockTimeoutMs']],
  [
    ['nodes', 'alpha', 'frontend', 'queueDepth'],
    UBLK.queueDepth,
    ['local', 'frontend', 'queueDepth'],
  ],
  [['nodes', 'alpha', 'frontend', 'id'], UBLK.id, ['local', 'frontend', 'id']],
  [
    ['nodes', 'alpha', 'frontend', 'maxIoBytes'],
    UBLK.maxIoBytes,
    ['local', 'frontend', 'maxIoBytes'],
  ],
];

type Raw = Record<string, unknown>;

function plain(): Raw {
  return {
    name: 'r0',
    nodes: {
      alpha: {
        backing: '/dev/a',
        address: '127.0.0.1:7790',
        frontend: { kind: 'ublk' },
      },
      beta: { backing: '/dev/b', address: '127.0.0.1:7791' },
    },
  };
}

function put(root: Raw, path: readonly string[], value: unknown): Raw {
  let at = root;
  for (const key of path.slice(0, -1)) {
    at[key] ??= {};
    at = at[key] as Raw;
  }
  at[path.at(-1)!] = value;
  return root;
}

const get = (root: unknown, path: readonly string[]) =>
  path.reduce<unknown>((at, key) => (at as Raw)[key], root);

test('property: whatever a script exports, the answer is a config or a list of problems', () => {
  fc.assert(
    fc.property(anything(4), (exported) => {
      problems(exported);
    }),
    options(400),
  );
});

test('property: whatever is in place of one field, the problem names its path, the value and the range', () => {
  fc.assert(
    fc.property(fc.constantFrom(...NUMBERS), anything(2), ([path, limit], value) => {
      const found = problems(put(plain(), path, value));
      const why = value === undefined ? null : checkLimit(value, limit);
      const text = path.join('.');
      const own = found?.filter((problem) => problem.path === text) ?? [];
      // A function is a policy; a duration or a window may also be too large for its neighbour.
      if (why === null || (typeof value === 'function' && limit === POLICY.flushInterval)) return;
      assert.is(own.length, 1, `${text}: ${JSON.stringify(found)}`);
      assert.ok(own[0]!.message.includes(showValue(value)), own[0]!.message);
      assert.ok(own[0]!.message.includes(why), own[0]!.message);
      assert.match(why, /\.\./, 'a range');
    }),
    options(400),
  );
});

const KEYS = [
  ...['name', 'nodes', 'protocol', 'secret', 'onIoError', 'timeouts', 'asyncWindow', 'selectPeers'],
  ...['nodes.alpha', 'nodes.alpha.backing', 'nodes.alpha.address', 'nodes.alpha.listen'],
  ...[
    'nodes.alpha.metadata',
    'nodes.alpha.frontend',
    'nodes.alpha.affinity',
    'nodes.gamma',
    'bogus',
  ],
];

test('property: a field that is no number is taken or told about at its place', () => {
  fc.assert(
    fc.property(fc.constantFrom(...KEYS), anything(3), (key, value) => {
      const found = problems(put(plain(), key.split('.'), value));
      if (found === null || value === undefined) return;
      // An unknown key is told at what holds it.
      const holder = key === 'bogus' ? '' : key;
      const near = found.some(
        ({ path, message }) => path.startsWith(holder) || message.includes(key.split('.').at(-1)!),
      );
      assert.ok(near, `${key}: ${JSON.stringify(found)}`);
    }),
    options(400),
  );
});

test('property: numbers that are allowed come back as they were given', () => {
  const values = fc.tuple(...NUMBERS.map(([, limit]) => allowed(limit)));
  fc.assert(
    fc.property(
      values,
      fc.constantFrom('A', 'C'),
      fc.constantFrom(...ON_IO_ERROR),
      (given, ...rest) => {
        const raw = plain();
        const [protocol, onIoError] = rest;
        Object.assign(raw, { protocol, onIoError });
        for (const [index, [path]] of NUMBERS.entries()) put(raw, path, given[index]![1]);
        // What must be in order is put in order.
        const numberAt = (name: string) =>
          given[NUMBERS.findIndex(([path]) => path.at(-1) === name)]![0];
        const fits =
          numberAt('chunkBytes') <= numberAt('extentBytes') &&
          numberAt('ping') < numberAt('peerTimeout') &&
          numberAt('retryMin') <= numberAt('retryMax');
        const found = problems(raw);
        assert.is(found === null, fits, JSON.stringify(found));
        if (!fits) return;
        const [volume] = resolveConfig(raw, CONTEXT).config.volumes;
        for (const [index, [path, , resolved]] of NUMBERS.entries()) {
          assert.is(get(volume, resolved), given[index]![0], path.join('.'));
        }
        assert.is(volume!.protocol, protocol);
        structuredClone(volume);
      },
    ),
    options(300),
  );
});

test('property: the limits of the NBD frontend are kept as well', () => {
  const limits = fc.tuple(allowed(NBD.queueDepth), allowed(NBD.maxConnections));
  fc.assert(
    fc.property(limits, ([[queueDepth, depthText], [maxConnections, connectionsText]]) => {
      const raw = put(plain(), ['nodes', 'alpha', 'frontend'], {
        kind: 'nbd',
        socket: '/run/a.sock',
        queueDepth: depthText,
        maxConnections: connectionsText,
      });
      const { frontend } = resolveConfig(raw, CONTEXT).config.volumes[0]!.local;
      assert.is((frontend as { queueDepth: number }).queueDepth, queueDepth);
      assert.is((frontend as { maxConnections: number }).maxConnections, maxConnections);
    }),
    options(200),
  );
});

test.run();
