/** The disk below all others in the virtual machine: nobody is faster. */

import { FILL, pass } from '../fio.ts';
import type { Place } from '../place.ts';
import type { Subject } from '../subject.ts';

export class RamDisk implements Subject {
  readonly id = 'ram-disk';
  readonly title = 'the RAM disk itself';
  readonly bytes: number;
  private path = '';

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  async start(place: Place): Promise<void> {
    this.path = await place.disk(this.bytes);
    await pass(this, FILL, place.patienceMs);
  }

  async stop(): Promise<void> {}

  fio(): string[] {
    return blockDevice(this.path);
  }

  pids(): null {
    return null;
  }
}

/** fio's options for a block device. */
export function blockDevice(path: string): string[] {
  return ['--ioengine=libaio', '--direct=1', `--filename=${path}`];
}
