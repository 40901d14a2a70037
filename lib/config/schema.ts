/**
 * The zod schema of a config script. It reports every problem at once, and turns texts into numbers, addresses and
 * places on the way; what needs more than one field is in consistency.ts.
 */

import { resolve } from 'node:path';
import { z } from 'zod';
import { ADDRESS_EXPECTED, parseAddress } from './address.ts';
import {
  BACKING,
  GEOMETRY,
  type Limit,
  NBD,
  NODE_NAME_BYTES_MAX,
  NODES_MAX,
  NODES_MIN,
  ON_IO_ERROR,
  POLICY,
  PORT_MAX,
  PORT_MIN,
  SOCKET_PATH_BYTES_MAX,
  TIMEOUTS,
  UBLK,
  VOLUME_NAME_BYTES_MAX,
  VOLUMES_MAX,
} from './limits.ts';
import { formatPath, type Problem, showValue } from './problems.ts';
import type { MetadataPlace, SecretSource, WindowValue } from './resolved.ts';
import { checkSecret } from './secret.ts';
import { checkLimit, nearestWord, parseUnit } from './units.ts';

/** A problem is told as `<value> <why>`; with `whole`, as `why` alone. */
interface Failure {
  why: string;
  whole?: boolean;
  path?: PropertyKey[];
}

type Reader<T> = (value: unknown, fail: (failure: string | Failure) => void) => T | undefined;

/** A required value, read by a function that says what is wrong with it. */
function reading<T>(expected: string, read: Reader<T>) {
  return z.unknown().transform((value, context): T => {
    let failed = false;
    const fail = (failure: string | Failure) => {
      failed = true;
      const {
        why,
        whole = false,
        path = [],
      } = typeof failure === 'string' ? { why: failure } : failure;
      context.issues.push({ code: 'custom', message: why, input: value, path, params: { whole } });
    };
    if (value === undefined) {
      fail({ why: `is missing: ${expected}`, whole: true });
      return z.NEVER;
    }
    const result = read(value, fail);
    return failed ? z.NEVER : (result as T);
  });
}

const number = (limit: Limit) =>
  reading(`expected ${limit.meaning}`, (value, fail) => {
    const why = checkLimit(value, limit);
    if (why !== null) return void fail(why);
    return parseUnit(value, limit.unit)!;
  }).optional();

/** The limit's default in place of a missing number. */
const numberOr = (limit: Limit) => number(limit).transform((value) => value ?? limit.default);

const text = (what: string) =>
  reading(`expected ${what}`, (value, fail) => {
    if (typeof value !== 'string' || value === '') return void fail(`is not ${what}`);
    if (value.includes('\0')) return void fail(`is not ${what}: it contains a NUL character`);
    return value;
  });

const name = (what: string, bytesMax: number) =>
  reading(`expected the ${what}'s name`, (value, fail) => {
    const why = checkName(value, bytesMax);
    if (why !== null) return void fail(why);
    return value as string;
  });

/** What is wrong with a volume's or node's name, null: nothing. */
export function checkName(value: unknown, bytesMax: number): string | null {
  return typeof value === 'string' && /^[A-Za-z0-9][\w.-]*$/.test(value) && value.length <= bytesMax
    ? null
    : `is not a name (1..${bytesMax} letters, digits, '.', '_' or '-', beginning with a letter or digit)`;
}

const address = () =>
  reading(
    "expected 'host:port'",
    (value, fail) => parseAddress(value) ?? void fail(ADDRESS_EXPECTED),
  );

const choice = <T extends string>(values: readonly T[], hints: Record<string, string> = {}) =>
  reading(`expected one of ${values.map(showValue).join(', ')}`, (value, fail) => {
    if (values.includes(value as T)) return value as T;
    const hint = typeof value === 'string' ? hints[value] : undefined;
    return void fail(hint ?? `is not one of ${values.map(showValue).join(', ')}`);
  });

/** An object with these keys and no others. */
function object<S extends z.ZodRawShape>(shape: S) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== 'unrecognized_keys') return undefined;
      return (issue.keys as string[])
        .map((key) => {
          const near = nearestWord(key, known);
          const hint = near === null ? `known: ${known.join(', ')}` : `did you mean '${near}'?`;
          return `unknown key '${key}' (${hint})`;
        })
        .join(', ');
    },
  });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reports the problems that another schema finds in the value. */
function nested<T>(
  schema: z.ZodType<T>,
  value: unknown,
  fail: (failure: Failure) => void,
): T | undefined {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  for (const issue of result.error.issues) {
    fail({ why: issueText(issue), whole: true, path: [...issue.path] });
  }
  return undefined;
}

const METADATA_EXPECTED =
  "is not 'internal-end', 'internal-start', { offset: size } or { file: path }";

