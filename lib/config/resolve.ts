/** From what a config script exports to the validated config of one node. */

import { dirname } from 'node:path';
import { TidemarkError } from '../binding/errors.ts';
import { checkConsistency } from './consistency.ts';
import { definedKind } from './define.ts';
import { NODE_NAME_BYTES_MAX, ON_IO_ERROR, POLICY, TIMEOUTS } from './limits.ts';
import { ConfigError, type Problem, showValue } from './problems.ts';
import type {
  FrontendConfig,
  NodeConfig,
  PolicySource,
  ResolvedConfig,
  TimeoutsMs,
  VolumeConfig,
} from './resolved.ts';
import {
  check,
  checkName,
  configSchema,
  isFunctionMark,
  type OrFunction,
  type ParsedConfig,
  type ParsedVolume,
} from './schema.ts';
import type { Volume } from './types.ts';

export interface ResolveContext {
  /** Absolute path of the config script. */
  path: string;
  /** From `--node`, or from TIDEMARK_NODE; it comes before the script's own `node`. */
  node?: { name: string; source: string } | undefined;
  hostname: string;
}

export interface ResolveResult {
  config: ResolvedConfig;
  /** The script's own objects of `config.volumes`, whose functions the policy worker calls. */
  scripts: Volume[];
}

const EXPORT_EXPECTED =
  'the default export must be defineVolume({...}) or defineConfig({ volumes: [...] })';

type ParsedNode = ParsedVolume['nodes'][number];

function frontendConfig(parsed: ParsedNode['frontend']): FrontendConfig | null {
  if (parsed === undefined) return null;
  if (parsed.kind === 'ublk') return parsed;
  return {
    ...parsed,
    socket: parsed.socket ?? null,
    host: parsed.host ?? '127.0.0.1',
    port: parsed.port ?? 0,
  };
}

function nodeConfig(parsed: ParsedNode): NodeConfig {
  return {
    name: parsed.name,
    backing: parsed.backing,
    metadata: parsed.metadata ?? { placement: 'end' },
    address: parsed.address,
    listen: parsed.listen === undefined ? parsed.address : parsed.listen,
    frontend: frontendConfig(parsed.frontend),
    affinity: parsed.affinity ?? [],
    lockTimeoutMs: parsed.lockTimeout,
  };
}

function timeoutsMs(parsed: ParsedVolume['timeouts']): TimeoutsMs {
  const read = (name: keyof TimeoutsMs) => parsed?.[name] ?? TIMEOUTS[name].default;
  return {
    ping: read('ping'),
    peerTimeout: read('peerTimeout'),
    connectTimeout: read('connectTimeout'),
    retryMin: read('retryMin'),
    retryMax: read('retryMax'),
    recoveryTimeout: read('recoveryTimeout'),
  };
}

function source<T>(parsed: OrFunction<T> | undefined, fallback: T): PolicySource<T> {
  if (isFunctionMark(parsed)) return { kind: 'function' };
  return { kind: 'value', value: parsed === undefined ? fallback : (parsed as T) };
}

/** The volume as `node` sees it; null when the node has no copy of it. */
function volumeConfig(parsed: ParsedVolume, node: string): VolumeConfig | null {
  const local = parsed.nodes.find((entry) => entry.name === node);
  if (local === undefined) return null;
  const peers = parsed.nodes.filter((entry) => entry.name !== node);
  const peerNames = peers.map((peer) => peer.name);
  const select = source(parsed.selectPeers, peerNames);
  // One config serves all nodes: a node that is listed among the peers is never its own.
  if (select.kind === 'value') select.value = select.value.filter((name) => name !== node);
  return {
    name: parsed.name,
    protocol: parsed.protocol ?? 'C',
    onIoError: parsed.onIoError ?? ON_IO_ERROR[0],
    secret: parsed.secret ?? null,
    chunkBytes: parsed.chunkBytes,
    extentBytes: parsed.extentBytes,
    activityLogExtents: parsed.activityLogExtents,
    timeouts: timeoutsMs(parsed.timeouts),
    policy: {
      asyncWindow: source(parsed.asyncWindow, {
        writes: POLICY.windowWrites.default,
        bytes: POLICY.windowBytes.default,
      }),
      flushIntervalMs: source(parsed.flushInterval, POLICY.flushInterval.default),
      selectPeers: select,
      deadlineMs: parsed.policyDeadline,
    },
    local: nodeConfig(local),
    peers: peers.map(nodeConfig),
  };
}

