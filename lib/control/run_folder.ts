/** The folder of control sockets and notes: gone after a reboot, as what they speak of is. */

export const RUN_FOLDER = '/run/tidemark';

/** TIDEMARK_RUN_DIR, or the system's. */
export function runFolder(env: NodeJS.ProcessEnv = process.env): string {
  return env.TIDEMARK_RUN_DIR || RUN_FOLDER;
}
