/** DRBD 8.4, both its ends in one kernel: two resources that are connected over loopback. */

import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../../lib/demo/wire.ts';
import { endAll } from '../ends.ts';
import { FILL, pass } from '../fio.ts';
import { tool } from '../peer_tools.ts';
import { command, type Place } from '../place.ts';
import type { Progress, ResyncSubject } from '../subject.ts';
import { blockDevice } from './ram_disk.ts';

const MIB = 1 << 20;
const KIB = 1 << 10;
/** More than internal metadata of such a disk takes. */
const METADATA_BYTES = 8 * MIB;
/** Of all pairs there may be at once. */
const MINORS = 32;
const POLL_MS = 20;
/** No rate limit, neither fixed nor adaptive, nor for the sake of the application. */
const RESYNC = ['--c-plan-ahead=0', '--resync-rate=4194304', '--c-min-rate=0'];
/** What its own guide recommends for fast links. */
const NET = ['--max-buffers=8000', '--max-epoch-size=8000'];

let minorsUsed = 0;

export type DrbdKind = 'C' | 'A' | 'away';

export class DrbdPair implements ResyncSubject {
  readonly id: string;
  readonly title: string;
  readonly bytes: number;
  private readonly kind: DrbdKind;
  private place: Place | null = null;
  private minors: [number, number] = [0, 0];
  private ports: [number, number] = [0, 0];
  /** Resources that were made. */
  private readonly made: string[] = [];

  constructor(id: string, kind: DrbdKind, bytes: number) {
    this.id = id;
    this.kind = kind;
    this.bytes = bytes;
    this.title = kind === 'away' ? 'DRBD 8.4, peer away' : `DRBD 8.4, protocol ${kind}`;
  }

  async start(place: Place): Promise<void> {
    this.place = place;
    for (const folder of ['/run/lock', '/run/drbd', '/var/lib/drbd', '/var/lock']) {
      if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
    }
    // Without a helper that succeeds it refuses a resync.
    const parameters = ['usermode_helper=/bin/true', `minor_count=${MINORS}`];
    await command(['/sbin/modprobe', 'drbd', ...parameters]);
    this.minors = [minorsUsed, minorsUsed + 1];
    minorsUsed += 2;
    this.ports = [await freePort(), await freePort()];
    for (const minor of this.minors) await this.attach(minor, place);
    await this.connect();
    await this.until('connected', ({ connection }) => connection === 'Connected');
    // Both disks are blank: equal, without a resync.
    await this.drbdsetup('new-current-uuid', String(this.minors[0]), '--clear-bitmap=yes');
    await this.drbdsetup('primary', String(this.minors[0]));
    await pass(this, FILL, place.patienceMs);
    if (this.kind === 'away') await this.disconnect();
  }

  private async attach(minor: number, place: Place): Promise<void> {
    const disk = await place.disk(this.bytes + METADATA_BYTES);
    const resource = this.resource(minor);
    await command([
      ...([tool('drbdmeta'), '--force', String(minor), 'v08', disk] as const),
      ...['internal', 'create-md'],
    ]);
    await this.drbdsetup('new-resource', resource);
    this.made.push(resource);
    await this.drbdsetup('new-minor', resource, String(minor), '0');
    await this.drbdsetup('attach', String(minor), disk, disk, 'internal', ...RESYNC);
  }

  private resource(minor: number): string {
    return `bench${minor}`;
  }

  private async drbdsetup(...words: string[]): Promise<void> {
    await command([tool('drbdsetup-84'), ...words], this.place?.patienceMs);
  }

  private get state(): DrbdState {
    const state = drbdState(readFileSync('/proc/drbd', 'utf8'), this.minors[0]);
    if (state === null) throw new Error(`${this.id}: /proc/drbd has no minor ${this.minors[0]}`);
    return state;
  }

  private async until(what: string, holds: (state: DrbdState) => boolean): Promise<void> {
    const limitMs = this.place?.patienceMs ?? 0;
    const deadline = performance.now() + limitMs;
    while (!holds(this.state)) {
      if (performance.now() > deadline) {
        throw new Error(`${this.id}: not ${what} in ${limitMs} ms: ${JSON.stringify(this.state)}`);
      }
      await delay(POLL_MS);
    }
  }

  async stop(): Promise<void> {
    await endAll(this.made.splice(0).map((resource) => () => this.drbdsetup('down', resource)));
  }

  fio(): string[] {
    return blockDevice(`/dev/drbd${this.minors[0]}`);
  }

  pids(): null {
    return null;
  }

  async connect(): Promise<void> {
    const [near, far] = this.addresses;
    const protocol = `--protocol=${this.kind === 'A' ? 'A' : 'C'}`;
    await this.drbdsetup('connect', this.resource(this.minors[0]), near, far, protocol, ...NET);
    await this.drbdsetup('connect', this.resource(this.minors[1]), far, near, protocol, ...NET);
  }

  async disconnect(): Promise<void> {
    const [near, far] = this.addresses;
    await this.drbdsetup('disconnect', near, far);
    // The other end may see the link break first, and go on dialling.
    await this.drbdsetup('disconnect', far, near);
    await this.until('apart', ({ connection }) => connection === 'StandAlone');
  }

  private get addresses(): [string, string] {
    const [near, far] = this.ports;
    return [`ipv4:127.0.0.1:${near}`, `ipv4:127.0.0.1:${far}`];
  }

  async progress(): Promise<Progress> {
    const { connection, disks, outOfSyncBytes } = this.state;
    return {
      done: connection === 'Connected' && disks === 'UpToDate/UpToDate',
      copying: connection === 'SyncSource',
      dirty_bytes: outOfSyncBytes,
    };
  }

  async writes(): Promise<number> {
    return this.state.writtenBytes;
  }
}

export interface DrbdState {
  connection: string;
  /** Here/there */
  disks: string;
  writtenBytes: number;
  outOfSyncBytes: number;
}

/** One minor's part of /proc/drbd; null: it is not there. */
export function drbdState(text: string, minor: number): DrbdState | null {
  const part = new RegExp(`^ *${minor}: (.*(?:\\n(?! *\\d+: ).*)*)`, 'm').exec(text)?.[1];
  if (part === undefined) return null;
  const field = (name: string): string => new RegExp(`\\b${name}:(\\S+)`).exec(part)?.[1] ?? '';
  return {
    connection: field('cs'),
    disks: field('ds'),
    writtenBytes: Number(field('dw')) * KIB,
    outOfSyncBytes: Number(field('oos')) * KIB,
  };
}
