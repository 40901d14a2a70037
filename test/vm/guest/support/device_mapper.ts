// Devices of the kernel's device mapper, gone when the scenario ends.
import { modprobe } from './disk.js';
import type { ScenarioContext } from './scenario.js';

const SECTOR_BYTES = 512;

/** Bytes and target of each part of a device. */
export type Table = ReadonlyArray<readonly [bytes: number, target: string]>;

export class MappedDevice {
  readonly name: string;
  readonly path: string;
  /** The settings of its queue. */
  readonly queue: string;
  private readonly t: ScenarioContext;
  private removed = false;

  private constructor(t: ScenarioContext, name: string, blockName: string) {
    this.t = t;
    this.name = name;
    this.path = `/dev/${blockName}`;
    this.queue = `/sys/block/${blockName}/queue`;
  }

  /** Targets one after the other, of so many bytes each: [[1 << 20, 'linear /dev/ram0 0']]. Loads their modules. */
  static async create(t: ScenarioContext, name: string, table: Table): Promise<MappedDevice> {
    await loadTargets(t, table);
    await t.run(['dmsetup', 'create', '--noudevsync', name, '--table', textOf(table)]);
    // Without udev nobody makes links in /dev/mapper.
    const { stdout } = await t.run([
      ...(['dmsetup', 'info', '-c', '--noheadings', '-o', 'blkdevname', name] as const),
    ]);
    const device = new MappedDevice(t, name, stdout.trim());
    t.undo(`remove ${device.path}`, () => device.remove());
    return device;
  }

  /** Puts other targets in the place of the present ones, as soon as what is under way has ended. */
  async replace(table: Table): Promise<void> {
    await loadTargets(this.t, table);
    await this.dmsetup('reload', this.name, '--table', textOf(table));
    // Without a flush: what waits below must not hold up the change.
    await this.dmsetup('suspend', '--noflush', '--nolockfs', this.name);
    await this.dmsetup('resume', '--noudevsync', this.name);
  }

  /** Sends a message to the target. */
  async message(...words: string[]): Promise<void> {
    await this.dmsetup('message', this.name, '0', ...words);
  }

  async remove(): Promise<void> {
    if (this.removed) return;
    await this.dmsetup('remove', '--noudevsync', this.name);
    this.removed = true;
  }

  private async dmsetup(...words: string[]): Promise<void> {
    await this.t.run(['dmsetup', ...words]);
  }
}

async function loadTargets(t: ScenarioContext, table: Table): Promise<void> {
  await modprobe(t, 'dm_mod');
  for (const [, target] of table) {
    const kind = target.split(' ', 1)[0]!;
    if (kind !== 'linear' && kind !== 'error') await modprobe(t, `dm-${kind}`);
  }
}

function textOf(table: Table): string {
  let at = 0;
  const lines = table.map(([bytes, target]) => {
    if (bytes <= 0 || bytes % SECTOR_BYTES !== 0)
      throw new RangeError(`a target of ${bytes} bytes`);
    const line = `${at / SECTOR_BYTES} ${bytes / SECTOR_BYTES} ${target}`;
    at += bytes;
    return line;
  });
  return lines.join('\n');
}
