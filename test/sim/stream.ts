/**
 * One end of a simulated TCP connection, as lib/replication sees a stream. Bytes go from the writer's own memory, late and in parts, into
 * the pipe (send buffer, wire and receive buffer in one), and from there, in parts, to the other end. Every callback comes from the
 * scheduler, never from inside a call.
 */
import type { Stream, StreamHandler } from '../../lib/replication/transport.ts';
import type { Random } from './random.ts';
import type { Life } from './time.ts';

/** Bytes of one direction that are on their way, at most. */
const PIPE_BYTES = 512 * 1024;

export interface Splitting {
  /** Most bytes that move at once. */
  bytesMax: number;
  /** Once in so many moves it is a few bytes only; 0: never. */
  crumbOneIn: number;
}

/** A read buffer that is used again and again, as sockets that dial have one. */
const SCRATCH = Buffer.alloc(512 * 1024);

interface Pending {
  bytes: Uint8Array;
  at: number;
  done: ((error?: Error | null) => void) | undefined;
}

export type Micro =
  | 'opened'
  | 'send'
  | 'deliver'
  | 'end'
  | 'reset'
  | 'finished'
  | 'closed'
  | 'dial';

export class SimStream implements Stream {
  handler: StreamHandler | null = null;
  readonly node: number;
  readonly life: Life;
  readonly localAddress: string;
  readonly remoteAddress: string;
  peer: SimStream | null = null;
  state: 'connecting' | 'open' | 'finishing' | 'destroyed' | 'closed' = 'connecting';
  /** The dialled connection is there, and its owner does not know yet. */
  openDue = false;
  paused = false;
  /** From this end to the other. */
  pipe: Buffer[] = [];
  pipeBytes = 0;
  /** This end will send nothing more. */
  finSent = false;
  finSeen = false;
  /** The connection was reset, and this end does not know yet. */
  resetDue = false;
  #pending: Pending[] = [];

  constructor(node: number, life: Life, localAddress: string, remoteAddress: string) {
    this.node = node;
    this.life = life;
    this.localAddress = localAddress;
    this.remoteAddress = remoteAddress;
  }

  get writable(): boolean {
    return this.state === 'open' || this.state === 'connecting';
  }

  get over(): boolean {
    return this.state === 'closed' || !this.life.alive;
  }

  write(bytes: Uint8Array, done?: (error?: Error | null) => void): void {
    this.#pending.push({ bytes, at: 0, done });
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  destroySoon(): void {
    if (this.state === 'connecting') this.destroy();
    else if (this.state === 'open') this.state = 'finishing';
  }

  destroy(): void {
    if (this.state !== 'closed') this.state = 'destroyed';
  }

  /** What can happen to this end now; `reachable`: the wire to the other end works. */
  possible(reachable: boolean, into: Array<[SimStream, Micro]>): void {
    if (this.over) return;
    if (this.state === 'destroyed') {
      into.push([this, 'closed']);
      return;
    }
    if (this.openDue) {
      into.push([this, 'opened']);
      return;
    }
    if (this.state === 'connecting') return;
    const wants = this.#pending.length > 0;
    if (this.resetDue) {
      // A paused socket learns of it when it writes, or reads on.
      if (!this.paused || wants || this.state === 'finishing') into.push([this, 'reset']);
      return;
    }
    if (wants && this.finSent) {
      // What is between the two has closed this direction: who writes is told.
      into.push([this, 'reset']);
      return;
    }
    if (wants && this.pipeBytes < PIPE_BYTES) into.push([this, 'send']);
    if (!wants && this.state === 'finishing') into.push([this, 'finished']);
    const { peer } = this;
    if (!reachable || peer === null || this.paused) return;
    if (peer.pipeBytes > 0) into.push([this, 'deliver']);
    else if (peer.finSent && !this.finSeen) into.push([this, 'end']);
  }

  /** From the writer's memory into the pipe. */
  send(random: Random, splitting: Splitting): number {
    const first = this.#pending[0]!;
    const room = Math.min(PIPE_BYTES - this.pipeBytes, portion(random, splitting));
    const bytes = first.bytes.subarray(first.at, first.at + room);
    if (this.peer?.over !== true) {
      // Copied now and not at write(): memory that was used again too early shows.
      this.pipe.push(Buffer.from(bytes));
      this.pipeBytes += bytes.length;
    }
    first.at += bytes.length;
    if (first.at === first.bytes.length) {
      this.#pending.shift();
      first.done?.(null);
    }
    return bytes.length;
  }

  /** From the other end's pipe to the owner. */
  deliver(random: Random, splitting: Splitting): number {
    const peer = this.peer!;
    const first = peer.pipe[0]!;
    const count = Math.min(first.length, portion(random, splitting));
    const bytes = first.subarray(0, count);
    if (count === first.length) peer.pipe.shift();
    else peer.pipe[0] = first.subarray(count);
    peer.pipeBytes -= count;
    const reused = count <= SCRATCH.length && random.oneIn(2);
    if (reused) bytes.copy(SCRATCH);
    const goesOn = this.handler?.received(reused ? SCRATCH.subarray(0, count) : bytes);
    if (reused) SCRATCH.fill(0xee, 0, count);
    if (goesOn === false) this.paused = true;
    return count;
  }

  /** The last callback; what was not sent fails first, as a socket's writes do. */
  close(): void {
    this.state = 'closed';
    const pending = this.#pending;
    this.#pending = [];
    for (const { done } of pending) done?.(new Error('the socket was closed'));
    this.handler?.closed();
  }

  /** Bytes on their way to the other end that get lost: all behind a random one. */
  loseTail(random: Random): void {
    let keep = random.below(this.pipeBytes + 1);
    const kept: Buffer[] = [];
    this.pipeBytes = keep;
    for (const part of this.pipe) {
      if (keep <= 0) break;
      kept.push(part.subarray(0, keep));
      keep -= part.length;
    }
    this.pipe = kept;
  }

  loseAll(): void {
    this.pipe = [];
    this.pipeBytes = 0;
  }
}

function portion(random: Random, { bytesMax, crumbOneIn }: Splitting): number {
  return random.oneIn(crumbOneIn) ? random.between(1, 100) : random.between(1, bytesMax);
}
