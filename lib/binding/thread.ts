/** Starts worker threads from this package's own files, compiled (.js) or not (.ts, by tsx, in tests). */

import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * @param url of the thread's entry, made as `new URL('./entry.ts', import.meta.url)`: in a compiled package `.ts`
 *   stands for `.js`.
 */
export function startThread(url: URL, options: WorkerOptions = {}): Worker {
  if (import.meta.url.endsWith('.js')) {
    return new Worker(new URL(url.href.replace(/\.ts$/, '.js')), { ...options, execArgv: [] });
  }
  // Node 20 ignores `--import tsx` in a worker: tsx registers itself there only when asked.
  const tsx = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const entry = JSON.stringify(url.href);
  const boot = `import(${tsx}).then(({ register }) => { register(); return import(${entry}); })`;
  return new Worker(boot, { ...options, eval: true, execArgv: [] });
}
