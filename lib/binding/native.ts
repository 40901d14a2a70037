/**
 * What the native add-on offers, as JavaScript sees it. All 64-bit byte and chunk counts are numbers (exact up to 2^53);
 * generations and serials are 16-digit lower-case hex strings; node identities are 32-digit hex strings.
 *
 * Every failure is a {@link TidemarkError} with a stable `code` (lib/binding/errors.ts).
 */

export type Role = 'primary' | 'secondary';
export type DiskState =
  | 'Diskless'
  | 'Failed'
  | 'Inconsistent'
  | 'Outdated'
  | 'Consistent'
  | 'UpToDate';
export type ConnectionState =
  | 'StandAlone'
  | 'Prepared'
  | 'ExchangingMaps'
  | 'SyncSource'
  | 'SyncTarget'
  | 'Connected';
/** The core's words have 'B' too, which it does not implement. */
export type Protocol = 'A' | 'C';
export type SyncSide = 'none' | 'source' | 'target';

export interface NativeVolumeOptions {
  name: string;
  backing: string;
  /** Absent: internal metadata, found on the backing disk. */
  metadata?: string;
  placement?: 'end' | 'start' | 'offset' | 'external';
  metadataOffset?: number;
  affinity?: number[];
  lockTimeoutMs?: number;
  /** Start with I/O suspended (recovery asks the peers first, R18). */
  suspended?: boolean;
}

export interface AttachReport {
  volumeBytes: number;
  blockBytes: number;
  directIo: boolean;
  crashed: boolean;
  crashedPrimary: boolean;
  replayedExtents: number;
  replayedChunks: number;
  warnings: string[];
}

/** csrc/core/volume.h `HandshakeState`. */
export interface NativeHandshakeState {
  serial: string;
  idle: boolean;
  role: Role;
  disk: DiskState;
  volumeBytes: number;
  chunkBytes: number;
  nodeId: string;
  current: string;
  bitmap: string;
  history: string[];
  flags: number;
  /** -1: no slot bound to that peer. */
  slot: number;
  slotFlags: number;
  dirtyChunks: number;
}

/** csrc/core/volume.h `LinkParams`. */
export interface NativeLinkParams {
  serial: string;
  peerId: string;
  peerName: string;
  incarnation: number;
  protocol: Protocol;
  side: SyncSide;
  full: boolean;
  syncGeneration: string;
  peerCurrent: string;
  peerBitmap: string;
  peerHistory: string[];
  peerFlags: number;
  peerRole: Role;
  peerDisk: DiskState;
}

/** What an error of the disk does to a primary's requests (docs/STATES.md). */
export type OnIoError = 'pass-on' | 'detach' | 'suspend';

export interface NativeLimits {
  onIoError: OnIoError;
  windowWrites: number;
  windowBytes: number;
  flushIntervalMs: number;
  peerTimeoutMs: number;
  pingIntervalMs: number;
  resyncRequests: number;
}

/** csrc/core/volume.h `ThreadStatus`. */
export interface NativeThreadStatus {
  wakeups: number;
  requestBatches: number;
  linkSends: number;
  linkReceives: number;
}

/** csrc/core/volume.h `VolumeStatus`. */
export interface NativeStatus {
  nowUs: number;
  /** How old all this is; 0: of when it was asked for, as ever while the volume's thread answers. */
  ageUs: number;
  role: Role;
  disk: DiskState;
  connection: ConnectionState;
  /** Slot of the peer that the link leads to, -1 without. */
  linkSlot: number;
  peerRole: Role;
  peerDisk: DiskState;
  protocol: Protocol;
  volumeBytes: number;
  chunkBytes: number;
  extentBytes: number;
  logExtents: number;
  logHot: number;
  logTransactions: number;
  current: string;
  flags: number;
  staleMapBlocks: number;
  suspended: boolean;
  suspendReason: string;
  /** The error that the disk failed with, '' without. */
  diskReason: string;
  requestsInFlight: number;
  inFlightWrites: number;
  inFlightBytes: number;
  reads: number;
  writes: number;
  flushes: number;
  discards: number;
  readBytes: number;
  writtenBytes: number;
  diskErrors: number;
  remoteReads: number;
  sentBytes: number;
  receivedBytes: number;
  resyncSentBytes: number;
  resyncReceivedBytes: number;
  resyncWireBytes: number;
  markedByReplayChunks: number;
  /** Used slots only. */
  peers: Array<{
    slot: number;
    nodeId: string;
    name: string;
    flags: number;
    bitmapGeneration: string;
    dirtyChunks: number;
    dirtyBytes: number;
  }>;
  resync: {
    target: boolean;
    bytesDone: number;
    bytesTotal: number;
    startedUs: number;
    chunksSent: number;
    /** Source: those of the rest that cannot be read here; they are tried again. */
    unreadableChunks: number;
  } | null;
  thread: NativeThreadStatus;
  /** Path of the running frontend's device or socket, '' without. */
  device: string;
}

