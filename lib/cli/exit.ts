/** How a command ends: its exit status, and what it says on standard error. */

import { TidemarkError } from '../binding/errors.ts';

/** docs/CLI.md has the same table. */
export const EXIT = {
  ok: 0,
  /** The command was understood and failed. */
  failed: 1,
  /** The command line or the config is wrong; nothing was done. */
  usage: 2,
  /** No daemon runs for this config and node. */
  notRunning: 3,
  /** `wait`: the state was not reached in time. */
  timeout: 4,
} as const;

const STATUS_OF_CODE: Record<string, number> = {
  USAGE: EXIT.usage,
  CONFIG: EXIT.usage,
  CONFIG_MISSING: EXIT.usage,
  CONFIG_SCRIPT: EXIT.usage,
  CONFIG_DEADLINE: EXIT.usage,
  SECRET: EXIT.usage,
  NO_VOLUME: EXIT.usage,
  NO_PEER: EXIT.usage,
  NOT_RUNNING: EXIT.notRunning,
  DISCONNECTED: EXIT.notRunning,
  WAIT_TIMEOUT: EXIT.timeout,
};

export function exitStatus(error: unknown): number {
  const code = error instanceof TidemarkError ? error.code : '';
  return STATUS_OF_CODE[code] ?? EXIT.failed;
}

/** 'tidemark: <message> (<CODE>)'; the stack, and what caused it, only with `debug`. */
export function errorText(error: unknown, debug: boolean): string {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof TidemarkError ? ` (${error.code})` : '';
  let text = `tidemark: ${message}${code}\n`;
  for (let at = error; debug && at instanceof Error; at = at.cause) {
    text += at === error ? `${at.stack}\n` : `caused by: ${at.stack}\n`;
  }
  return text;
}
