/**
 * Which ublk device a volume has. A note in the run folder outlives a killed daemon, as the device does, and is gone
 * after a reboot, as the device is: with it a successor knows its own device again, also when the kernel chose the
 * number.
 */

import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const UBLK_CLASS = '/sys/class/ublk-char';
const UBLK_DEVICE = /^\/dev\/ublkb(\d+)$/;

export class DeviceRecord {
  private readonly path: string;
  private readonly sysfs: string;

  /** @param owner daemon and volume, as part of a file's name. */
  constructor(folder: string, owner: string, sysfs = UBLK_CLASS) {
    this.path = join(folder, `${owner}.ublk`);
    this.sysfs = sysfs;
  }

  /** The device's number that was noted; null without a note. */
  read(): number | null {
    try {
      const id = Number.parseInt(readFileSync(this.path, 'utf8'), 10);
      return Number.isInteger(id) && id >= 0 ? id : null;
    } catch {
      return null;
    }
  }

  /** Notes the device; anything but a ublk device is not noted. */
  write(device: string): void {
    const match = UBLK_DEVICE.exec(device);
    if (!match) return;
    writeFileSync(`${this.path}.new`, `${match[1]}\n`, { mode: 0o600 });
    renameSync(`${this.path}.new`, this.path);
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }

  /** The kernel has this device, served or waiting for a successor. */
  deviceExists(id: number): boolean {
    return existsSync(join(this.sysfs, `ublkc${id}`));
  }
}
