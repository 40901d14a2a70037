/** A small NBD client: enough to write to an export and to flush it. */

import { createConnection, type Socket } from 'node:net';
import { TidemarkError } from '../binding/errors.ts';

const NBD_MAGIC = 0x4e42444d41474943n; // "NBDMAGIC"
const OPTION_MAGIC = 0x49484156454f5054n; // "IHAVEOPT"
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const FIXED_NEWSTYLE_NO_ZEROES = 3;
const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
const INFO_EXPORT = 0;
const CMD_READ = 0;
const CMD_WRITE = 1;
const CMD_DISCONNECT = 2;
const CMD_FLUSH = 3;

interface Waiting {
  resolve(data: Buffer): void;
  reject(error: Error): void;
  bytes: number;
}

export class NbdClient {
  /** Size of the export, bytes. */
  readonly bytes: number;
  private readonly socket: Socket;
  private readonly waiting = new Map<bigint, Waiting>();
  private next = 1n;
  private unread: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket, bytes: number, unread: Buffer) {
    this.socket = socket;
    this.bytes = bytes;
    this.unread = unread;
    socket.on('data', (data: Buffer) => this.receive(data));
    socket.on('close', () => this.fail(new TidemarkError('NBD', 'the NBD server went away')));
  }

  /** @throws TidemarkError NBD when the server refuses, or is none. */
  static async connect(path: string, exportName: string): Promise<NbdClient> {
    const socket = createConnection(path);
    socket.on('error', () => socket.destroy());
    const reader = new Reader(socket);
    if ((await reader.take(16)).readBigUInt64BE(0) !== NBD_MAGIC) throw wrong('no NBD server');
    await reader.take(2);
    const name = Buffer.from(exportName);
    const hello = Buffer.alloc(4 + 16 + 6 + name.length);
    hello.writeUInt32BE(FIXED_NEWSTYLE_NO_ZEROES, 0);
    hello.writeBigUInt64BE(OPTION_MAGIC, 4);
    hello.writeUInt32BE(OPT_GO, 12);
    hello.writeUInt32BE(6 + name.length, 16);
    hello.writeUInt32BE(name.length, 20);
    name.copy(hello, 24);
    socket.write(hello);
    let bytes = -1;
    for (;;) {
      const header = await reader.take(20);
      if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw wrong('no option reply');
      const type = header.readUInt32BE(12);
      const data = await reader.take(header.readUInt32BE(16));
      if (type === REP_ACK) break;
      if (type !== REP_INFO) throw wrong(`export '${exportName}' refused (${type.toString(16)})`);
      if (data.readUInt16BE(0) === INFO_EXPORT) bytes = Number(data.readBigUInt64BE(2));
    }
    return new NbdClient(socket, bytes, reader.end());
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await this.request(CMD_WRITE, offset, data.length, data);
  }

  read(offset: number, bytes: number): Promise<Buffer> {
    return this.request(CMD_READ, offset, bytes);
  }

  async flush(): Promise<void> {
    await this.request(CMD_FLUSH, 0, 0);
  }

  async close(): Promise<void> {
    if (this.socket.destroyed) return;
    const closed = new Promise((resolve) => this.socket.once('close', resolve));
    this.socket.end(this.header(CMD_DISCONNECT, 0n, 0, 0));
    await closed;
  }

  private header(command: number, cookie: bigint, offset: number, bytes: number): Buffer {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(bytes, 24);
    return header;
  }

  private request(command: number, offset: number, bytes: number, data?: Buffer): Promise<Buffer> {
    const cookie = this.next++;
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new TidemarkError('NBD', 'the NBD server went away'));
        return;
      }
      this.waiting.set(cookie, { resolve, reject, bytes: command === CMD_READ ? bytes : 0 });
      this.socket.cork();
      this.socket.write(this.header(command, cookie, offset, bytes));
      if (data !== undefined) this.socket.write(data);
      this.socket.uncork();
    });
  }

  private receive(data: Buffer): void {
    this.unread = this.unread.length === 0 ? data : Buffer.concat([this.unread, data]);
    while (this.unread.length >= 16) {
      if (this.unread.readUInt32BE(0) !== REPLY_MAGIC) {
        this.fail(wrong('a reply without its magic'));
        return;
      }
      const cookie = this.unread.readBigUInt64BE(8);
      const waiting = this.waiting.get(cookie);
      if (waiting === undefined) {
        this.fail(wrong('a reply that nobody waits for'));
        return;
      }
      const error = this.unread.readUInt32BE(4);
      const end = 16 + (error === 0 ? waiting.bytes : 0);
      if (this.unread.length < end) return;
      const payload = Buffer.from(this.unread.subarray(16, end));
      this.unread = this.unread.subarray(end);
      this.waiting.delete(cookie);
      if (error === 0) waiting.resolve(payload);
      else waiting.reject(new TidemarkError('NBD', `the NBD server answered with error ${error}`));
    }
  }

  private fail(error: Error): void {
    this.socket.destroy();
    for (const waiting of this.waiting.values()) waiting.reject(error);
    this.waiting.clear();
  }
}

function wrong(what: string): TidemarkError {
  return new TidemarkError('NBD', `NBD negotiation failed: ${what}`);
}

/** Exact numbers of bytes from a socket, while the protocol is still a dialogue. */
class Reader {
  private unread: Buffer = Buffer.alloc(0);
  private wake: (() => void) | null = null;
  private ended = false;
  private readonly socket: Socket;
  private readonly onData = (data: Buffer): void => {
    this.unread = Buffer.concat([this.unread, data]);
    this.wake?.();
  };
  private readonly onClose = (): void => {
    this.ended = true;
    this.wake?.();
  };

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', this.onData).on('close', this.onClose);
  }

  async take(bytes: number): Promise<Buffer> {
    while (this.unread.length < bytes) {
      if (this.ended) throw wrong('the server closed the connection');
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    const out = this.unread.subarray(0, bytes);
    this.unread = this.unread.subarray(bytes);
    return out;
  }

  /** Stops listening; returns what was read too much. */
  end(): Buffer {
    this.socket.off('data', this.onData).off('close', this.onClose);
    return this.unread;
  }
}
