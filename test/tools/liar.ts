// A peer that shakes hands as it should, with the shipped handshake, and then says whatever it likes.
import { randomBytes } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import type { NativeHandshakeState, NativeLinkParams } from '../../lib/binding/native.ts';
import { NODE_CONSISTENT, NODE_WAS_UP_TO_DATE } from '../../lib/replication/flags.ts';
import { Handshake, type HandshakeAction } from '../../lib/replication/handshake.ts';
import {
  decodeFrame,
  encodeFrame,
  type Frame,
  type FrameFields,
  type FrameName,
} from './frames.ts';

export interface LiarOptions {
  port: number;
  volume: string;
  /** Whom it claims to be, and whom it talks to. */
  node: string;
  nodeId: string;
  peer: string;
  secret: string | null;
  /** What it says of its copy. */
  state: Partial<NativeHandshakeState>;
  /** Replaces a handshake message before it is sent. */
  tamper?: (message: { type: string }) => unknown;
}

const NO_GENERATION = '0'.repeat(16);

/** Resolves when the connection is there; it is closed with the test at the latest, by its owner. */
export function dial(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      socket.on('error', () => {}); // 'close' follows.
      resolve(socket);
    });
  });
}

export class Liar {
  readonly socket: Socket;
  /** Resolves when the other side has hung up. */
  readonly closed: Promise<void>;
  /** Bytes that it has sent as a handshake, to be sent again elsewhere. */
  readonly spoken: Buffer[] = [];
  /** How it ended, without a link. */
  ended: (HandshakeAction & { do: 'end' }) | null = null;
  params: NativeLinkParams | null = null;
  started = false;
  /** Of the link, in order, unless it does not read. */
  readonly frames: Frame[] = [];
  private readonly handshake: Handshake;
  private readonly options: LiarOptions;
  private unread: Buffer = Buffer.alloc(0);
  private wake: () => void = () => {};

  private constructor(socket: Socket, options: LiarOptions) {
    this.socket = socket;
    this.options = options;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    void this.closed.then(() => this.wake());
    const { volume, node, nodeId, peer, secret } = options;
    this.handshake = new Handshake({
      end: 'dialer',
      volume,
      node,
      nodeId,
      peer,
      secret,
      isLoopback: () => true,
      protocol: 'C',
      nonce: randomBytes(32).toString('hex'),
      syncGeneration: randomBytes(8).toString('hex'),
    });
    socket.on('data', (bytes: Buffer) => this.receive(bytes));
    this.run(this.handshake.start());
  }

  static async dial(options: LiarOptions): Promise<Liar> {
    return new Liar(await dial(options.port), options);
  }

  /** With a link that is up. */
  static async link(options: LiarOptions): Promise<Liar> {
    const liar = await Liar.dial(options);
    await liar.until(() => liar.started);
    return liar;
  }

  /** Waits; throws when the connection ends before. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.socket.destroyed) {
        throw new Error(`the connection ended: ${JSON.stringify(this.ended)}`);
      }
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  say(name: FrameName, fields: FrameFields = {}): void {
    const incarnation = this.params?.incarnation ?? 0;
    this.socket.write(encodeFrame(name, { incarnation, ...fields }));
  }

  /** The frames of a type that came. */
  heard(type: number): Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  hangUp(): void {
    this.socket.destroy();
  }

  private receive(bytes: Buffer): void {
    this.unread = this.unread.length === 0 ? bytes : Buffer.concat([this.unread, bytes]);
    for (;;) {
      const frame = decodeFrame(this.unread);
      if (frame === null) break;
      this.unread = this.unread.subarray(frame.bytes);
      if (this.started) this.frames.push(frame);
      else this.run(this.handshake.message(frame.payload.toString('utf8')));
    }
    this.wake();
  }

  private run(actions: HandshakeAction[]): void {
    for (const action of actions) {
      if (action.do === 'send') {
        const message = this.options.tamper?.(action.message) ?? action.message;
        const bytes = encodeFrame('handshake', { payload: Buffer.from(JSON.stringify(message)) });
        this.spoken.push(bytes);
        this.socket.write(bytes);
      } else if (action.do === 'claim') this.run(this.handshake.claimed(null, 'secondary'));
      else if (action.do === 'state') {
        this.run(
          this.handshake.state({
            native: this.state(),
            discardMine: false,
            probe: false,
            otherIdentity: null,
          }),
        );
      } else if (action.do === 'prepare') {
        this.params = action.params;
        this.run(this.handshake.prepared());
      } else if (action.do === 'start') this.started = true;
      else this.ended = action;
    }
  }

  private state(): NativeHandshakeState {
    return {
      serial: NO_GENERATION,
      idle: true,
      role: 'secondary',
      disk: 'UpToDate',
      volumeBytes: 0,
      chunkBytes: 4096,
      nodeId: this.options.nodeId,
      current: NO_GENERATION,
      bitmap: NO_GENERATION,
      history: new Array<string>(8).fill(NO_GENERATION),
      flags: NODE_CONSISTENT | NODE_WAS_UP_TO_DATE,
      slot: -1,
      slotFlags: 0,
      dirtyChunks: 0,
      ...this.options.state,
    };
  }
}
