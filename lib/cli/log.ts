/** The daemon's log: JSON lines, or text for a terminal. */

import { openSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type DestinationStream, type Logger, pino } from 'pino';
import { TidemarkError } from '../binding/errors.ts';
import { makeFolder } from '../control/run_folder.ts';
import type { LogLevel } from './log_levels.ts';

const LEVEL_WORDS: Record<number, string> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'warning',
  50: 'error',
  60: 'fatal',
};
const HIDDEN = new Set(['level', 'time', 'msg', 'pid', 'volume', 'peer', 'event']);

/** '12:00:01.250 warning r0/beta: text key=value' */
export function prettyLine(json: string): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(json) as Record<string, unknown>;
  } catch {
    return json;
  }
  const time = new Date(Number(entry.time)).toISOString().slice(11, 23);
  const level = LEVEL_WORDS[Number(entry.level)] ?? 'info';
  const about = [entry.volume, entry.peer].filter((part) => part !== undefined).join('/');
  const rest = Object.entries(entry)
    .filter(([key]) => !HIDDEN.has(key))
    .map(([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const levelText = level === 'info' ? '' : `${level} `;
  return `${time} ${levelText}${about === '' ? '' : `${about}: `}${String(entry.msg)}${rest.join('')}\n`;
}

/** @throws TidemarkError LOG. */
export function openLogFile(file: string): number {
  try {
    makeFolder(dirname(file));
    return openSync(file, 'a', 0o600);
  } catch (cause) {
    throw new TidemarkError('LOG', `log ${file}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * @param file a file to append to; without it, standard error.
 * @throws TidemarkError LOG when the file cannot be opened.
 */
export function openLog(level: LogLevel, file: string | undefined): Logger {
  const options = { level, base: { pid: process.pid } };
  // Synchronous: the last words before a crash are the ones that count.
  const write = (destination: Parameters<typeof pino.destination>[0]) => {
    const stream = pino.destination(destination);
    // A full disk or a reader that went away costs the log, never the volumes.
    stream.on('error', () => undefined);
    return pino(options, stream);
  };
  if (file !== undefined) return write({ fd: openLogFile(resolve(file)), sync: true });
  process.stderr.on('error', () => undefined);
  if (!process.stderr.isTTY) return write({ dest: 2, sync: true });
  const terminal: DestinationStream = {
    write: (line) => void process.stderr.write(prettyLine(line)),
  };
  return pino(options, terminal);
}