export type NativeEventKind =
  | 'linkDown'
  | 'linkIdle'
  | 'linkState'
  | 'control'
  | 'diskState'
  | 'role'
  | 'syncStarted'
  | 'syncFinished'
  | 'ioSuspended'
  | 'ioResumed'
  | 'ioError'
  | 'frontendFailed';

export interface NativeEvent {
  kind: NativeEventKind;
  /** Why, or for 'control' the peer's JSON text. */
  text: string;
}

export interface NbdOptions {
  /** Unix socket; or else loopback `host` and `port`. */
  socketPath?: string;
  host?: string;
  port?: number;
  exportName: string;
  maxConnections?: number;
  queueDepth?: number;
}

export interface UblkOptions {
  /** N of /dev/ublkbN; -1: the kernel chooses. */
  deviceId: number;
  queueDepth?: number;
  maxIoBytes?: number;
  /** Take over the quiesced device `deviceId`. */
  recover?: boolean;
}

export interface NativeCallbacks {
  /** In order, several at once. */
  events(events: NativeEvent[]): void;
  /** The send ring is no longer empty: call {@link NativeVolume.outgoing} until it is. */
  outgoing(): void;
  /** {@link NativeVolume.feed} took less than all before; there is room again. */
  room(): void;
}

/** One volume with its native thread. Use it in the thread that opened it. */
export interface NativeVolume {
  readonly attach: AttachReport;
  status(): NativeStatus;
  setLimits(limits: Partial<NativeLimits>): void;
  promote(force: boolean): Promise<void>;
  demote(): Promise<void>;
  /** Of the slot bound to this peer identity. */
  invalidate(peerId: string): Promise<void>;
  suspend(why: string): Promise<void>;
  resume(): Promise<void>;
  outdatePeer(): Promise<void>;

  /** Resolves with the device's path. */
  startNbd(options: NbdOptions): Promise<string>;
  startUblk(options: UblkOptions): Promise<string>;
  /** Rejects with code UBLK_BUSY while mounted or open, with NBD_BUSY while clients are connected; unless forced. */
  stopFrontend(force: boolean): Promise<void>;

  handshakeState(peerId: string): Promise<NativeHandshakeState>;
  /** Rejects with code LINK_STALE, LINK_BUSY, NO_SLOT, PRIMARY_TARGET. */
  linkPrepare(params: NativeLinkParams): Promise<void>;
  /** Empties the byte rings; call before linkPrepare. */
  resetLinkBytes(): void;
  linkStart(): Promise<boolean>;
  linkStop(why: string): void;
  sendControl(json: string): Promise<boolean>;

  /** Copies what fits, returns how many bytes that was. */
  feed(bytes: Uint8Array): number;
  /** The contiguous unread part of the send ring; empty when there is none. Valid until consumed() or close(). */
  outgoing(): Uint8Array;
  consumed(bytes: number): void;
  /**
   * From here on the volume's thread moves the link's bytes through this socket, instead of feed(), outgoing() and consumed(). It has a descriptor of
   * its own. Resolves with why that ended; the byte rings may be reset then. Rejects with code SOCKET. Absent where there are no
   * sockets: in the simulator.
   */
  takeSocket?(fd: number): Promise<string>;
  /** Ends what takeSocket() began. */
  dropSocket?(): void;

  /** Clean stop (or, with abandon, none: as if killed). Idempotent. */
  close(abandon?: boolean): Promise<void>;
}

export interface CreateOptions {
  backing: string;
  metadata?: string;
  placement?: 'end' | 'start' | 'offset' | 'external';
  metadataOffset?: number;
  chunkBytes?: number;
  extentBytes?: number;
  logExtents?: number;
  /** Volume's name, for people. */
  name: string;
  force?: boolean;
}

export interface CreateReport {
  volumeBytes: number;
  metadataBytes: number;
  dataOffset: number;
  metadataOffset: number;
  nodeId: string;
  /** What `force` was used on, for people: "'/dev/sdb' carries: ext4 filesystem". Outside of the metadata it stays. */
  overwritten: string[];
  warnings: string[];
}

/** Handshake frames are made and read with the same codec as the core's (docs/PROTOCOL.md). */
export interface HandshakeFrame {
  json: string;
  /** Bytes of the buffer that the frame took. */
  bytes: number;
}

export interface NativeAddon {
  readonly version: string;
  open(options: NativeVolumeOptions, callbacks: NativeCallbacks): NativeVolume;
  /** Rejects with code EXISTS when the disk carries something and `force` is not set. */
  create(options: CreateOptions): Promise<CreateReport>;
  /** JSON text; works for damaged metadata too. */
  dump(
    options: Pick<CreateOptions, 'backing' | 'metadata' | 'placement' | 'metadataOffset'>,
  ): Promise<string>;
  /** JSON text. */
  features(): string;
  encodeHandshake(json: string): Uint8Array;
  /** null: not enough bytes yet. Throws code FRAME for what cannot be right. */
  parseHandshake(bytes: Uint8Array): HandshakeFrame | null;
}
