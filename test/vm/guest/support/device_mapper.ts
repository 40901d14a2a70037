// Devices of the kernel's device mapper, gone when the scenario ends.
import { modprobe } from './disk.js';
import type { ScenarioContext } from './scenario.js';

const SECTOR_BYTES = 512;

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

  /** One target over the whole device: "linear /dev/ram0 0". Loads the target's module. */
  static async create(
    t: ScenarioContext,
    name: string,
    bytes: number,
    target: string,
  ): Promise<MappedDevice> {
    const module = target.split(' ', 1)[0]!;
    await modprobe(t, 'dm_mod');
    if (module !== 'linear' && module !== 'error') await modprobe(t, `dm-${module}`);
    await t.run(['dmsetup', 'create', '--noudevsync', name, '--table', table(bytes, target)]);
    // Without udev nobody makes links in /dev/mapper.
    const { stdout } = await t.run([
      'dmsetup',
      'info',
      '-c',
      '--noheadings',
      '-o',
      'blkdevname',
      name,
    ]);
    const device = new MappedDevice(t, name, stdout.trim());
    t.undo(`remove ${device.path}`, () => device.remove());
    return device;
  }

  /** Puts another target in the place of the present one, as soon as what is under way has ended. */
  async replace(bytes: number, target: string): Promise<void> {
    const module = target.split(' ', 1)[0]!;
    if (module !== 'linear' && module !== 'error') await modprobe(this.t, `dm-${module}`);
    await this.dmsetup('reload', this.name, '--table', table(bytes, target));
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

function table(bytes: number, target: string): string {
  if (bytes % SECTOR_BYTES !== 0) throw new RangeError(`a device of ${bytes} bytes`);
  const [kind, ...rest] = target.split(' ');
  return ['0', bytes / SECTOR_BYTES, kind, ...rest].join(' ');
}
