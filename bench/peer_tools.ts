/**
 * The userland of the kernel's own replication: drbdsetup, drbdmeta, mdadm, nbd-client. Debian's packages are unpacked into the cache
 * of the virtual machine, and nothing is installed: their services are for machines that have such devices.
 */

import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../test/vm/cache.ts';
import { run } from '../test/vm/command.ts';
import { withPackageLists } from '../test/vm/packages.ts';

/** In the machine's environment: where they were unpacked, or why they were not. */
export const TOOLS_VARIABLE = 'TIDEMARK_BENCH_TOOLS';
export const TOOLS_PROBLEM_VARIABLE = 'TIDEMARK_BENCH_TOOLS_PROBLEM';
/** Changes when the list does. */
const ENTRY = 'peer-tools-1';
const PACKAGES = ['drbd-utils', 'mdadm', 'nbd-client', 'libnl-3-200', 'libnl-genl-3-200'];
const DOWNLOAD_MS_MAX = 10 * 60_000;
const FOLDERS = ['sbin', 'usr/sbin', 'lib/drbd', 'usr/lib/drbd'];
const LIBRARIES = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'];

/** Downloads and unpacks them, unless that was done. Returns the folder. */
export function provideTools(note: (text: string) => void): Promise<string> {
  return cached(ENTRY, async (content) => {
    note(`fetching ${PACKAGES.join(', ')} (2 MB)`);
    const archives = `${content}-archives`;
    await mkdir(archives, { recursive: true });
    await withPackageLists(() =>
      run(['apt-get', 'download', '-q', ...PACKAGES], {
        cwd: archives,
        timeoutMs: DOWNLOAD_MS_MAX,
      }),
    );
    for (const archive of await readdir(archives)) {
      await run(['dpkg-deb', '-x', join(archives, archive), content]);
    }
  });
}

/** The libraries that came with them, for LD_LIBRARY_PATH. */
export function toolLibraries(folder: string): string {
  return LIBRARIES.map((path) => join(folder, path)).join(':');
}

/** The path of one of them, inside the machine. @throws when it was not unpacked. */
export function tool(name: string): string {
  const problem = process.env[TOOLS_PROBLEM_VARIABLE];
  if (problem) throw new Error(`${name} could not be had: ${problem}`);
  const folder = process.env[TOOLS_VARIABLE];
  const path = FOLDERS.map((below) => join(folder ?? '', below, name)).find(existsSync);
  if (folder === undefined || path === undefined) {
    throw new Error(`${name} is not below ${TOOLS_VARIABLE}='${folder ?? ''}'`);
  }
  return path;
}
