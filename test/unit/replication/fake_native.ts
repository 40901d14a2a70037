/**
 * A native add-on in JavaScript, for tests of the shell around it: volumes without a disk, whose link carries control messages only.
 * It keeps what the real one promises of its link: order of events, -ESTALE, idle after a moment, one link at a time.
 */
import { randomBytes } from 'node:crypto';
import { TidemarkError } from '../../../lib/binding/errors.ts';
import type {
  NativeAddon,
  NativeCallbacks,
  NativeEvent,
  NativeHandshakeState,
  NativeLinkParams,
  NativeStatus,
  NativeVolume,
  NativeVolumeOptions,
  Role,
} from '../../../lib/binding/native.ts';
import { SLOT_IN_USE } from '../../../lib/replication/flags.ts';
import { nativeState } from './duet.ts';

const MAGIC = Buffer.from('FAKE');
const HEADER_BYTES = 8;

/** How one core tells the other its role, secondary or primary; nothing that the shell hears of. */
const ROLE_FRAMES = ['secondary', 'primary'];

function frame(json: string): Buffer {
  const body = Buffer.from(json);
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(body.length, 4);
  return Buffer.concat([header, body]);
}

function cut(bytes: Uint8Array): { json: string; bytes: number } | null {
  const buffer = Buffer.from(bytes);
  const magic = buffer.subarray(0, MAGIC.length);
  if (!MAGIC.subarray(0, magic.length).equals(magic)) {
    throw new TidemarkError('FRAME', 'these are not frames');
  }
  if (buffer.length < HEADER_BYTES) return null;
  const end = HEADER_BYTES + buffer.readUInt32LE(4);
  if (buffer.length < end) return null;
  return { json: buffer.toString('utf8', HEADER_BYTES, end), bytes: end };
}

export class FakeAddon implements NativeAddon {
  readonly version = '0.0.0';
  readonly volumes: FakeVolume[] = [];
  /** What volumes are opened with. */
  state: Partial<NativeHandshakeState> = {};

  open(_options: NativeVolumeOptions, callbacks: NativeCallbacks): NativeVolume {
    const volume = new FakeVolume(callbacks, this.state);
    this.volumes.push(volume);
    return volume;
  }

  /** The volume opened last. */
  get volume(): FakeVolume {
    return this.volumes.at(-1)!;
  }

  create(): never {
    throw new Error('not in this test');
  }

  dump(): never {
    throw new Error('not in this test');
  }

  features(): string {
    return '{}';
  }

  encodeHandshake(json: string): Uint8Array {
    return frame(json);
  }

  parseHandshake(bytes: Uint8Array): { json: string; bytes: number } | null {
    return cut(bytes);
  }
}

export class FakeVolume implements NativeVolume {
  readonly attach = {
    volumeBytes: 1 << 20,
    blockBytes: 512,
    directIo: false,
    crashed: false,
    crashedPrimary: false,
    replayedExtents: 0,
    replayedChunks: 0,
    warnings: [],
  };
  readonly #callbacks: NativeCallbacks;
  state: NativeHandshakeState;
  /** Every linkPrepare that was accepted. */
  readonly prepared: NativeLinkParams[] = [];
  /** Codes with which the next linkPrepares fail. */
  failures: string[] = [];
  /** feed() takes at most so many bytes until room() is told. */
  feedLimit = Number.POSITIVE_INFINITY;
  peers: NativeStatus['peers'] = [];
  suspended = false;
  invalidated: string[] = [];
  outdated = 0;
  closed = false;
  #serial = 1;
  #link: { params: NativeLinkParams; started: boolean } | null = null;
  #idle = true;
  #out: Buffer = Buffer.alloc(0);
  #in: Buffer = Buffer.alloc(0);

  constructor(callbacks: NativeCallbacks, state: Partial<NativeHandshakeState>) {
    this.#callbacks = callbacks;
    this.state = nativeState(randomBytes(16).toString('hex'), { slot: -1, ...state });
  }

