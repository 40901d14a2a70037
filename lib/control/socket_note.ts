/**
 * A daemon's note of where its control socket is, found by the path of its config and the node that was named when it
 * was started. With it commands reach a daemon without running the config script.
 */

import { createHash } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeFolder, runFolder } from './run_folder.ts';

function notePath(config: string, node: string | undefined, folder: string): string {
  const key = createHash('sha256')
    .update(`${config}\0${node ?? ''}`)
    .digest('hex')
    .slice(0, 32);
  return join(folder, `${key}.note`);
}

interface Note {
  config: string;
  node: string | null;
  socket: string;
}

/** The socket's path; null when there is no note. The daemon may be dead by now. */
export function readSocketNote(
  config: string,
  node: string | undefined,
  folder = runFolder(),
): string | null {
  try {
    const note = JSON.parse(readFileSync(notePath(config, node, folder), 'utf8')) as Partial<Note>;
    const same = note.config === config && note.node === (node ?? null);
    return same && typeof note.socket === 'string' ? note.socket : null;
  } catch {
    return null;
  }
}

/** Returns what removes it again. */
export function writeSocketNote(
  config: string,
  node: string | undefined,
  socket: string,
  folder = runFolder(),
): () => void {
  const path = notePath(config, node, folder);
  const note: Note = { config, node: node ?? null, socket };
  makeFolder(dirname(path));
  writeFileSync(`${path}.${process.pid}`, `${JSON.stringify(note)}\n`, { mode: 0o600 });
  renameSync(`${path}.${process.pid}`, path);
  return () => rmSync(path, { force: true });
}