const metadata = (folder: string) =>
  reading<MetadataPlace>('', (value, fail) => {
    if (value === 'internal-end') return { placement: 'end' };
    if (value === 'internal-start') return { placement: 'start' };
    if (isObject(value) && 'offset' in value) {
      const parsed = nested(object({ offset: number(BACKING.metadataOffset) }), value, fail);
      return parsed && { placement: 'offset', offsetBytes: parsed.offset! };
    }
    if (isObject(value) && 'file' in value) {
      const parsed = nested(object({ file: text('a path') }), value, fail);
      return parsed && { placement: 'external', file: resolve(folder, parsed.file) };
    }
    return void fail(METADATA_EXPECTED);
  }).optional();

const ublk = object({
  kind: z.literal('ublk'),
  id: numberOr(UBLK.id),
  queueDepth: numberOr(UBLK.queueDepth),
  maxIoBytes: numberOr(UBLK.maxIoBytes),
});

const PORT: Limit = { unit: 'count', default: 0, min: PORT_MIN, max: PORT_MAX, meaning: 'a port' };

const nbd = (folder: string) =>
  object({
    kind: z.literal('nbd'),
    socket: reading('', (value, fail) => {
      if (typeof value !== 'string' || value === '' || value.includes('\0')) {
        return void fail('is not the path of a Unix socket');
      }
      const path = resolve(folder, value);
      if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
        return void fail(
          `is too long for a Unix socket: ${path} has ${Buffer.byteLength(path)} bytes (1..${SOCKET_PATH_BYTES_MAX})`,
        );
      }
      return path;
    }).optional(),
    host: text('a loopback address').optional(),
    port: number(PORT),
    queueDepth: numberOr(NBD.queueDepth),
    maxConnections: numberOr(NBD.maxConnections),
  });

const frontend = (folder: string) =>
  reading('', (value, fail) => {
    if (!isObject(value)) return void fail("is not an object with kind 'ublk' or 'nbd'");
    if (value.kind === 'ublk') return nested(ublk, value, fail);
    if (value.kind === 'nbd') return nested(nbd(folder), value, fail);
    return void fail({
      why: `${showValue(value.kind)} is not one of 'ublk', 'nbd'`,
      whole: true,
      path: ['kind'],
    });
  }).optional();

const affinity = reading('', (value, fail) => {
  if (!Array.isArray(value) || value.length === 0) return void fail('is not a list of CPU numbers');
  const wrong = value.findIndex((cpu) => checkLimit(cpu, BACKING.cpu) !== null);
  if (wrong >= 0) {
    const why = `${showValue(value[wrong])} ${checkLimit(value[wrong], BACKING.cpu)}`;
    return void fail({ why, whole: true, path: [wrong] });
  }
  return value as number[];
}).optional();

const listen = reading('', (value, fail) => {
  if (value === false) return null;
  return parseAddress(value) ?? void fail(`${ADDRESS_EXPECTED}, nor false`);
}).optional();

const node = (folder: string) =>
  object({
    backing: text('the path of a block device or file').transform((path) => resolve(folder, path)),
    metadata: metadata(folder),
    address: address(),
    listen,
    frontend: frontend(folder),
    affinity,
    lockTimeout: numberOr(BACKING.lockTimeout),
  });

const nodes = (folder: string) =>
  reading('expected an object with the nodes by name', (value, fail) => {
    if (!isObject(value)) return void fail('is not an object with the nodes by name');
    const names = Object.keys(value);
    if (names.length < NODES_MIN || names.length > NODES_MAX) {
      fail({ why: `has ${names.length} nodes (${NODES_MIN}..${NODES_MAX})`, whole: true });
    }
    const result: Array<z.output<ReturnType<typeof node>> & { name: string }> = [];
    for (const key of names) {
      const why = checkName(key, NODE_NAME_BYTES_MAX);
      if (why !== null) fail({ why: `'${key}' ${why}`, whole: true });
      const parsed = nested(node(folder), value[key], (failure) =>
        fail({ ...failure, path: [key, ...(failure.path ?? [])] }),
      );
      if (parsed) result.push({ name: key, ...parsed });
    }
    return result;
  });

const secret = (folder: string) =>
  reading<SecretSource>('', (value, fail) => {
    if (typeof value === 'string') {
      const why = checkSecret(value);
      return why === null ? { value } : void fail({ why: `the secret ${why}`, whole: true });
    }
    if (isObject(value) && 'file' in value) {
      const parsed = nested(object({ file: text('a path') }), value, fail);
      return parsed && { file: resolve(folder, parsed.file) };
    }
    if (isObject(value) && 'env' in value) {
      return nested(object({ env: text("an environment variable's name") }), value, fail);
    }
    return void fail({
      why: 'the secret is not a text, { file: path } or { env: name }',
      whole: true,
    });
  }).optional();

