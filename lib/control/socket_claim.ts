/**
 * Where a daemon's control socket is, and who owns it. A socket is made under a name of its own and moved to its place
 * when nobody answers there, so that the place always has a socket that listens, or none of a living daemon.
 */

import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  lstatSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TidemarkError } from '../binding/errors.ts';
import { SOCKET_PATH_BYTES_MAX } from '../config/limits.ts';
import type { ResolvedConfig } from '../config/resolved.ts';
import { ControlClient } from './client.ts';
import { makeFolder, runFolder } from './run_folder.ts';

/** How long a living daemon may take to say who it is. */
const PROBE_MS = 3000;
const LOCK_TRIES = 100;
const LOCK_PAUSE_MS = 50;

/** One daemon serves all volumes of a config for one node, so that its name is made of both. */
export function daemonName(config: Pick<ResolvedConfig, 'node' | 'name'>): string {
  return `${config.name}-${config.node}`;
}

/**
 * Path of the control socket.
 * @throws TidemarkError CONTROL_SOCKET when it is longer than the kernel allows.
 */
export function socketPath(
  config: Pick<ResolvedConfig, 'node' | 'name'>,
  folder = runFolder(),
): string {
  const path = join(folder, `${daemonName(config)}.sock`);
  const bytes = Buffer.byteLength(path);
  // Room for the suffix of the name under which it is made.
  const max = SOCKET_PATH_BYTES_MAX - CLAIM_SUFFIX_BYTES;
  if (bytes > max) {
    throw new TidemarkError(
      'CONTROL_SOCKET',
      `control socket ${path} is too long: ${bytes} bytes (1..${max}); choose a shorter TIDEMARK_RUN_DIR or names`,
    );
  }
  return path;
}

const CLAIM_SUFFIX_BYTES = '.01abef'.length;

/** Inodes of the sockets that this process made, by path. */
const owned = new Map<string, number>();

function isCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !isCode(error, 'ESRCH');
  }
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is not there: that is what was wanted.
  }
}

/**
 * Held only while a socket is moved to its place, so that two daemons that start at once do not both win. The lock is a
 * symbolic link to the holder's pid: it names its holder from the first moment on, in a full folder too.
 */
async function withLock<T>(path: string, task: () => Promise<T>): Promise<T> {
  const lock = `${path}.lock`;
  for (let tries = 1; ; tries += 1) {
    try {
      symlinkSync(String(process.pid), lock);
      break;
    } catch (error) {
      if (!isCode(error, 'EEXIST')) throw error;
    }
    const holder = readLockHolder(lock);
    if (holder === null) continue;
    if (!isAlive(holder)) {
      unlinkQuietly(lock);
      continue;
    }
    if (tries > LOCK_TRIES) {
      throw new TidemarkError(
        'CONTROL_SOCKET',
        `control socket ${path}: process ${holder} holds its lock ${lock}; if no daemon is starting, remove it`,
      );
    }
    await delay(LOCK_PAUSE_MS);
  }
  try {
    return await task();
  } finally {
    unlinkQuietly(lock);
  }
}

/**
 * null: it is gone meanwhile.
 * @throws CONTROL_SOCKET if it is no lock.
 */
function readLockHolder(lock: string): number | null {
  let text = '';
  try {
    text = readlinkSync(lock);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return null;
    if (!isCode(error, 'EINVAL')) throw error;
  }
  const pid = Number(text);
  if (Number.isInteger(pid) && pid > 0) return pid;
  throw new TidemarkError('CONTROL_SOCKET', `${lock} is in the way, and no lock: remove it`);
}

/** Makes the listening socket under a name of its own, mode 0600 from the first moment on. */
async function listenOn(path: string): Promise<Server> {
  // A client that has sent all it wanted to say still waits for the answers.
  const server = createServer({ allowHalfOpen: true });
  const before = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // A Unix socket is bound before listen() returns: the mask need not outlive this call.
      server.listen(path, () => resolve());
      process.umask(before);
    });
  } finally {
    process.umask(before);
  }
  chmodSync(path, 0o600);
  return server;
}

/** @throws ALREADY_RUNNING if somebody listens there. */
async function refuseLiving(path: string): Promise<void> {
  let client: ControlClient;
  try {
    client = await ControlClient.connect(path, PROBE_MS);
  } catch (error) {
    // Nobody listens on it, or it has gone meanwhile.
    if (error instanceof TidemarkError && error.code === 'NOT_RUNNING') return;
    throw error;
  }
  let who = 'a process that does not answer';
  try {
    const { pid } = await client.call<{ pid: number }>('ping', {}, PROBE_MS);
    who = `pid ${pid}`;
  } catch {
    // It listens, and that is enough.
  } finally {
    client.close();
  }
  throw new TidemarkError('ALREADY_RUNNING', `already running, ${who} (control socket ${path})`);
}

/**
 * Listens on the path.
 * @throws TidemarkError ALREADY_RUNNING, CONTROL_SOCKET.
 */
export async function claimSocket(path: string): Promise<Server> {
  const own = `${path}.${randomBytes(3).toString('hex')}`;
  let server: Server | null = null;
  try {
    makeFolder(dirname(path));
    server = await listenOn(own);
    await withLock(path, async () => {
      try {
        linkSync(own, path);
        unlinkSync(own);
      } catch (error) {
        if (!isCode(error, 'EEXIST')) throw error;
        if (!lstatSync(path).isSocket()) {
          throw new TidemarkError('CONTROL_SOCKET', `${path} exists and is not a socket`);
        }
        await refuseLiving(path);
        renameSync(own, path);
      }
    });
    owned.set(path, lstatSync(path).ino);
    return server;
  } catch (cause) {
    server?.close();
    unlinkQuietly(own);
    if (cause instanceof TidemarkError) throw cause;
    const { code, message, errno, syscall } = cause as NodeJS.ErrnoException;
    const hint =
      code === 'EACCES' || code === 'EROFS' ? '; run as root, or set TIDEMARK_RUN_DIR' : '';
    throw new TidemarkError('CONTROL_SOCKET', `control socket ${path}: ${message}${hint}`, {
      cause,
      ...(errno === undefined ? {} : { errno }),
      ...(syscall === undefined ? {} : { syscall }),
    });
  }
}

/** Removes the socket if it is still the one that this process made. */
export function releaseSocket(path: string): void {
  const ino = owned.get(path);
  owned.delete(path);
  try {
    if (ino !== undefined && lstatSync(path).ino === ino) unlinkSync(path);
  } catch {
    // Somebody removed it.
  }
}
