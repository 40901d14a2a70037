/**
 * The one home of every default and limit of a config script. The validation messages, the command line's help and
 * the tables of docs/CONFIG.md are made from it. Byte limits of the metadata repeat csrc/core/types.h and layout.h,
 * which refuse the same values.
 */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

export type Unit = 'bytes' | 'ms' | 'count';

/** What one number of a config may be. Both ends of the range belong to it. */
export interface Limit {
  readonly unit: Unit;
  readonly default: number;
  readonly min: number;
  readonly max: number;
  readonly powerOfTwo?: true;
  readonly multipleOf?: number;
  /** What it is, for docs/CONFIG.md. */
  readonly meaning: string;
}

const limit = <T extends Limit>(value: T): T => value;

/** The first is the default. */
export const ON_IO_ERROR = ['detach', 'pass-on', 'suspend'] as const;

/** Read by `tidemark create` only: they are fixed in the metadata afterwards. */
export const GEOMETRY = {
  chunkBytes: limit({
    unit: 'bytes',
    default: 4 * KIB,
    min: 4 * KIB,
    max: 64 * MIB,
    powerOfTwo: true,
    meaning: 'what one bit of the dirty map stands for',
  }),
  extentBytes: limit({
    unit: 'bytes',
    default: 4 * MIB,
    min: MIB,
    max: GIB,
    powerOfTwo: true,
    meaning: 'what one entry of the activity log stands for; not less than `chunkBytes`',
  }),
  activityLogExtents: limit({
    unit: 'count',
    default: 1237,
    min: 7,
    max: 65_534,
    meaning: 'extents that may be hot at once; after a crash these are resynced',
  }),
} as const;

export const TIMEOUTS = {
  ping: limit({
    unit: 'ms',
    default: SECOND_MS,
    min: 50,
    max: MINUTE_MS,
    meaning: 'an idle link is proved alive so often; less than `peerTimeout`',
  }),
  peerTimeout: limit({
    unit: 'ms',
    default: 6 * SECOND_MS,
    min: 100,
    max: 10 * MINUTE_MS,
    meaning:
      'nothing heard from the peer for so long, or less than 4 KiB of a frame: the link is given up, and I/O goes on without it',
  }),
  connectTimeout: limit({
    unit: 'ms',
    default: 5 * SECOND_MS,
    min: 100,
    max: 2 * MINUTE_MS,
    meaning: 'how long one attempt to connect may take',
  }),
  retryMin: limit({
    unit: 'ms',
    default: 500,
    min: 10,
    max: MINUTE_MS,
    meaning: 'pause before the second attempt to connect; doubled after each failure',
  }),
  retryMax: limit({
    unit: 'ms',
    default: 10 * SECOND_MS,
    min: 10,
    max: HOUR_MS,
    meaning: 'longest pause between two attempts; not less than `retryMin`',
  }),
  recoveryTimeout: limit({
    unit: 'ms',
    default: 10 * SECOND_MS,
    min: 100,
    max: HOUR_MS,
    meaning:
      'after a crash, how long peers are asked before the I/O that waits on the device goes on without their answer (R18)',
  }),
} as const;

export const POLICY = {
  windowWrites: limit({
    unit: 'count',
    default: 2048,
    min: 1,
    max: 65_536,
    meaning:
      'protocol A: writes sent and not yet known durable on the peer; at the bound a write waits',
  }),
  windowBytes: limit({
    unit: 'bytes',
    default: 64 * MIB,
    min: 4 * KIB,
    max: 16 * GIB,
    meaning:
      'protocol A: bytes sent and not yet known durable on the peer; at the bound a write waits',
  }),
  flushInterval: limit({
    unit: 'ms',
    default: 5 * SECOND_MS,
    min: 10,
    max: HOUR_MS,
    meaning: 'how often cleared bits are written to disk and idle extents leave the activity log',
  }),
  deadline: limit({
    unit: 'ms',
    default: SECOND_MS,
    min: 10,
    max: MINUTE_MS,
    meaning:
      'a policy function that takes longer has its worker replaced; the last good answer stays',
  }),
} as const;

export const UBLK = {
  id: limit({
    unit: 'count',
    default: -1,
    min: -1,
    max: 1_048_575,
    meaning: 'N of `/dev/ublkbN`; -1: the kernel chooses',
  }),
  queueDepth: limit({
    unit: 'count',
    default: 128,
    min: 1,
    max: 4096,
    meaning: 'requests that the device takes at once',
  }),
  maxIoBytes: limit({
    unit: 'bytes',
    default: 512 * KIB,
    min: 4 * KIB,
    max: MIB,
    multipleOf: 4 * KIB,
    meaning: 'the kernel splits larger requests',
  }),
} as const;

export const NBD = {
  queueDepth: limit({
    unit: 'count',
    default: 128,
    min: 1,
    max: 4096,
    meaning: 'requests that one connection may have in flight',
  }),
  maxConnections: limit({
    unit: 'count',
    default: 16,
    min: 1,
    max: 1024,
    meaning: 'connections served at once',
  }),
} as const;

export const BACKING = {
  metadataOffset: limit({
    unit: 'bytes',
    default: 0,
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    multipleOf: 4 * KIB,
    meaning: 'where the metadata starts on the backing disk; the data is what lies before it',
  }),
  lockTimeout: limit({
    unit: 'ms',
    default: 15 * SECOND_MS,
    min: 0,
    max: 10 * MINUTE_MS,
    meaning: 'how long a start waits for the disk locks of a predecessor (R12)',
  }),
  cpu: limit({
    unit: 'count',
    default: 0,
    min: 0,
    max: 1023,
    meaning: 'number of a CPU',
  }),
} as const;

/** Lengths, in bytes of UTF-8: names are stored in the superblock and in its peer slots. */
export const VOLUME_NAME_BYTES_MAX = 63;
export const NODE_NAME_BYTES_MAX = 31;
/** The metadata has a dirty map for each of 8 peers. */
export const NODES_MIN = 1;
export const NODES_MAX = 9;
export const VOLUMES_MAX = 64;

export const SECRET_BYTES_MIN = 8;
export const SECRET_BYTES_MAX = 1024;

export const PORT_MIN = 1;
export const PORT_MAX = 65_535;

/** The kernel's limit for the path of a Unix socket, without the final NUL. */
export const SOCKET_PATH_BYTES_MAX = 107;