const timeouts = object({
  ping: numberOr(TIMEOUTS.ping),
  peerTimeout: numberOr(TIMEOUTS.peerTimeout),
  connectTimeout: numberOr(TIMEOUTS.connectTimeout),
  retryMin: numberOr(TIMEOUTS.retryMin),
  retryMax: numberOr(TIMEOUTS.retryMax),
  recoveryTimeout: numberOr(TIMEOUTS.recoveryTimeout),
});

/** An `asyncWindow`, also as a policy function's answer. */
export const windowSchema = object({
  writes: numberOr(POLICY.windowWrites),
  bytes: numberOr(POLICY.windowBytes),
}) satisfies z.ZodType<WindowValue>;

/** A `flushInterval` in ms, also as a policy function's answer. */
export const flushIntervalSchema = reading('expected a duration', (value, fail) => {
  const why = checkLimit(value, POLICY.flushInterval);
  return why === null ? parseUnit(value, 'ms')! : void fail(why);
});

/** A `selectPeers`, also as a policy function's answer: names of peers, each once. */
export const selectPeersSchema = reading('expected names of peers', (value, fail) => {
  const list = typeof value === 'string' ? [value] : value;
  if (!Array.isArray(list) || list.some((item) => typeof item !== 'string')) {
    return void fail("is not a peer's name or a list of them");
  }
  if (new Set(list).size !== list.length) return void fail('names a peer twice');
  return list as string[];
});

const FUNCTION = Symbol('function');
export type OrFunction<T> = T | typeof FUNCTION;
export const isFunctionMark = (value: unknown): value is typeof FUNCTION => value === FUNCTION;

const orFunction = <T>(schema: z.ZodType<T>) =>
  reading<OrFunction<T>>('', (value, fail) =>
    typeof value === 'function' ? FUNCTION : nested(schema, value, fail),
  ).optional();

const volume = (folder: string) =>
  object({
    name: name('volume', VOLUME_NAME_BYTES_MAX),
    nodes: nodes(folder),
    protocol: choice(['A', 'C'] as const, {
      B: "is not offered yet: one of 'A', 'C'",
    }).optional(),
    onIoError: choice(ON_IO_ERROR).optional(),
    secret: secret(folder),
    chunkBytes: numberOr(GEOMETRY.chunkBytes),
    extentBytes: numberOr(GEOMETRY.extentBytes),
    activityLogExtents: numberOr(GEOMETRY.activityLogExtents),
    timeouts: timeouts.optional(),
    asyncWindow: orFunction(windowSchema),
    flushInterval: orFunction(flushIntervalSchema),
    selectPeers: orFunction(selectPeersSchema),
    policyDeadline: numberOr(POLICY.deadline),
  });

export type ParsedVolume = z.output<ReturnType<typeof volume>>;

const config = (folder: string) =>
  object({
    node: reading('', (value, fail) => {
      if (typeof value === 'function') return value as (host: { hostname: string }) => unknown;
      const why = checkName(value, NODE_NAME_BYTES_MAX);
      return why === null ? (value as string) : void fail(`${why}, nor a function`);
    }).optional(),
    volumes: z
      .array(volume(folder), { error: 'is not a list of volumes' })
      .min(1, {
        error: `is empty: 1..${VOLUMES_MAX} volumes`,
      })
      .max(VOLUMES_MAX, { error: `has too many volumes (1..${VOLUMES_MAX})` }),
  });

export type ParsedConfig = z.output<ReturnType<typeof config>>;

/** The message of an issue, with the value where it belongs into it. */
function issueText(issue: z.core.$ZodIssue): string {
  const input = 'input' in issue ? issue.input : undefined;
  if (issue.code === 'custom') {
    return issue.params?.whole ? issue.message : `${showValue(input)} ${issue.message}`;
  }
  if (issue.code === 'unrecognized_keys') return issue.message;
  if (issue.code === 'invalid_type' && issue.expected === 'object') {
    return input === undefined
      ? 'is missing: expected an object'
      : `${showValue(input)} is not an object`;
  }
  if (issue.code === 'invalid_type' && issue.expected === 'array') {
    return input === undefined
      ? 'is missing: expected a list'
      : `${showValue(input)} ${issue.message}`;
  }
  return issue.message;
}

/** Runs a schema; problems carry `prefix` before their path. */
export function check<T>(
  schema: z.ZodType<T>,
  value: unknown,
  prefix: readonly PropertyKey[] = [],
): { data: T } | { problems: Problem[] } {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return { data: result.data };
  return {
    problems: result.error.issues.map((issue) => ({
      path: formatPath([...prefix, ...issue.path]),
      message: issueText(issue),
    })),
  };
}

/** The schema of a whole config; relative paths in it start at `folder`. */
export const configSchema = config;
