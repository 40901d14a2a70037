/** What a config script may say. docs/CONFIG.md has the same with defaults and ranges, which live in limits.ts. */

import type { Policies } from './policies.ts';

/** Bytes: an integer, or text such as `'4KiB'`, `'1MiB'`, `'2GiB'` (B, KiB, MiB, GiB, TiB). */
export type Size = number | string;

/** Time: an integer of milliseconds, or text such as `'500ms'`, `'5s'`, `'2min'`, `'1h'`. */
export type Duration = number | string;

/**
 * Where a node keeps the volume's metadata (dirty maps, activity log, generations).
 * - `'internal-end'`: at the end of the backing disk (the default). The data begins where the disk begins.
 * - `'internal-start'`: at its start.
 * - `{ offset }`: at that byte of it, a multiple of 4 KiB; the data is what lies before.
 * - `{ file }`: in a separate file or block device; the whole backing disk is data.
 */
export type Metadata = 'internal-end' | 'internal-start' | { offset: Size } | { file: string };

/** The volume is `/dev/ublkb<id>`. Needs Linux >= 6.0 with ublk_drv, and root. */
export interface UblkFrontend {
  kind: 'ublk';
  /** N of `/dev/ublkbN`; without it the kernel chooses a free one. */
  id?: number;
  /** Requests that the device takes at once. */
  queueDepth?: number;
  /** Larger requests are split by the kernel. */
  maxIoBytes?: Size;
}

/** The volume is an NBD export, named as the volume. On a Unix socket, or on a loopback port. */
export interface NbdFrontend {
  kind: 'nbd';
  /** Path of the Unix socket (made with mode 0600); relative to the config script's folder. */
  socket?: string;
  /** A loopback address, with `port`, in place of `socket`. Default `'127.0.0.1'`. */
  host?: string;
  port?: number;
  /** Requests that one connection may have in flight. */
  queueDepth?: number;
  /** Connections served at once. */
  maxConnections?: number;
}

export type Frontend = UblkFrontend | NbdFrontend;

/** One node's copy of a volume. */
export interface VolumeNode {
  /** Block device or file with the data; relative to the config script's folder. */
  backing: string;
  /** Default `'internal-end'`. */
  metadata?: Metadata;
  /** `'host:port'` where its peers reach this node. It listens there, unless `listen` says otherwise. */
  address: string;
  /** `'host:port'` to listen on when `address` is not its own (NAT, a proxy); `false`: only dial the peers. */
  listen?: string | false;
  /** How the volume is offered while this node is primary. None: this node never offers it. */
  frontend?: Frontend;
  /** CPUs of the volume's native thread; without it the kernel chooses. */
  affinity?: number[];
  /** How long a start waits until a predecessor has let go of the disks. */
  lockTimeout?: Duration;
}

/** See docs/CONFIG.md for defaults and ranges. */
export interface Timeouts {
  /** An idle link is proved alive so often. */
  ping?: Duration;
  /** Nothing heard from the peer for so long: the link is given up and I/O goes on without it. */
  peerTimeout?: Duration;
  /** How long one attempt to connect may take. */
  connectTimeout?: Duration;
  /** Pause before the second attempt to connect; doubled after each failure. */
  retryMin?: Duration;
  /** Longest pause between two attempts. */
  retryMax?: Duration;
  /** After a crash: how long peers are asked before the I/O that waits goes on without their answer. */
  recoveryTimeout?: Duration;
}

/** The shared secret of a volume's nodes: itself, a file that holds it, or an environment variable. */
export type Secret = string | { file: string } | { env: string };

/**
 * When a write on the primary completes.
 * - `'C'`: when the peer's disk has it too.
 * - `'A'`: when the local disk has it and it is queued for sending; how far the peer may lag is `asyncWindow`.
 */
export type ConfigProtocol = 'A' | 'C';

/**
 * What an error of the disk or its metadata does to the requests of a primary.
 * - `'detach'`: it works on, without its disk, at its connected peer; without one as `'pass-on'`.
 * - `'pass-on'`: the request fails. After a failed flush, or an error of the metadata, no write succeeds any more.
 * - `'suspend'`: I/O waits until `tidemark resume`.
 */
export type OnIoError = 'detach' | 'pass-on' | 'suspend';

/** A volume: one replicated block device. */
export interface Volume extends Policies {
  /** Letters, digits, `.`, `_`, `-`; the same on all nodes. */
  name: string;
  /** The nodes that hold a copy, by name. The others are the peers of each. */
  nodes: Record<string, VolumeNode>;
  /** Default `'C'`. */
  protocol?: ConfigProtocol;
  /** Default `'detach'`. */
  onIoError?: OnIoError;
  /** Without a secret every address must be a loopback address. */
  secret?: Secret;
  /** What one bit of the dirty map stands for. Read by `tidemark create`. */
  chunkBytes?: Size;
  /** What one entry of the activity log stands for. Read by `tidemark create`. */
  extentBytes?: Size;
  /** How many extents may be hot at once. Read by `tidemark create`. */
  activityLogExtents?: number;
  timeouts?: Timeouts;
}

/** A config script's default export, when it has several volumes or names its node. */
export interface Config {
  /**
   * Which of the nodes this machine is. `--node` and TIDEMARK_NODE come first; without any, the host's name is taken
   * if it is a node's.
   */
  node?: string | ((host: { hostname: string }) => string);
  volumes: Volume[];
}