function chooseNode(config: ParsedConfig, context: ResolveContext): string {
  const known = [...new Set(config.volumes.flatMap((volume) => volume.nodes.map((n) => n.name)))];
  const fail = (message: string): never => {
    throw new ConfigError(context.path, [{ path: 'node', message }]);
  };
  let name: unknown = context.hostname;
  let from = `this host's name`;
  if (context.node !== undefined) {
    name = context.node.name;
    from = context.node.source;
  } else if (typeof config.node === 'function') {
    name = config.node({ hostname: context.hostname });
    from = "the config's node()";
    const why = checkName(name, NODE_NAME_BYTES_MAX);
    if (why !== null) fail(`returned ${showValue(name)}, which ${why}`);
  } else if (config.node !== undefined) {
    name = config.node;
    from = "the config's 'node'";
  } else if (!known.includes(context.hostname)) {
    fail(
      `which node is this machine? ${known.join(', ')}: say --node NAME, TIDEMARK_NODE=NAME, or 'node' in defineConfig (its host name is '${context.hostname}')`,
    );
  }
  if (!known.includes(name as string)) {
    fail(`${showValue(name)} (${from}) is not a node of any volume (${known.join(', ')})`);
  }
  return name as string;
}

/**
 * Validates what a config script exports.
 * @throws ConfigError (code CONFIG) with every problem found.
 */
export function resolveConfig(exported: unknown, context: ResolveContext): ResolveResult {
  if (typeof exported !== 'object' || exported === null || Array.isArray(exported)) {
    const found = exported === undefined ? 'there is none' : `found ${showValue(exported)}`;
    throw new ConfigError(context.path, [{ path: '', message: `${EXPORT_EXPECTED}: ${found}` }]);
  }
  const folder = dirname(context.path);
  const kind = definedKind(exported) ?? ('volumes' in exported ? 'config' : 'volume');
  const single = kind === 'volume';
  const raw = (single ? { volumes: [exported] } : exported) as Record<string, unknown>;
  const rawVolumes = Array.isArray(raw.volumes) ? raw.volumes : [];
  const prefixes = rawVolumes.map((_, index) => (single ? [] : ['volumes', index]));

  const result = check(configSchema(folder), raw);
  const problems: Problem[] = [];
  if ('problems' in result) {
    // A lone volume is not at 'volumes[0]' of anything that its writer wrote.
    const strip = (path: string) => (single ? path.replace(/^volumes\[0\]\.?/, '') : path);
    problems.push(...result.problems.map((p) => ({ ...p, path: strip(p.path) })));
  }
  problems.push(...checkConsistency(rawVolumes, prefixes, folder));
  if (problems.length > 0 || !('data' in result)) throw new ConfigError(context.path, problems);

  const node = chooseNode(result.data, context);
  const volumes: VolumeConfig[] = [];
  const scripts: Volume[] = [];
  result.data.volumes.forEach((parsed, index) => {
    const volume = volumeConfig(parsed, node);
    if (volume === null) return;
    volumes.push(volume);
    scripts.push(rawVolumes[index] as Volume);
  });
  if (volumes.length === 0)
    throw new TidemarkError('CONFIG', `${context.path}: node ${node} has no volume`);
  return {
    config: { name: result.data.volumes[0]!.name, path: context.path, node, volumes },
    scripts,
  };
}
