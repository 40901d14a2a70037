/** Servers of NBD that others wrote, over a file: what a device costs without replication. */

import { join } from 'node:path';
import { run } from '../../test/vm/command.ts';
import { FILL, pass } from '../fio.ts';
import { need, type Place } from '../place.ts';
import { Program } from '../program.ts';
import type { Subject } from '../subject.ts';

/** Waits until somebody answers on a Unix socket, with a program that is not the one measured. */
export async function answers(program: Program, uri: string, limitMs: number): Promise<void> {
  const nbdinfo = await need('nbdinfo', 'libnbd-bin');
  const asked = async () => (await run([nbdinfo, '--size', uri], { anyStatus: true })).status === 0;
  await program.until(`it answers at ${uri}`, asked, limitMs);
}

abstract class NbdServer implements Subject {
  abstract readonly id: string;
  abstract readonly title: string;
  readonly bytes: number;
  private server: Program | null = null;
  private uri = '';

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  protected abstract argv(socket: string, disk: string): Promise<[string, ...string[]]>;

  async start(place: Place): Promise<void> {
    const folder = place.subfolder();
    const socket = join(folder, 'nbd');
    this.uri = `nbd+unix:///?socket=${socket}`;
    const argv = await this.argv(socket, await place.disk(this.bytes));
    this.server = Program.start(argv, { name: this.id, log: join(folder, 'log') });
    await answers(this.server, this.uri, place.patienceMs);
    await pass(this, FILL);
  }

  async stop(): Promise<void> {
    await this.server?.end();
    this.server = null;
  }

  fio(): string[] {
    return ['--ioengine=nbd', `--uri=${this.uri}`];
  }

  pids(): number[] {
    return this.server === null ? [] : [this.server.pid];
  }
}

export class Nbdkit extends NbdServer {
  readonly id = 'nbdkit';
  readonly title = 'nbdkit file, unreplicated';

  protected async argv(socket: string, disk: string): Promise<[string, ...string[]]> {
    return [await need('nbdkit', 'nbdkit'), '--foreground', '--unix', socket, 'file', disk];
  }
}

export class QemuNbd extends NbdServer {
  readonly id = 'qemu-nbd';
  readonly title = 'qemu-nbd, unreplicated';

  protected async argv(socket: string, disk: string): Promise<[string, ...string[]]> {
    const program = await need('qemu-nbd', 'qemu-utils');
    // As many clients as fio has jobs; without a limit of one it ends after the first.
    return [program, '--persistent', '--shared=16', '--format=raw', `--socket=${socket}`, disk];
  }
}
