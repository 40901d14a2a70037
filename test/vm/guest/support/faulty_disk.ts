// A disk that fails when told to, and works again: the device mapper between the volume and a disk in memory. It has a
// volatile cache, as the loop device below it has one, so that flushes fail too.
import { MappedDevice, type Table } from './device_mapper.js';
import { loopDisk } from './disk.js';
import type { ScenarioContext } from './scenario.js';

/**
 * 'writes': flushes, too. 'all': no flush comes that far. 'forgets': writes succeed and are lost, as those in a cache are whose
 * flush fails later; flushes succeed as well, so that no one may ask for one in that time.
 */
export type Fault = 'all' | 'reads' | 'writes' | 'forgets';

const TARGETS: Readonly<Record<Fault, (below: string, sector: number) => string>> = {
  all: () => 'error',
  // Down all the time: 0 seconds up, 60 down.
  reads: (below, sector) => `flakey ${below} ${sector} 0 60 1 error_reads`,
  writes: (below, sector) => `flakey ${below} ${sector} 0 60 1 error_writes`,
  forgets: (below, sector) => `flakey ${below} ${sector} 0 60 1 drop_writes`,
};

export class FaultyDisk {
  readonly path: string;
  private readonly t: ScenarioContext;
  private readonly device: MappedDevice;
  private readonly bytes: number;
  private below: string;
  private spares = 0;

  private constructor(t: ScenarioContext, device: MappedDevice, below: string, bytes: number) {
    this.t = t;
    this.device = device;
    this.path = device.path;
    this.below = below;
    this.bytes = bytes;
  }

  static async create(t: ScenarioContext, name: string, bytes: number): Promise<FaultyDisk> {
    const below = await loopDisk(t, name, bytes);
    const device = await MappedDevice.create(t, name, [[bytes, `linear ${below} 0`]]);
    return new FaultyDisk(t, device, below, bytes);
  }

  /** From now on so many bytes at its start fail, all of it without a number. */
  async fail(fault: Fault, bytes = this.bytes): Promise<void> {
    const table: Array<Table[number]> = [[bytes, TARGETS[fault](this.below, 0)]];
    if (bytes < this.bytes) {
      table.push([this.bytes - bytes, `linear ${this.below} ${bytes / 512}`]);
    }
    await this.device.replace(table);
  }

  async heal(): Promise<void> {
    await this.device.replace([[this.bytes, `linear ${this.below} 0`]]);
  }

  /** A blank disk in its place. */
  async swap(): Promise<void> {
    this.spares += 1;
    this.below = await loopDisk(this.t, `${this.device.name}-${this.spares}`, this.bytes);
    await this.heal();
  }
}
