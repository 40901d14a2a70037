// `node crowd.mjs PORT COUNT`: connects to a loopback port so many times, says nothing on any of the connections, and closes
// none of them, also when the other side has. Prints 'N connected' when all were taken, and holds them until it is killed.
import { createConnection } from 'node:net';

const [port, count] = process.argv.slice(2).map(Number);
/** Less than what a listening socket lets wait. */
const WAVE = 250;

const sockets = [];

function join() {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true });
    sockets.push(socket);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      // Being hung up on is no error.
      socket.on('error', () => {});
      socket.resume();
      resolve();
    });
  });
}

while (sockets.length < count) {
  const wave = Math.min(WAVE, count - sockets.length);
  await Promise.all(Array.from({ length: wave }, join));
}
process.stdout.write(`${sockets.length} connected\n`);
setInterval(() => {}, 1 << 30);
