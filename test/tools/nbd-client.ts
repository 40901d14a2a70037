// An NBD client of our own, since the scenarios want to know of every single write whether it was acknowledged.
import { createConnection, type Socket } from 'node:net';

const NBD_MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const CLIENT_FLAGS = 3; // fixed newstyle, no zeroes
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_INFO = 3;
const REPLY_HEADER_BYTES = 16;

const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, zeroes: 6 } as const;
export const FLAG_FUA = 1;

interface Waiting {
  resolve: (payload: Buffer) => void;
  reject: (error: Error) => void;
  bytes: number;
}

/** Thrown by requests whose connection ended before they were answered. */
export class NbdDisconnected extends Error {}

/** Cuts a stream into parts of a known length. */
class Intake {
  private chunks: Buffer[] = [];
  bytes = 0;

  push(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.bytes += chunk.length;
  }

  peek(bytes: number): Buffer | null {
    if (this.bytes < bytes) return null;
    if (this.chunks[0]!.length < bytes) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0]!.subarray(0, bytes);
  }

  take(bytes: number): Buffer | null {
    const part = this.peek(bytes);
    if (part === null) return null;
    const rest = this.chunks[0]!.subarray(bytes);
    if (rest.length > 0) this.chunks[0] = rest;
    else this.chunks.shift();
    this.bytes -= bytes;
    return part;
  }
}

export class NbdClient {
  sizeBytes = 0;
  private readonly socket: Socket;
  private readonly intake = new Intake();
  private readonly waiting = new Map<bigint, Waiting>();
  private nextCookie = 1n;
  private moved: () => void = () => {};
  private ready = false;

  private constructor(path: string) {
    this.socket = createConnection(path);
    this.socket.on('error', () => {}); // 'close' follows.
    this.socket.on('close', () => {
      for (const { reject } of this.waiting.values()) reject(new NbdDisconnected('NBD: closed'));
      this.waiting.clear();
      this.moved();
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.intake.push(chunk);
      if (this.ready) this.receive();
      else this.moved();
    });
  }

  static async connect(path: string, exportName: string): Promise<NbdClient> {
    const client = new NbdClient(path);
    try {
      await client.negotiate(exportName);
    } catch (error) {
      client.socket.destroy();
      throw error;
    }
    return client;
  }

  read(offset: number, bytes: number): Promise<Buffer> {
    return this.request(COMMAND.read, 0, offset, bytes);
  }

  async write(offset: number, data: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    await this.request(COMMAND.write, options.fua ? FLAG_FUA : 0, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.request(COMMAND.flush, 0, 0, 0);
  }

  async trim(offset: number, bytes: number): Promise<void> {
    await this.request(COMMAND.trim, 0, offset, bytes);
  }

  async zeroes(offset: number, bytes: number): Promise<void> {
    await this.request(COMMAND.zeroes, 0, offset, bytes);
  }

  async close(): Promise<void> {
    if (this.socket.destroyed) return;
    const closed = new Promise((resolve) => this.socket.once('close', resolve));
    this.socket.end(this.header(COMMAND.disconnect, 0, 0n, 0, 0));
    await closed;
  }

  private async negotiate(exportName: string): Promise<void> {
    if ((await this.pull(18)).readBigUInt64BE(0) !== NBD_MAGIC) throw new Error('NBD: no server');
    const name = Buffer.from(exportName);
    const go = Buffer.alloc(26 + name.length);
    go.writeUInt32BE(CLIENT_FLAGS, 0);
    go.writeBigUInt64BE(OPTION_MAGIC, 4);
    go.writeUInt32BE(OPTION_GO, 12);
    go.writeUInt32BE(6 + name.length, 16);
    go.writeUInt32BE(name.length, 20);
    name.copy(go, 24);
    this.socket.write(go);
    for (;;) {
      const reply = await this.pull(20);
      const type = reply.readUInt32BE(12);
      const payload = await this.pull(reply.readUInt32BE(16));
      if (type === REPLY_ACK) break;
      if (type !== REPLY_INFO) throw new Error(`NBD: '${exportName}': 0x${type.toString(16)}`);
      if (payload.readUInt16BE(0) === 0) this.sizeBytes = Number(payload.readBigUInt64BE(2));
    }
    this.ready = true;
  }

  private async pull(bytes: number): Promise<Buffer> {
    if (bytes === 0) return Buffer.alloc(0);
    for (;;) {
      const part = this.intake.take(bytes);
      if (part !== null) return Buffer.from(part);
      if (this.socket.destroyed) throw new NbdDisconnected('NBD: closed while negotiating');
      await new Promise<void>((resolve) => {
        this.moved = resolve;
      });
    }
  }

  private header(command: number, flags: number, cookie: bigint, offset: number, bytes: number) {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(bytes, 24);
    return header;
  }

  private request(
    command: number,
    flags: number,
    offset: number,
    bytes: number,
    data?: Uint8Array,
  ): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new NbdDisconnected('NBD: closed'));
        return;
      }
      const cookie = this.nextCookie;
      this.nextCookie += 1n;
      this.waiting.set(cookie, { resolve, reject, bytes: command === COMMAND.read ? bytes : 0 });
      const header = this.header(command, flags, cookie, offset, bytes);
      this.socket.write(data === undefined ? header : Buffer.concat([header, data]));
    });
  }

  private receive(): void {
    for (;;) {
      const header = this.intake.peek(REPLY_HEADER_BYTES);
      if (header === null) return;
      if (header.readUInt32BE(0) !== REPLY_MAGIC) {
        this.socket.destroy(new Error('NBD: a reply without its magic'));
        return;
      }
      const error = header.readUInt32BE(4);
      const cookie = header.readBigUInt64BE(8);
      const waiting = this.waiting.get(cookie);
      const payloadBytes = error === 0 ? (waiting?.bytes ?? 0) : 0;
      const reply = this.intake.take(REPLY_HEADER_BYTES + payloadBytes);
      if (reply === null) return;
      this.waiting.delete(cookie);
      if (error === 0) waiting?.resolve(Buffer.from(reply.subarray(REPLY_HEADER_BYTES)));
      else waiting?.reject(new Error(`NBD: the server answered with error ${error}`));
    }
  }
}
