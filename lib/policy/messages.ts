/** What the policy worker and its host say to each other. */

import type { AsyncWindowFacts, FlushIntervalFacts, SelectPeersFacts } from '../config/policies.ts';
import type { Problem } from '../config/problems.ts';
import type { ResolvedConfig, WindowValue } from '../config/resolved.ts';

/** Each policy with its facts and its validated answer. */
export interface PolicyCalls {
  asyncWindow: { facts: AsyncWindowFacts; answer: WindowValue };
  /** Milliseconds. */
  flushInterval: { facts: FlushIntervalFacts; answer: number };
  /** Names of configured peers, the preferred first. */
  selectPeers: { facts: SelectPeersFacts; answer: string[] };
}

export type PolicyName = keyof PolicyCalls;

/** The worker's `workerData`. */
export interface ScriptSource {
  /** Absolute path of the config script. */
  path: string;
  node?: { name: string; source: string } | undefined;
  hostname: string;
}

export interface CallRequest {
  id: number;
  volume: string;
  policy: PolicyName;
  facts: unknown;
}

export type WorkerMessage =
  | { kind: 'loaded'; config: ResolvedConfig }
  | {
      kind: 'failed';
      code: string;
      message: string;
      path: string;
      problems: readonly Problem[] | null;
    }
  | { kind: 'answer'; id: number; value: unknown }
  /** `place`: 'file:line:column' in the script, or only its path. */
  | { kind: 'exception' | 'invalid'; id: number; place: string; message: string }
  /** Behind each of those: what the script holds outside the heap, in buffers. */
  | { kind: 'buffers'; bytes: number };
