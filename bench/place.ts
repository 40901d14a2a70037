/** Where subjects live: on this machine over NBD with files in memory, or in the virtual machine over ublk with RAM disks, or files in its memory. */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Argv, run } from '../test/vm/command.ts';
import { findCommand } from '../test/vm/packages.ts';
import { endAll } from './ends.ts';

export type Where = 'here' | 'vm';

const KIB = 1 << 10;
const SHM = '/dev/shm';
const FOLDER_PREFIX = 'tidemark-bench-';
/** Under emulation everything takes its time. */
const PATIENCE_MS = { here: 60_000, vm: 300_000 };
/** All have the same size, and take memory only where they were written. */
const RAM_DISKS = 28;
const RAM_DISK_BYTES = 320 << 20;

export abstract class Place {
  abstract readonly where: Where;
  /** Short, as it holds Unix sockets; in memory, where there is a file system for that. Gone with close(). */
  readonly folder: string;
  /** The checkout, with the built command line. */
  readonly checkout: string;
  private count = 0;
  private readonly files: string[] = [];

  constructor(checkout: string) {
    this.checkout = checkout;
    const parent = existsSync(SHM) ? SHM : tmpdir();
    removeStale(parent);
    this.folder = mkdtempSync(join(parent, `${FOLDER_PREFIX}${process.pid}-`));
  }

  get patienceMs(): number {
    return PATIENCE_MS[this.where];
  }

  /** A disk of zeroes of at least so many bytes. */
  abstract disk(bytes: number): Promise<string>;
  /** Ends what disks take. */
  abstract release(): Promise<void>;
  /** `frontend` of a Tidemark config. */
  abstract frontend(folder: string): Record<string, unknown>;

  /** A folder of its own for one subject. */
  subfolder(): string {
    this.count += 1;
    const folder = join(this.folder, String(this.count));
    mkdirSync(folder, { mode: 0o700 });
    return folder;
  }

  /** A disk that takes room only where it holds something else than zeroes: what is discarded or zeroed gives it back. */
  protected sparseFile(bytes: number): string {
    const path = join(this.folder, `disk${this.files.length}`);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    this.files.push(path);
    return path;
  }

  protected removeFiles(): void {
    for (const path of this.files) rmSync(path, { force: true });
  }

  async close(): Promise<void> {
    await endAll([
      () => this.release(),
      () => rmSync(this.folder, { recursive: true, force: true }),
    ]);
  }
}

export class Here extends Place {
  readonly where = 'here';

  async disk(bytes: number): Promise<string> {
    return this.sparseFile(bytes);
  }

  async release(): Promise<void> {
    this.removeFiles();
  }

  frontend(folder: string): Record<string, unknown> {
    return { kind: 'nbd', socket: join(folder, 'nbd') };
  }
}

export class Machine extends Place {
  readonly where = 'vm';
  private used = 0;

  static async open(checkout: string): Promise<Machine> {
    await run(['/sbin/modprobe', 'ublk_drv']);
    return new Machine(checkout);
  }

  private constructor(checkout: string) {
    super(checkout);
  }

  /** A RAM disk; one that is larger than those is a file in memory, as a RAM disk keeps the zeroes of a first resync. */
  async disk(bytes: number): Promise<string> {
    if (bytes > RAM_DISK_BYTES) return this.sparseFile(bytes);
    if (this.used === 0) {
      const size = `rd_size=${RAM_DISK_BYTES / KIB}`;
      await run(['/sbin/modprobe', 'brd', `rd_nr=${RAM_DISKS}`, size]);
    }
    if (this.used === RAM_DISKS) {
      throw new RangeError(`RAM disks: there are ${RAM_DISKS}; asked for no. ${this.used + 1}`);
    }
    this.used += 1;
    return `/dev/ram${this.used - 1}`;
  }

  async release(): Promise<void> {
    this.removeFiles();
    if (this.used > 0) await run(['/sbin/rmmod', 'brd']);
    this.used = 0;
  }

  frontend(): Record<string, unknown> {
    return { kind: 'ublk' };
  }
}

/** A run that was killed outright could not remove its folder, which holds memory; the next one does. */
function removeStale(parent: string): void {
  for (const name of readdirSync(parent)) {
    const pid = new RegExp(`^${FOLDER_PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    rmSync(join(parent, name), { recursive: true, force: true });
  }
}

/** The path of a program. @throws with its Debian package when it is not installed. */
export async function need(name: string, packageName: string): Promise<string> {
  const path = await findCommand(name);
  if (path === undefined) throw new Error(`${name} is not installed (Debian: ${packageName})`);
  return path;
}

/** Runs a short command; the error has its output. */
export async function command(argv: Argv, timeoutMs?: number): Promise<string> {
  return (await run(argv, timeoutMs === undefined ? {} : { timeoutMs })).stdout;
}
