/**
 * One TCP connection: handshake messages first, then the link's bytes between the socket and the native volume, in batches.
 *
 *   messages  bytes are cut into handshake frames; each goes to the handler
 *   held      the peer's last message came: what follows belongs to the link; the socket is paused, what came is kept
 *   link      received bytes go to feed(), the send ring goes to socket.write()
 *   lent      as link, but a stream with a descriptor: the volume's own thread moves the bytes, and JavaScript sees none
 *   ended     nothing any more
 *
 * Memory of the send ring is handed to the socket as it is: one write at a time is under way, and the ring is told that the
 * bytes are consumed when the socket is done with them. So the ring must not be reset before `closed` resolves.
 */
import type { NativeAddon, NativeVolume } from '../binding/native.ts';
import { ByteQueue } from './byte_queue.ts';
import type { Clock } from './clock.ts';
import { type HandshakeMessage, MESSAGE_BYTES_MAX } from './messages.ts';
import type { Address, Stream, Transport } from './transport.ts';

export type Codec = Pick<NativeAddon, 'encodeHandshake' | 'parseHandshake'>;
export type LinkBytes = Pick<
  NativeVolume,
  'feed' | 'outgoing' | 'consumed' | 'takeSocket' | 'dropSocket'
>;

export interface ConnectionWorld {
  addon: Codec;
  clock: Clock;
  transport: Transport;
}

export interface ConnectionHandler {
  opened(): void;
  message(json: string): void;
  /** Bytes that are no handshake. */
  garbage(reason: string): void;
  closed(reason: string): void;
}

/** A frame's header and more than that. */
const FRAME_OVERHEAD_BYTES = 4096;
/** Bytes of one write: small enough that the ring's room comes back while the rest is being sent. */
const WRITE_BYTES_MAX = 1 << 20;
/** How long a last message may take to leave. */
const FINISH_MS = 1_000;

export class Connection {
  readonly #codec: Codec;
  readonly #clock: Clock;
  readonly #stream: Stream;
  readonly incoming: boolean;
  /** The stream is gone, and with it every use of the send ring's memory. */
  readonly closed: Promise<void>;
  handler: ConnectionHandler | null = null;
  #mode: 'messages' | 'held' | 'link' | 'lent' | 'ended' = 'messages';
  readonly #unread = new ByteQueue();
  #link: LinkBytes | null = null;
  #writing = false;
  /** The volume's thread uses the stream's socket. */
  #lent = false;
  #reason = '';
  #cancelFinish: () => void = () => {};

