/** MD raid1 with an internal bitmap and write-behind, its second half a kernel NBD device that nbdkit serves over TCP. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../lib/demo/wire.ts';
import { endAll } from '../ends.ts';
import { FILL, pass } from '../fio.ts';
import { tool } from '../peer_tools.ts';
import { command, need, type Place } from '../place.ts';
import { Program } from '../program.ts';
import type { Subject } from '../subject.ts';
import { answers } from './nbd_server.ts';
import { blockDevice } from './ram_disk.ts';

const MIB = 1 << 20;
/** Superblock and bitmap. */
const METADATA_BYTES = 8 * MIB;
const NBD = '/dev/nbd0';
const ARRAY = '/dev/md0';

export class MdMirror implements Subject {
  readonly id = 'md';
  readonly title = 'MD raid1, internal bitmap, write-behind, over kernel NBD';
  readonly bytes: number;
  private server: Program | null = null;
  private connected = false;
  private assembled = false;

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  async start(place: Place): Promise<void> {
    const folder = place.subfolder();
    const port = await freePort();
    const far = await place.disk(this.bytes + METADATA_BYTES);
    this.server = Program.start(
      [
        ...([await need('nbdkit', 'nbdkit'), '--foreground'] as const),
        ...['--ipaddr=127.0.0.1', `--port=${port}`, 'file', far],
      ],
      { name: this.id, log: join(folder, 'log') },
    );
    await answers(this.server, `nbd://127.0.0.1:${port}`, place.patienceMs);
    for (const module of ['nbd', 'md-mod', 'raid1']) await command(['/sbin/modprobe', module]);
    await command([tool('nbd-client'), '127.0.0.1', String(port), NBD, '-block-size', '4096']);
    this.connected = true;
    const near = await place.disk(this.bytes + METADATA_BYTES);
    await command(
      [
        ...([tool('mdadm'), '--create', ARRAY, '--run', '--metadata=1.2', '--level=1'] as const),
        ...['--bitmap=internal', '--bitmap-chunk=64K', '--write-behind=256', '--assume-clean'],
        ...['--raid-devices=2', near, '--write-mostly', NBD],
      ],
      place.patienceMs,
    );
    this.assembled = true;
    if (!existsSync(ARRAY)) throw new Error(`${ARRAY} is not there after mdadm --create`);
    await pass(this, FILL, place.patienceMs);
  }

  async stop(): Promise<void> {
    const { assembled, connected, server } = this;
    this.assembled = false;
    this.connected = false;
    this.server = null;
    await endAll([
      () => assembled && command([tool('mdadm'), '--stop', ARRAY]),
      () => connected && command([tool('nbd-client'), '-d', NBD]),
      () => server?.end(),
    ]);
  }

  fio(): string[] {
    return blockDevice(ARRAY);
  }

  pids(): null {
    return null;
  }
}
