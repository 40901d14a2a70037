/**
 * What is wrong between the fields of a config. It works on the script's own object, whatever that is, so that these
 * problems are told together with those of single fields.
 */

import { resolve } from 'node:path';
import { formatAddress, isLoopback, parseAddress } from './address.ts';
import { GEOMETRY, type Limit, TIMEOUTS } from './limits.ts';
import { formatPath, type Problem, showValue } from './problems.ts';
import { checkLimit, formatUnit, parseUnit } from './units.ts';

type Raw = Record<string, unknown>;

function asObject(value: unknown): Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Raw) : {};
}

/** The number that the field will have; null when the field itself is wrong. */
function effective(raw: unknown, limit: Limit): number | null {
  if (raw === undefined) return limit.default;
  return checkLimit(raw, limit) === null ? parseUnit(raw, limit.unit) : null;
}

class Findings {
  readonly problems: Problem[] = [];
  private readonly prefix: readonly PropertyKey[];

  constructor(prefix: readonly PropertyKey[]) {
    this.prefix = prefix;
  }

  add(path: PropertyKey[], message: string): void {
    this.problems.push({ path: formatPath([...this.prefix, ...path]), message });
  }
}

function checkOrder(
  found: Findings,
  path: PropertyKey[],
  lower: { name: string; raw: unknown; limit: Limit },
  upper: { name: string; raw: unknown; limit: Limit },
  relation: 'less than' | 'at most',
): void {
  const low = effective(lower.raw, lower.limit);
  const high = effective(upper.raw, upper.limit);
  if (low === null || high === null) return;
  if (relation === 'less than' ? low < high : low <= high) return;
  found.add(
    [...path, lower.name],
    `${formatUnit(low, lower.limit.unit)} must be ${relation} ${upper.name} (${formatUnit(high, upper.limit.unit)})`,
  );
}

/** Every address of a volume, with its path. */
function addresses(nodes: Raw): Array<{ path: PropertyKey[]; host: string; text: string }> {
  const result = [];
  for (const [name, rawNode] of Object.entries(nodes)) {
    for (const key of ['address', 'listen']) {
      const parsed = parseAddress(asObject(rawNode)[key]);
      if (parsed) {
        const text = formatAddress(parsed);
        result.push({ path: ['nodes', name, key], host: parsed.host, text });
      }
    }
  }
  return result;
}

function checkAddresses(found: Findings, volume: Raw, nodes: Raw): void {
  const list = addresses(nodes);
  if (volume.secret === undefined) {
    for (const { path, host, text } of list) {
      if (isLoopback(host)) continue;
      found.add(
        path,
        `'${text}' is not a loopback address: without a secret only 127.0.0.0/8, [::1] and localhost are allowed; set 'secret'`,
      );
    }
  }
  const owners = new Map<string, string>();
  for (const { path, text } of list.filter((entry) => entry.path[2] === 'address')) {
    const other = owners.get(text);
    if (other === undefined) owners.set(text, String(path[1]));
    else found.add(path, `'${text}' is the address of node ${other} too`);
  }
}

function checkNode(found: Findings, name: string, node: Raw, folder: string): void {
  const path = ['nodes', name];
  const metadata = asObject(node.metadata);
  if (typeof metadata.file === 'string' && typeof node.backing === 'string') {
    if (resolve(folder, metadata.file) === resolve(folder, node.backing)) {
      found.add(
        [...path, 'metadata', 'file'],
        `${showValue(metadata.file)} is the backing disk itself`,
      );
    }
  }
  if ('offset' in metadata && metadata.offset === undefined) {
    found.add([...path, 'metadata', 'offset'], 'is missing');
  }
  const frontend = asObject(node.frontend);
  if (frontend.kind !== 'nbd') return;
  const at = [...path, 'frontend'];
  if (frontend.socket === undefined && frontend.port === undefined) {
    found.add(at, "kind 'nbd' needs 'socket', or 'port' (on 'host', default 127.0.0.1)");
  }
  if (
    frontend.socket !== undefined &&
    (frontend.port !== undefined || frontend.host !== undefined)
  ) {
    found.add(at, "has both 'socket' and 'port' or 'host': one of them");
  }
  if (typeof frontend.host === 'string' && !isLoopback(frontend.host)) {
    found.add(
      [...at, 'host'],
      `'${frontend.host}' is not a loopback address: NBD is served on 127.0.0.0/8, ::1 and localhost only`,
    );
  }
}

