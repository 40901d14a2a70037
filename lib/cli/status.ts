/** `tidemark status`: once, or as it changes. */

import { setTimeout as delay } from 'node:timers/promises';
import type { StatusJson } from '../control/status.ts';
import type { Context } from './context.ts';
import { statusText } from './status_text.ts';

const WATCH_MS = 1000;
/** A daemon answers at once, also while its replication worker is stuck; one that does not is stuck itself. */
const ANSWER_MS = 10_000;
const CLEAR_SCREEN = '\x1b[H\x1b[2J';

export interface StatusFlags {
  json?: boolean;
  watch?: boolean;
}

function render(status: StatusJson, flags: StatusFlags): string {
  return flags.json ? `${JSON.stringify(status)}\n` : statusText(status);
}

export async function status(context: Context, flags: StatusFlags): Promise<void> {
  if (!flags.watch) {
    process.stdout.write(render(await context.call<StatusJson>('status', {}, ANSWER_MS), flags));
    return;
  }
  const client = await context.connect();
  const { volume } = context.options;
  const params = volume === undefined ? {} : { volume };
  const screen = process.stdout.isTTY && !flags.json;
  try {
    let last = '';
    // Until the daemon goes, which ends this with DISCONNECTED.
    for (;;) {
      const text = render(await client.call<StatusJson>('status', params, ANSWER_MS), flags);
      if (text !== last) process.stdout.write(screen ? `${CLEAR_SCREEN}${text}` : text);
      last = text;
      await delay(WATCH_MS);
    }
  } finally {
    client.close();
  }
}
