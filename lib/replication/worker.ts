/**
 * The replication worker's entry: opens the native volumes (an engine belongs to the thread that uses its memory) and answers the main
 * thread's calls. An exception that nobody catches ends the worker; the volumes then end as if killed, and attach replays their logs.
 */
import { parentPort } from 'node:worker_threads';
import { loadAddon } from '../binding/addon.ts';
import { ReplicationHost } from './host.ts';
import { type Call, type Report, toRecord } from './rpc.ts';

if (!parentPort) throw new Error('lib/replication/worker is a worker thread, not a program');
const port = parentPort;
const post = (report: Report) => port.postMessage(report);

const host = new ReplicationHost({
  addon: loadAddon(),
  emit: (event) => post({ kind: 'event', event }),
});

async function answer({ id, method, args }: Call): Promise<void> {
  try {
    // The client's methods have the types; both are the same interface.
    const call = host[method] as (...all: unknown[]) => Promise<unknown>;
    post({ kind: 'result', id, value: await call.apply(host, args) });
  } catch (error) {
    post({ kind: 'error', id, error: toRecord(error) });
  }
  // Without the port nothing keeps the thread alive.
  if (method === 'shutdown') port.close();
}

port.on('message', (call: Call) => void answer(call));
