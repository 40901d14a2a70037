// The host's Debian packages that the machine needs, installed when missing and allowed.
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { run } from './command.js';

const packageOfCommand: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  cpio: 'cpio',
  depmod: 'kmod',
  dmsetup: 'dmsetup',
  fio: 'fio',
  'mkfs.ext4': 'e2fsprogs',
  losetup: 'mount',
  setpriv: 'util-linux',
  xz: 'xz-utils',
};

const aptTimeoutMs = 10 * 60_000;
const systemPath = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/local/bin', '/usr/bin', '/bin'];

/** The full path of a command, also of those in sbin that a plain user's PATH lacks. */
export async function findCommand(name: string): Promise<string | undefined> {
  for (const directory of [...(process.env.PATH ?? '').split(delimiter), ...systemPath]) {
    const path = join(directory, name);
    const found = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (directory && found) return path;
  }
  return undefined;
}

async function missingPackages(): Promise<string[]> {
  const missing = new Set<string>();
  for (const [command, name] of Object.entries(packageOfCommand)) {
    const path = await findCommand(command);
    if (!path) missing.add(name);
    // The plain busybox package is linked dynamically and cannot run in an initramfs.
    else if (command === 'busybox' && !(await isStatic(path))) missing.add(name);
  }
  return [...missing];
}

async function isStatic(path: string): Promise<boolean> {
  const result = await run(['ldd', path], { anyStatus: true });
  return result.status !== 0;
}

/**
 * Does something with apt; if that fails, as it does when the package lists are missing or name versions
 * that are gone, fetches the lists and does it again.
 */
export async function withPackageLists<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (process.getuid?.() !== 0) throw error;
    await run(['apt-get', 'update', '-q'], { timeoutMs: aptTimeoutMs });
    return await action();
  }
}

/** Installs what is missing when root; throws with the command to run otherwise. */
export async function ensurePackages(note: (text: string) => void): Promise<void> {
  const missing = await missingPackages();
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    throw new Error(
      `the test machine needs Debian packages that are missing here: run 'apt-get install ${missing.join(' ')}' as root`,
    );
  }
  note(`installing ${missing.join(' ')}`);
  await withPackageLists(() =>
    run(['apt-get', 'install', '-q', '-y', '--no-install-recommends', ...missing], {
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      timeoutMs: aptTimeoutMs,
    }),
  );
  const still = await missingPackages();
  if (still.length > 0) throw new Error(`installed, yet not usable: ${still.join(', ')}`);
}
