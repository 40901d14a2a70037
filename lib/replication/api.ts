/**
 * What the main thread asks of the replication worker, and what it hears from it. lib/replication/client.ts implements {@link Replication}
 * over the worker's message port; lib/control uses it and knows nothing of sockets.
 */
import type {
  AttachReport,
  NativeStatus,
  NativeVolumeOptions,
  NbdOptions,
  OnIoError,
  Protocol,
  UblkOptions,
} from '../binding/native.ts';

/** A configured peer, after validation. */
export interface PeerSpec {
  name: string;
  /** Where the peer listens; the side with `connect` dials. */
  host: string;
  port: number;
  protocol: Protocol;
}

export interface VolumeSpec {
  name: string;
  /** This node's name in the config. */
  node: string;
  native: NativeVolumeOptions;
  onIoError: OnIoError;
  /** Where this node listens for peers; null: it only dials. */
  listen: { host: string; port: number } | null;
  peers: PeerSpec[];
  /** Shared secret; null is allowed with loopback addresses only. */
  secret: string | null;
  pingIntervalMs: number;
  peerTimeoutMs: number;
  connectTimeoutMs: number;
  /** Backoff of dialling: from min to max, doubled, with jitter. */
  retryMinMs: number;
  retryMaxMs: number;
}

export type FrontendSpec =
  | { kind: 'nbd'; options: NbdOptions }
  | { kind: 'ublk'; options: UblkOptions };

/** What policy decides; sent whenever it changes. */
export interface PolicyValues {
  windowWrites: number;
  windowBytes: number;
  flushIntervalMs: number;
  /** Names of the peers to use, the preferred first. One link at a time is made. */
  selectedPeers: string[];
}

/** What is known of a configured peer apart from the native status. */
export interface PeerLinkStatus {
  name: string;
  /** DRBD's words: StandAlone (told to be), Unconnected, Connecting, Handshake, then the native ConnectionState; and what refused it. */
  connection:
    | 'StandAlone'
    | 'Unconnected'
    | 'Connecting'
    | 'Handshake'
    | 'ExchangingMaps'
    | 'SyncSource'
    | 'SyncTarget'
    | 'Connected'
    | 'SplitBrain'
    | 'Unrelated'
    | 'Refused';
  /** Why it is not connected, for people; '' when it is. */
  reason: string;
  /** 32 hex digits, '' while never met. */
  nodeId: string;
  /** Native slot, -1 while never met. */
  slot: number;
  /** Tries since the last success. */
  attempts: number;
  /** It answered, or not, when one of us tried last; null while nobody did since the last link. */
  reachable: boolean | null;
}

export interface ReplicationStatus {
  native: NativeStatus;
  links: PeerLinkStatus[];
}

export interface ReplicationEvent {
  volume: string;
  /** 'peer-up', 'peer-down', 'link-state', 'disk', 'role', 'sync-started', 'sync-finished', 'suspended', 'resumed', 'error', 'frontend-failed', 'peer-seen', 'peer-refused' */
  kind: string;
  peer?: string;
  text: string;
}

export interface Replication {
  open(spec: VolumeSpec): Promise<AttachReport>;
  /** Start to dial and listen; before that a volume has no links. */
  startLinks(volume: string): Promise<void>;
  startFrontend(volume: string, frontend: FrontendSpec): Promise<string>;
  stopFrontend(volume: string, force: boolean): Promise<void>;
  promote(volume: string, force: boolean): Promise<void>;
  demote(volume: string): Promise<void>;
  /** Full resync from the named peer (or the only one). */
  invalidate(volume: string, peer: string): Promise<void>;
  /** All peers when no name is given. Orderly: a primary outdates its peer first. */
  disconnect(volume: string, peer?: string): Promise<void>;
  /** `discardMine`: in a split brain this side yields. */
  connect(volume: string, peer?: string, discardMine?: boolean): Promise<void>;
  setPolicy(volume: string, values: PolicyValues): Promise<void>;
  resume(volume: string): Promise<void>;
  status(volume: string): Promise<ReplicationStatus>;
  /** R18: has every selected peer answered or failed to within `deadlineMs`? Resolves with what speaks against going on, or null. */
  askPeers(volume: string, deadlineMs: number): Promise<string | null>;
  close(volume: string): Promise<void>;
  /** Ends the worker; volumes are closed cleanly first. */
  shutdown(): Promise<void>;
  onEvent(listener: (event: ReplicationEvent) => void): void;
  /** The worker died by itself. */
  onExit(listener: (error: Error) => void): void;
}