  #emit(...events: NativeEvent[]): void {
    setImmediate(() => {
      if (!this.closed) this.#callbacks.events(events);
    });
  }

  #changed(): void {
    this.#serial += 1;
  }

  /** As if a write had made a new generation. */
  change(state: Partial<NativeHandshakeState>): void {
    Object.assign(this.state, state);
    this.#changed();
  }

  status(): NativeStatus {
    const link = this.#link;
    return {
      role: this.state.role,
      disk: this.state.disk,
      connection: link ? (link.started ? 'Connected' : 'Prepared') : 'StandAlone',
      peerRole: link?.params.peerRole ?? 'secondary',
      peerDisk: link?.params.peerDisk ?? 'Diskless',
      suspended: this.suspended,
      peers: this.peers,
      device: '',
      // The shell looks at nothing else.
    } as NativeStatus;
  }

  setLimits(): void {}

  async #setRole(role: Role): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.change({ role });
    if (this.#link?.started) this.#send(ROLE_FRAMES[role === 'primary' ? 1 : 0]!);
    this.#emit({ kind: 'role', text: role });
  }

  promote(): Promise<void> {
    return this.#setRole('primary');
  }

  demote(): Promise<void> {
    return this.#setRole('secondary');
  }

  async invalidate(peerId: string): Promise<void> {
    if (this.#link || !this.#idle) throw new TidemarkError('BUSY', 'the link must be down first');
    this.invalidated.push(peerId);
    this.change({ disk: 'Inconsistent' });
  }

  async suspend(): Promise<void> {
    this.suspended = true;
  }

  async resume(): Promise<void> {
    this.suspended = false;
  }

  async outdatePeer(): Promise<void> {
    this.outdated += 1;
  }

  async startNbd(): Promise<string> {
    return '/nowhere';
  }

  async startUblk(): Promise<string> {
    return '/nowhere';
  }

  async stopFrontend(): Promise<void> {}

  async handshakeState(peerId: string): Promise<NativeHandshakeState> {
    const bound = this.peers.find((each) => each.nodeId === peerId);
    return {
      ...this.state,
      history: [...this.state.history],
      serial: this.#serial.toString(16).padStart(16, '0'),
      idle: this.#idle && !this.#link,
      slot: bound?.slot ?? -1,
      slotFlags: bound ? this.state.slotFlags : 0,
    };
  }

  async linkPrepare(params: NativeLinkParams): Promise<void> {
    const failure = this.failures.shift();
    if (failure !== undefined) throw new TidemarkError(failure, `told to fail with ${failure}`);
    if (this.#link || !this.#idle) throw new TidemarkError('LINK_BUSY', 'another link');
    if (Number.parseInt(params.serial, 16) !== this.#serial) {
      throw new TidemarkError('LINK_STALE', 'serial');
    }
    this.prepared.push(params);
    this.#link = { params: { ...params }, started: false };
    this.#idle = false;
    if (!this.peers.some((each) => each.nodeId === params.peerId)) {
      this.peers.push({
        slot: this.peers.length,
        nodeId: params.peerId,
        name: params.peerName,
        flags: SLOT_IN_USE,
        bitmapGeneration: '0'.repeat(16),
        dirtyChunks: 0,
        dirtyBytes: 0,
      });
    }
    this.#changed();
  }

  resetLinkBytes(): void {
    this.#in = Buffer.alloc(0);
    this.#out = Buffer.alloc(0);
  }

  async linkStart(): Promise<boolean> {
    if (!this.#link) return false;
    this.#link.started = true;
    this.#emit({ kind: 'linkState', text: 'Connected' });
    return true;
  }

  linkStop(why: string): void {
    if (!this.#link) return;
    this.#link = null;
    this.#changed();
    this.#emit({ kind: 'linkDown', text: why });
    // The last write of the link ends a little later.
    setTimeout(() => {
      this.#idle = true;
      this.#emit({ kind: 'linkIdle', text: '' });
    }, 5);
  }

  async sendControl(json: string): Promise<boolean> {
    if (!this.#link?.started) return false;
    this.#send(json);
    return true;
  }

  #send(json: string): void {
    const wasEmpty = this.#out.length === 0;
    this.#out = Buffer.concat([this.#out, frame(json)]);
    if (wasEmpty) setImmediate(() => this.#callbacks.outgoing());
  }

  feed(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.feedLimit);
    this.#in = Buffer.concat([this.#in, bytes.subarray(0, taken)]);
    if (taken < bytes.length) setImmediate(() => this.#callbacks.room());
    if (!this.#link) return bytes.length;
    for (;;) {
      const next = this.#in.length === 0 ? null : cut(this.#in);
      if (!next) return taken;
      this.#in = this.#in.subarray(next.bytes);
      const role = ROLE_FRAMES.indexOf(next.json);
      if (role < 0) this.#emit({ kind: 'control', text: next.json });
      else this.#link.params.peerRole = role === 1 ? 'primary' : 'secondary';
    }
  }

  outgoing(): Uint8Array {
    return this.#out;
  }

  consumed(bytes: number): void {
    this.#out = this.#out.subarray(bytes);
  }

  async close(): Promise<void> {
    this.closed = true;
    this.#link = null;
  }
}