function checkTimeouts(found: Findings, timeouts: Raw): void {
  const field = (name: keyof typeof TIMEOUTS) => ({
    name,
    raw: timeouts[name],
    limit: TIMEOUTS[name],
  });
  checkOrder(found, ['timeouts'], field('ping'), field('peerTimeout'), 'less than');
  checkOrder(found, ['timeouts'], field('retryMin'), field('retryMax'), 'at most');
}

function checkVolume(found: Findings, volume: Raw, folder: string): void {
  const nodes = asObject(volume.nodes);
  checkAddresses(found, volume, nodes);
  for (const [name, node] of Object.entries(nodes)) checkNode(found, name, asObject(node), folder);
  checkTimeouts(found, asObject(volume.timeouts));
  checkOrder(
    found,
    [],
    { name: 'chunkBytes', raw: volume.chunkBytes, limit: GEOMETRY.chunkBytes },
    { name: 'extentBytes', raw: volume.extentBytes, limit: GEOMETRY.extentBytes },
    'at most',
  );
  const select = typeof volume.selectPeers === 'string' ? [volume.selectPeers] : volume.selectPeers;
  if (!Array.isArray(select)) return;
  for (const peer of select) {
    if (typeof peer === 'string' && !(peer in nodes)) {
      found.add(['selectPeers'], `'${peer}' is not a node (${Object.keys(nodes).join(', ')})`);
    }
  }
}

/** What one node may have only once, over all volumes: a disk, a socket, a device, a port. */
function checkShared(
  config: readonly unknown[],
  prefixes: readonly PropertyKey[][],
  folder: string,
): Problem[] {
  const problems: Problem[] = [];
  const owners = new Map<string, string>();
  const claim = (key: string, path: string, what: string) => {
    const other = owners.get(key);
    if (other === undefined) owners.set(key, path);
    else problems.push({ path, message: `${what} is used by ${other} too` });
  };
  config.forEach((raw, index) => {
    const volume = asObject(raw);
    const at = (...path: PropertyKey[]) => formatPath([...prefixes[index]!, ...path]);
    if (typeof volume.name === 'string')
      claim(`name ${volume.name}`, at('name'), `'${volume.name}'`);
    for (const [name, rawNode] of Object.entries(asObject(volume.nodes))) {
      const node = asObject(rawNode);
      const frontend = asObject(node.frontend);
      const file = asObject(node.metadata).file;
      const own = (value: string) => `${name} ${value}`;
      if (typeof node.backing === 'string') {
        claim(
          own(`disk ${resolve(folder, node.backing)}`),
          at('nodes', name, 'backing'),
          `'${node.backing}'`,
        );
      }
      const backing = typeof node.backing === 'string' ? resolve(folder, node.backing) : '';
      if (typeof file === 'string' && resolve(folder, file) !== backing) {
        claim(
          own(`disk ${resolve(folder, file)}`),
          at('nodes', name, 'metadata', 'file'),
          `'${file}'`,
        );
      }
      const where = at('nodes', name, 'frontend');
      if (frontend.kind === 'ublk' && typeof frontend.id === 'number' && frontend.id >= 0) {
        claim(own(`ublk ${frontend.id}`), `${where}.id`, `/dev/ublkb${frontend.id}`);
      }
      if (frontend.kind === 'nbd' && typeof frontend.socket === 'string') {
        claim(
          own(`nbd ${resolve(folder, frontend.socket)}`),
          `${where}.socket`,
          `'${frontend.socket}'`,
        );
      }
      if (frontend.kind === 'nbd' && typeof frontend.port === 'number') {
        claim(
          own(`nbd ${frontend.host ?? '127.0.0.1'}:${frontend.port}`),
          `${where}.port`,
          `port ${frontend.port}`,
        );
      }
    }
  });
  return problems;
}

/** Problems between the fields of one volume, and between volumes. `prefixes`: the path of each volume. */
export function checkConsistency(
  volumes: readonly unknown[],
  prefixes: readonly PropertyKey[][],
  folder: string,
): Problem[] {
  const problems = volumes.flatMap((volume, index) => {
    const found = new Findings(prefixes[index]!);
    checkVolume(found, asObject(volume), folder);
    return found.problems;
  });
  return [...problems, ...checkShared(volumes, prefixes, folder)];
}