  private constructor(
    stream: Stream,
    { addon, clock }: Pick<ConnectionWorld, 'addon' | 'clock'>,
    incoming: boolean,
  ) {
    this.#stream = stream;
    this.#codec = addon;
    this.#clock = clock;
    this.incoming = incoming;
    this.closed = new Promise((resolve) => {
      stream.handler = {
        opened: () => this.handler?.opened(),
        received: (bytes) => this.receive(bytes),
        ending: (reason) => {
          this.#reason ||= reason;
        },
        closed: () => {
          this.#mode = 'ended';
          this.#cancelFinish();
          resolve();
          this.handler?.closed(this.#reason || 'the connection was closed');
        },
      };
    });
  }

  static dial(address: Address, world: ConnectionWorld): Connection {
    return new Connection(world.transport.dial(address), world, false);
  }

  static accepted(stream: Stream, world: Pick<ConnectionWorld, 'addon' | 'clock'>): Connection {
    return new Connection(stream, world, true);
  }

  get localAddress(): string | undefined {
    return this.#stream.localAddress;
  }

  get remoteAddress(): string | undefined {
    return this.#stream.remoteAddress;
  }

  send(message: HandshakeMessage): void {
    if (this.#mode === 'ended' || !this.#stream.writable) return;
    this.#stream.write(this.#codec.encodeHandshake(JSON.stringify(message)));
  }

  /** No more messages: what comes now is kept for the link. */
  hold(): void {
    if (this.#mode !== 'messages') return;
    this.#mode = 'held';
    this.#stream.pause();
  }

  /** From here on bytes go between the socket and the native volume. */
  attach(link: LinkBytes): void {
    if (this.#mode !== 'held') return;
    this.#link = link;
    const { descriptor } = this.#stream;
    if (descriptor !== undefined && link.takeSocket && this.#feedUnread()) {
      this.#lend(descriptor);
      return;
    }
    this.#moveBytes();
  }

  #moveBytes(): void {
    this.#mode = 'link';
    this.#lent = false;
    this.drainReceived();
    this.drainOutgoing();
  }

  /** The stream is paused, and stays so. */
  #lend(descriptor: number): void {
    this.#mode = 'lent';
    this.#lent = true;
    const ended = (reason: string) => {
      this.#mode = 'ended';
      this.#lent = false;
      this.#reason ||= reason;
      this.#stream.destroy();
    };
    this.#link!.takeSocket!(descriptor).then(ended, (error: NodeJS.ErrnoException) => {
      // No descriptor was left for it: the bytes go through here.
      if (error.code === 'SOCKET' && this.#mode === 'lent') this.#moveBytes();
      else ended(error.message);
    });
  }

  /** Whether the volume has all that had come already. */
  #feedUnread(): boolean {
    if (this.#unread.length > 0) this.#unread.consume(this.#link!.feed(this.#unread.bytes));
    return this.#unread.length === 0;
  }

  /** The native volume has room again. */
  drainReceived(): void {
    if (this.#mode !== 'link') return;
    if (this.#feedUnread()) this.#stream.resume();
  }

  /** The send ring is not empty. */
  drainOutgoing(): void {
    if (this.#mode !== 'link' || this.#writing) return;
    const bytes = this.#link!.outgoing().subarray(0, WRITE_BYTES_MAX);
    if (bytes.length === 0) return;
    this.#writing = true;
    this.#stream.write(bytes, (error) => {
      this.#writing = false;
      if (error || this.#mode !== 'link') return;
      this.#link!.consumed(bytes.length);
      this.drainOutgoing();
    });
  }

  /** Ends after what was sent has left. */
  finish(): void {
    if (this.#mode === 'ended') return;
    if (this.#lent) {
      this.destroy();
      return;
    }
    this.#mode = 'ended';
    this.#stream.destroySoon();
    this.#cancelFinish = this.#clock.after(FINISH_MS, () => this.#stream.destroy());
    // What still comes is thrown away; without reading, the end of the peer is not seen.
    this.#stream.resume();
  }

  /** Ends at once. */
  destroy(): void {
    this.#mode = 'ended';
    // Its other end gives it back, and the stream ends then.
    if (this.#lent) this.#link!.dropSocket!();
    else this.#stream.destroy();
  }

  /** Returns false to pause the stream. */
  receive(bytes: Buffer): boolean {
    if (this.#mode === 'ended') return true;
    if (this.#mode === 'link') return this.#receiveLink(bytes);
    this.#unread.append(bytes);
    this.#cutMessages();
    return this.#mode !== 'held';
  }

  #receiveLink(bytes: Buffer): boolean {
    // Paused, but some more had been read already.
    const fed = this.#unread.length > 0 ? 0 : this.#link!.feed(bytes);
    if (fed === bytes.length) return true;
    this.#unread.append(bytes.subarray(fed));
    return false;
  }

  #cutMessages(): void {
    // The handler may change the mode: after hold() the bytes are the link's.
    while (this.#mode === 'messages' && this.#unread.length > 0) {
      let frame: ReturnType<Codec['parseHandshake']>;
      try {
        frame = this.#codec.parseHandshake(this.#unread.bytes);
      } catch (error) {
        this.#refuse((error as Error).message);
        return;
      }
      if (frame === null) {
        if (this.#unread.length <= MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES) return;
        this.#refuse(`a handshake message of more than ${MESSAGE_BYTES_MAX} bytes`);
        return;
      }
      this.#unread.consume(frame.bytes);
      this.handler?.message(frame.json);
    }
    if (this.#mode === 'ended') this.#unread.clear();
  }

  #refuse(garbage: string): void {
    this.#unread.clear();
    this.handler?.garbage(garbage);
  }
}
