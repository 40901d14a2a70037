/** A ublk device that does nothing but I/O on its disk (native/ublk_loop.cc): the driver's own cost. */

import { join } from 'node:path';
import { FILL, pass } from '../fio.ts';
import { threadsRanNs } from '../meters.ts';
import type { Place } from '../place.ts';
import { Program } from '../program.ts';
import type { Subject } from '../subject.ts';
import { blockDevice } from './ram_disk.ts';

export class UblkLoop implements Subject {
  readonly id = 'ublk-loop';
  readonly title = 'a bare ublk loop, unreplicated';
  readonly bytes: number;
  private server: Program | null = null;
  private path = '';

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  async start(place: Place): Promise<void> {
    const program = join(place.checkout, 'build/bench/tidemark-ublk-loop');
    const log = join(place.subfolder(), 'log');
    const server = Program.start([program, await place.disk(this.bytes)], { name: this.id, log });
    this.server = server;
    const path = () => /^\/dev\/ublkb\d+$/m.exec(server.output)?.[0] ?? '';
    await server.until('the device is there', () => path() !== '', place.patienceMs);
    this.path = path();
    await pass(this, FILL, place.patienceMs);
  }

  async stop(): Promise<void> {
    await this.server?.end();
    this.server = null;
  }

  fio(): string[] {
    return blockDevice(this.path);
  }

  pids(): null {
    return null;
  }

  threadNs(): number {
    return threadsRanNs(this.server?.pid ?? 0);
  }
}
