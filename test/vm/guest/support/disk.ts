// Disks in memory and filesystems on them, gone when the scenario ends.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import type { ScenarioContext } from './scenario.js';

const kib = 1024;

/** Loads a module, with parameters such as `rd_nr=2`; it stays loaded. */
export async function modprobe(t: ScenarioContext, name: string, ...parameters: string[]) {
  await t.run(['/sbin/modprobe', name, ...parameters]);
}

/**
 * Four RAM disks of the same size, which take memory only where written. There is one set at a time: the module
 * takes number and size when it is loaded.
 */
export async function ramDisks(
  t: ScenarioContext,
  sizeBytes: number,
): Promise<[string, string, string, string]> {
  if (sizeBytes % kib !== 0) throw new RangeError(`RAM disk size ${sizeBytes} is not whole KiB`);
  // Loading a module that is there succeeds, and ignores the parameters.
  if (existsSync('/sys/module/brd')) await t.run(['/sbin/rmmod', 'brd']);
  await modprobe(t, 'brd', 'rd_nr=4', `rd_size=${sizeBytes / kib}`);
  t.undo('remove the RAM disks', () => t.run(['/sbin/rmmod', 'brd']));
  return ['/dev/ram0', '/dev/ram1', '/dev/ram2', '/dev/ram3'];
}

/** A loop device over a new sparse file, which is read and written past the page cache. */
export async function loopDisk(
  t: ScenarioContext,
  name: string,
  sizeBytes: number,
): Promise<string> {
  const file = join(t.directory, `${name}.img`);
  writeFileSync(file, '');
  await truncate(file, sizeBytes);
  await modprobe(t, 'loop');
  const { stdout } = await t.run(['losetup', '--find', '--show', '--direct-io=on', file]);
  const device = stdout.trim();
  t.undo(`detach ${device}`, () => t.run(['losetup', '--detach', device]));
  return device;
}

/** Makes an ext4 filesystem; all of it now, so that no background thread writes later. */
export async function makeExt4(t: ScenarioContext, device: string): Promise<void> {
  await modprobe(t, 'ext4');
  await t.run(['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', device], {
    timeoutMs: 120_000,
  });
}

export function isMounted(directory: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === directory);
}

/** Mounts a device on a new directory and returns that; unmounted at the end unless done before. */
export async function mount(
  t: ScenarioContext,
  device: string,
  ...options: string[]
): Promise<string> {
  const directory = join(t.directory, `mount-${device.split('/').at(-1)}`);
  mkdirSync(directory, { recursive: true });
  await t.run(['mount', ...(options.length ? ['-o', options.join()] : []), device, directory]);
  t.undo(`unmount ${device}`, async () => {
    if (isMounted(directory)) await unmount(t, directory);
  });
  return directory;
}

export async function unmount(t: ScenarioContext, directory: string): Promise<void> {
  await t.run(['umount', directory]);
}

/** Throws, with e2fsck's findings, unless the filesystem is clean. */
export async function checkExt4(t: ScenarioContext, device: string): Promise<void> {
  await t.run(['e2fsck', '-f', '-n', device], { timeoutMs: 120_000 });
}
