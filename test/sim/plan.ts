/** What a seed chooses before anything runs: the volume, the nodes, how fast and how wild things are. */
import type { TimeoutsMs, VolumeConfig } from '../../lib/config/resolved.ts';
import { LIMITS_OF_PLAN as L } from './limits.ts';
import type { MachineShape } from './machine.ts';
import type { Random } from './random.ts';
import type { Splitting } from './stream.ts';
import { THEMES, type ThemeName } from './theme_names.ts';

/** The last of the themes, which came later: they take seeds from the others, and leave what the rest of the seeds mean. */
const LATER = 3;
const LATER_ONE_IN = 8;

export interface PolicyPlan {
  window: 'value' | 'function';
  flushInterval: 'value' | 'function';
  selectPeers: 'value' | 'function';
  /** Once in so many calls a function throws; never answers. */
  throwsOneIn: number;
  hangsOneIn: number;
  /** Once in so many calls selectPeers selects nobody. */
  nobodyOneIn: number;
  windowWrites: number;
  windowBytes: number;
  flushIntervalMs: number;
  deadlineMs: number;
}

export interface Plan extends MachineShape {
  seed: number;
  theme: ThemeName;
  nodes: number;
  onIoError: VolumeConfig['onIoError'];
  protocol: 'A' | 'C';
  secret: string | null;
  frontend: 'ublk' | 'nbd';
  /** 0: as large as the machine has them. */
  sendRingBytes: number;
  receiveRingBytes: number;
  timeouts: TimeoutsMs;
  policy: PolicyPlan;
  splitting: Splitting;
  /** Mean virtual microseconds of a step. */
  stepUs: number;
  /** Shares of what happens next, of what can. */
  weights: { io: number; network: number; timer: number; request: number; deliver: number };
  /** Once in so many steps the JavaScript of a node is late; 0: never. */
  lateJsOneIn: number;
  /** Calls between control and replication take virtual time, as a message port's do. */
  slowPort: boolean;
  /** Steps of the wild part. */
  steps: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** Chunks of several pieces, of which some have arrived, and some have not. */
const CHUNKS: Partial<Record<ThemeName, readonly number[]>> = {
  'errors-in-resync': [16 * KIB, 64 * KIB, 1 * MIB],
  yielding: [64 * KIB, 1 * MIB, 1 * MIB],
};

export function makePlan(seed: number, random: Random): Plan {
  const plan = planOf(random.pick(THEMES.slice(0, -LATER)), seed, random);
  return random.oneIn(LATER_ONE_IN)
    ? planOf(random.pick(THEMES.slice(-LATER)), seed, random)
    : plan;
}

function planOf(theme: ThemeName, seed: number, random: Random): Plan {
  const third = theme === 'third-node' || theme === 'unmet-pairs';
  const tiny = theme === 'tiny-rings';
  const thrash = theme === 'log-thrash';
  const pingMs = random.pick([50, 100, 200]);
  const peerTimeoutMs = pingMs * random.pick([3, 5, 8]);
  const retryMinMs = random.pick([10, 30, 100]);
  const wild = !random.oneIn(4);
  const extents = thrash ? random.between(12, 24) : random.between(8, 16);
  // Maps are written often then, and by sweeps only.
  const yielding = theme === 'yielding';
  const functions = random.oneIn(3) && !yielding;
  return {
    seed,
    theme,
    nodes: third ? 3 : 2,
    onIoError: theme === 'disk-policies' ? random.pick(['detach', 'detach', 'suspend']) : 'pass-on',
    protocol:
      theme === 'flush-storm' || theme === 'fallen-primary'
        ? 'A'
        : random.pick(['A', 'C', 'C'] as const),
    secret: random.oneIn(3) ? 'a shared secret' : null,
    // A last chunk and a last extent that are shorter than the others, in some.
    volumeBytes: extents * MIB - (random.oneIn(3) ? random.between(1, 100) * 4 * KIB : 0),
    chunkBytes: random.pick(CHUNKS[theme] ?? [4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 1 * MIB]),
    extentBytes: MIB,
    logExtents: thrash ? L.logExtentsMin : random.pick(yielding ? [20, 61] : [7, 7, 8, 9, 20, 61]),
    blockBytes: random.oneIn(theme === 'unaligned' ? 1 : 3) ? 4096 : 512,
    metadata: random.oneIn(3) ? 'external' : 'internal',
    volatileCache: !random.oneIn(5),
    // A ublk device waits for a recovery; whoever had an NBD export is secondary after a crash.
    frontend:
      (random.oneIn(3) && theme !== 'recoveries') || theme === 'fallen-primary' ? 'nbd' : 'ublk',
    sendRingBytes: tiny ? L.ringBytesMin : 0,
    receiveRingBytes: tiny ? L.ringBytesMin : 0,
    timeouts: {
      ping: pingMs,
      peerTimeout: peerTimeoutMs,
      connectTimeout: random.pick([100, 300, 1000]),
      retryMin: retryMinMs,
      retryMax: retryMinMs * random.pick([2, 10, 30]),
      // Where somebody is always out of reach, it is always waited for.
      recoveryTimeout: theme === 'recoveries' ? 5000 : random.pick([200, 1000, third ? 500 : 5000]),
    },
    policy: {
      window: functions ? 'function' : 'value',
      flushInterval: functions ? 'function' : 'value',
      selectPeers: functions && random.oneIn(2) && !third ? 'function' : 'value',
      throwsOneIn: random.pick([0, 5, 20]),
      hangsOneIn: random.pick([0, 10, 40]),
      nobodyOneIn: random.pick([0, 0, 8]),
      // A write an epoch, with the smallest.
      windowWrites: random.pick(yielding ? [1, 4] : [1, 4, 32, 2048]),
      windowBytes: random.pick([4 * KIB, 64 * KIB, 64 * MIB]),
      flushIntervalMs: random.pick(yielding ? [10, 50, 200] : [10, 50, 200, 1000, 5000]),
      deadlineMs: random.pick([50, 500]),
    },
    splitting: {
      bytesMax: tiny ? 16 * KIB : random.pick([32 * KIB, 128 * KIB, 512 * KIB]),
      crumbOneIn: wild ? random.pick([0, 5, 50]) : 0,
    },
    stepUs: random.pick([20, 50, 100, 300]),
    weights: {
      io: random.pick([1, 4, 8, 16]),
      network: random.pick([1, 4, 8, 16]),
      timer: random.pick([2, 8]),
      request: random.pick([1, 4, 8]),
      deliver: random.pick([2, 8, 16]),
    },
    lateJsOneIn: wild ? random.pick([0, 2, 10]) : 0,
    slowPort: random.oneIn(3),
    // Their episodes are long.
    steps:
      theme === 'recoveries'
        ? random.between(3000, 5000)
        : theme === 'unmet-pairs'
          ? random.between(300, 1500)
          : random.between(1200, 3500),
  };
}

export function planText(plan: Plan): string {
  return JSON.stringify(plan);
}
