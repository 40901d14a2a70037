/** One end of NodeSockets; told over its channel what to do. */

import { createConnection, createServer, type Socket } from 'node:net';

const FRAME_BYTES = 64 << 10;
const ACK_BYTES = 48;
const IN_FLIGHT = 16;
const READ_BYTES = 256 << 10;

interface Order {
  listen?: boolean;
  dial?: number;
  seconds?: number;
}

let peer: Socket | null = null;

process.on('message', ({ listen, dial, seconds }: Order) => {
  if (listen) waitForPeer();
  else if (dial !== undefined) receive(dial);
  else if (seconds !== undefined) send(seconds);
});
process.once('disconnect', () => process.exit(0));

function waitForPeer(): void {
  const server = createServer((socket) => {
    peer = socket.setNoDelay(true);
    server.close();
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port));
}

/** The end that receives the bulk dials: only a socket that dials reads into one buffer, which is the fastest way. */
function receive(port: number): void {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  let received = 0;
  const socket = createConnection({
    host: '127.0.0.1',
    port,
    onread: {
      buffer,
      callback(bytes) {
        const before = Math.floor(received / FRAME_BYTES);
        received += bytes;
        const frames = Math.floor(received / FRAME_BYTES) - before;
        if (frames > 0) socket.write(Buffer.alloc(frames * ACK_BYTES));
        return true;
      },
    },
  });
  socket.setNoDelay(true);
  socket.once('connect', () => process.send?.(true));
  socket.once('close', () => process.exit(0));
}

/** Answers with the bytes a second that were acknowledged. */
function send(seconds: number): void {
  const socket = peer;
  if (socket === null) throw new Error('nobody has dialled');
  const frame = Buffer.alloc(FRAME_BYTES, 1);
  const begin = performance.now();
  let ackBytes = 0;
  let sent = 0;
  const fill = () => {
    const acked = Math.floor(ackBytes / ACK_BYTES);
    const over = performance.now() - begin >= seconds * 1000;
    for (; !over && sent - acked < IN_FLIGHT; ++sent) socket.write(frame);
    if (sent > acked) return;
    socket.off('data', take);
    process.send?.((acked * FRAME_BYTES * 1000) / (performance.now() - begin));
  };
  const take = (data: Buffer) => {
    ackBytes += data.length;
    fill();
  };
  socket.on('data', take);
  fill();
}
