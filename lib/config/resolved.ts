/**
 * A config after validation, for one node: defaults filled in, texts parsed, paths absolute. Plain data that crosses
 * threads: where the script has a policy function stands only that it is one (the policy worker has the function).
 */

import type { Address } from './address.ts';

export type MetadataPlace =
  | { placement: 'end' | 'start' }
  | { placement: 'offset'; offsetBytes: number }
  | { placement: 'external'; file: string };

export type FrontendConfig =
  | { kind: 'ublk'; id: number; queueDepth: number; maxIoBytes: number }
  | {
      kind: 'nbd';
      socket: string | null;
      host: string;
      port: number;
      queueDepth: number;
      maxConnections: number;
    };

export interface NodeConfig {
  name: string;
  backing: string;
  metadata: MetadataPlace;
  address: Address;
  listen: Address | null;
  frontend: FrontendConfig | null;
  affinity: number[];
  lockTimeoutMs: number;
}

export interface TimeoutsMs {
  ping: number;
  peerTimeout: number;
  connectTimeout: number;
  retryMin: number;
  retryMax: number;
  recoveryTimeout: number;
}

export interface WindowValue {
  writes: number;
  bytes: number;
}

/** A policy's value, or that the script has a function for it. */
export type PolicySource<T> = { kind: 'value'; value: T } | { kind: 'function' };

export interface PolicyConfig {
  asyncWindow: PolicySource<WindowValue>;
  flushIntervalMs: PolicySource<number>;
  selectPeers: PolicySource<string[]>;
  deadlineMs: number;
}

export type SecretSource = { value: string } | { file: string } | { env: string };

export interface VolumeConfig {
  name: string;
  protocol: 'A' | 'C';
  onIoError: 'detach' | 'pass-on' | 'suspend';
  secret: SecretSource | null;
  chunkBytes: number;
  extentBytes: number;
  activityLogExtents: number;
  timeouts: TimeoutsMs;
  policy: PolicyConfig;
  /** This node's copy. */
  local: NodeConfig;
  /** The other nodes, in the script's order. */
  peers: NodeConfig[];
}

export interface ResolvedConfig {
  /** The first volume's name, whether or not this node has it: names the daemon's socket together with `node`. */
  name: string;
  /** The script, absolute. */
  path: string;
  /** This node's name. */
  node: string;
  /** The volumes that have a copy on this node, in the script's order. */
  volumes: VolumeConfig[];
}
