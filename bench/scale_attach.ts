/**
 * A process of its own that attaches one copy and says what that took: its peak of memory is the attach's. Given blocks to write, it
 * serves the volume, writes them, and waits to be killed; else it stops cleanly.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { loadAddon } from '../lib/binding/addon.ts';
import type { AttachReport } from '../lib/binding/native.ts';
import { memoryOf } from '../test/tools/memory.ts';
import { NbdClient } from '../test/tools/nbd-client.ts';
import { BLOCK_BYTES, type Copy, type ScalePlace, spread, VOLUME } from './scale_place.ts';

interface Order {
  copy: Copy;
  socket: string;
  /** Blocks to be written, all over the volume; none: stop cleanly instead. */
  writes: number;
}

export interface Attach {
  seconds: number;
  cpu_seconds: number;
  /** Peak of resident memory since before the attach, beyond what was resident then. */
  grown_bytes: number;
  report: AttachReport;
  dirty_chunks: number;
}

async function serve(order: Order): Promise<void> {
  const addon = loadAddon();
  const { nowBytes } = memoryOf('self');
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const volume = addon.open(
    {
      name: VOLUME,
      backing: order.copy.backing,
      metadata: order.copy.metadata,
      placement: 'external',
    },
    { events() {}, outgoing() {}, room() {} },
  );
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const attach: Attach = {
    seconds,
    cpu_seconds: (user + system) / 1e6,
    grown_bytes: Math.max(0, memoryOf('self').mostBytes - nowBytes),
    report: volume.attach,
    dirty_chunks: volume.status().peers[0]?.dirtyChunks ?? 0,
  };
  if (order.writes > 0) {
    await volume.promote(true);
    const device = await volume.startNbd({ socketPath: order.socket, exportName: VOLUME });
    const client = await NbdClient.connect(device, VOLUME);
    const block = Buffer.alloc(BLOCK_BYTES, 0x5a);
    const offsets = spread(volume.attach.volumeBytes, order.writes);
    await Promise.all(offsets.map((offset) => client.write(offset, block)));
    process.send?.(attach);
    return; // The server keeps the process alive.
  }
  await volume.close();
  process.send?.(attach, () => process.disconnect());
}

/** Attaches in a process of its own; the volume is closed cleanly, or killed once `writes` are complete. */
export async function attach(place: ScalePlace, copy: Copy, writes = 0): Promise<Attach> {
  const order: Order = { copy, socket: `${place.folder}/nbd`, writes };
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), [JSON.stringify(order)]);
  place.adopt(child);
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  const answer = await Promise.race([once(child, 'message'), ended.then(() => null)]);
  if (answer === null) {
    const [code, signal] = await ended;
    throw new Error(`the attach of ${copy.backing} ended with ${signal ?? code}`);
  }
  if (writes > 0) child.kill('SIGKILL');
  await ended;
  return answer[0] as Attach;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await serve(JSON.parse(process.argv[2] ?? '{}') as Order);
}
