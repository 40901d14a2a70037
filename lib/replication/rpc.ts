/** What goes over the port between the main thread and the replication worker. */
import { TidemarkError } from '../binding/errors.ts';
import type { Replication, ReplicationEvent } from './api.ts';

/** Methods of {@link Replication} that are calls. */
export const CALLS = [
  'open',
  'startLinks',
  'startFrontend',
  'stopFrontend',
  'promote',
  'demote',
  'invalidate',
  'disconnect',
  'connect',
  'setPolicy',
  'resume',
  'status',
  'askPeers',
  'close',
  'shutdown',
] as const satisfies ReadonlyArray<keyof Replication>;
export type CallName = (typeof CALLS)[number];

export interface Call {
  id: number;
  method: CallName;
  args: unknown[];
}

/** An error as structured clone carries it: classes and extra fields of errors do not survive that. */
export interface ErrorRecord {
  code: string;
  message: string;
  stack?: string;
  errno?: number;
  syscall?: string;
  cause?: ErrorRecord;
}

export type Report =
  | { kind: 'result'; id: number; value: unknown }
  | { kind: 'error'; id: number; error: ErrorRecord }
  | { kind: 'event'; event: ReplicationEvent };

/** Causes of causes, at most. */
const CAUSE_DEPTH_MAX = 8;

export function toRecord(error: unknown, depth = 0): ErrorRecord {
  if (!(error instanceof Error)) return { code: 'INTERNAL', message: String(error) };
  const { code, errno, syscall } = error as NodeJS.ErrnoException;
  const { cause } = error;
  return {
    code: typeof code === 'string' ? code : 'INTERNAL',
    message: error.message,
    ...(error.stack === undefined ? {} : { stack: error.stack }),
    ...(typeof errno === 'number' ? { errno } : {}),
    ...(typeof syscall === 'string' ? { syscall } : {}),
    ...(cause === undefined || depth >= CAUSE_DEPTH_MAX
      ? {}
      : { cause: toRecord(cause, depth + 1) }),
  };
}

export function fromRecord(record: ErrorRecord): TidemarkError {
  const { code, message, stack, errno, syscall, cause } = record;
  const error = new TidemarkError(code, message, {
    ...(cause ? { cause: fromRecord(cause) } : {}),
    ...(errno === undefined ? {} : { errno }),
    ...(syscall === undefined ? {} : { syscall }),
  });
  // Where it happened, not where the message arrived.
  if (stack !== undefined) error.stack = stack;
  return error;
}
