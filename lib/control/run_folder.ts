/** The folder of control sockets and notes: gone after a reboot, as what they speak of is. */

import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';

export const RUN_FOLDER = '/run/tidemark';

/** TIDEMARK_RUN_DIR, or the system's. */
export function runFolder(env: NodeJS.ProcessEnv = process.env): string {
  return env.TIDEMARK_RUN_DIR || RUN_FOLDER;
}

/**
 * Makes a folder for its owner only, and those above it that are missing. (Node 20's own recursive mkdir never returns
 * below a folder that takes none, such as /proc.)
 */
export function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
