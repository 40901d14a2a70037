// A process that ends, or ends a worker of its, while a volume is at the stage that its argument names.
// It ends with status 0, by itself, unless something is wrong. The same file is the worker; life.test.ts
// translates it once, because tsx costs each process and each worker half a second.

import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { loadAddon } from '../../../lib/binding/addon.ts';
import type { NativeVolume } from '../../../lib/binding/native.ts';
import { makeBacking, NO_CALLBACKS, openScratch, scratchFolder } from './scratch.ts';

const addon = loadAddon();

/** Keeps the volume's thread talking: every turn of this makes events and answers. */
async function chatter(volume: NativeVolume): Promise<never> {
  for (;;) {
    await Promise.all([
      volume.suspend('chatter'),
      volume.handshakeState('a'.repeat(32)),
      volume.resume(),
      volume.linkStart(),
    ]);
    volume.status();
  }
}

function ignore(promise: Promise<unknown>): void {
  promise.catch(() => {});
}

let sockets = 0;

async function serve(volume: NativeVolume): Promise<Socket> {
  await volume.promote(true);
  const socketPath = join(scratchFolder(), `s${sockets++}`);
  await volume.startNbd({ socketPath, exportName: 'scratch' });
  const socket = connect(socketPath);
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('data', resolve));
  return socket;
}

/** Brings a volume to a stage and leaves it there. */
const STAGES: Record<string, () => Promise<unknown>> = {
  loaded: async () => addon.features(),
  open: () => openScratch(),
  'calls under way': async () => {
    const volume = await openScratch();
    ignore(volume.promote(true));
    ignore(volume.demote());
    ignore(volume.handshakeState('b'.repeat(32)));
  },
  talking: async () => {
    const volume = await openScratch({ events: () => volume.status() });
    for (let i = 0; i < 4; ++i) ignore(chatter(volume));
    for (let i = 0; i < 20; ++i) await turn();
  },
  'served with a client': async () => {
    const socket = await serve(await openScratch());
    socket.unref();
  },
  'starting a frontend': async () => {
    const volume = await openScratch();
    await volume.promote(true);
    ignore(volume.startNbd({ socketPath: join(scratchFolder(), 'starting'), exportName: '' }));
    ignore(volume.startUblk({ deviceId: -1 }));
  },
  creating: async () => {
    for (let i = 0; i < 8; ++i) ignore(makeBacking());
  },
  closing: async () => {
    const volume = await openScratch();
    await volume.promote(true);
    ignore(volume.close());
  },
  'closing in a callback': async () => {
    const closed = new Promise<void>((resolve, reject) => {
      const opened = openScratch({
        events() {
          opened.then((volume) => volume.close()).then(resolve, reject);
        },
      });
      opened.then((volume) => volume.promote(true)).catch(() => {});
    });
    await closed;
  },
  closed: async () => {
    const volume = await openScratch();
    const view = volume.outgoing();
    await volume.close();
    // Memory that JavaScript still sees must be there.
    new Uint8Array(view.buffer).fill(7);
  },
  abandoned: async () => {
    const volume = await openScratch();
    ignore(volume.close(true));
  },
  'several volumes': async () => {
    const volumes = await Promise.all([openScratch(), openScratch(), openScratch()]);
    for (const volume of volumes) ignore(chatter(volume));
    ignore(volumes[1]!.close());
    await turn();
  },
};

/** Drops volumes without closing them; their locks must go with them. */
async function collectGarbage(): Promise<void> {
  const collect = globalThis.gc;
  if (collect === undefined) throw new Error('needs --expose-gc');
  for (let i = 0; i < 3; ++i) {
    const backing = await makeBacking();
    const drop = () => {
      // As real callbacks do, these hold the volume.
      const volume: NativeVolume = addon.open(
        { name: 'x', backing },
        { ...NO_CALLBACKS, outgoing: () => volume.outgoing() },
      );
      return volume.attach.volumeBytes;
    };
    drop();
    // Opening waits for the lock in the same thread: let the garbage's end be reported first.
    for (let n = 0; n < 50; ++n) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await addon.open({ name: 'x', backing, lockTimeoutMs: 2000 }, NO_CALLBACKS).close();
  }
}

async function terminateWorkers(stage: string): Promise<void> {
  for (let round = 0; round < 3; ++round) {
    const workers = [0, 1].map(() => new Worker(new URL(import.meta.url), { workerData: stage }));
    await Promise.all(
      workers.map(async (worker) => {
        await new Promise((resolve, reject) => {
          worker.once('message', resolve);
          worker.once('error', reject);
        });
        // A different moment each time.
        for (let i = 0; i < round * 3; ++i) await turn();
        await worker.terminate();
      }),
    );
  }
}

async function stageOf(name: string): Promise<void> {
  const reach = STAGES[name];
  if (reach === undefined) throw new Error(`no stage '${name}'`);
  await reach();
}

async function main(): Promise<void> {
  const [how, stage = ''] = process.argv.slice(2);
  switch (how) {
    case 'stages':
      console.log(JSON.stringify(Object.keys(STAGES)));
      return;
    case 'exit':
      await stageOf(stage);
      process.exit(0);
      break;
    case 'end':
      // Nothing but the volume is left: it must not keep the process.
      await stageOf(stage);
      return;
    case 'terminate':
      return terminateWorkers(stage);
    case 'garbage':
      return collectGarbage();
    default:
      throw new Error(`what is '${how}'?`);
  }
}

if (isMainThread) {
  await main();
} else {
  await stageOf(workerData);
  parentPort!.postMessage('there');
  // Stay until terminated.
  setInterval(() => {}, 1000);
}
