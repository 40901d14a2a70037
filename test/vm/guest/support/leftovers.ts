// Finds what a scenario left behind: processes, mounts, block devices. A leak is a failure of the
// scenario that made it, and not of the one that trips over it.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { run } from '../../command.js';

export type Inventory = ReadonlySet<string>;

export function takeInventory(): Inventory {
  return new Set([...processes(), ...mounts(), ...devices()]);
}

export function leftBehind(before: Inventory, after: Inventory): string[] {
  return [...after].filter((entry) => !before.has(entry));
}

/** Removes, as far as it can, what was left behind, so that the next scenario starts as clean as this one did. */
export async function clearAway(left: readonly string[]): Promise<void> {
  for (const entry of left) {
    const pid = /^process (\d+) /.exec(entry)?.[1];
    try {
      if (pid) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // Gone by now.
    }
  }
  for (const entry of left) {
    const target = /^mount \S+ (\S+)/.exec(entry)?.[1];
    // Lazily: it goes when its last user does.
    if (target) await run(['umount', '--lazy', target], { anyStatus: true }).catch(() => {});
  }
}

function processes(): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      readlinkSync(`/proc/${pid}/exe`); // Kernel threads and zombies have none.
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      found.push(`process ${pid} ${line}`);
    } catch {
      // Ended while we looked.
    }
  }
  return found;
}

function mounts(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => `mount ${line.split(' ').slice(0, 3).join(' ')}`);
}

function devices(): string[] {
  const nodes = readdirSync('/dev').filter((name) => /^(ublk[bc]\d|ram\d|dm-\d)/.test(name));
  const loops = readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .flatMap((name) => {
      try {
        return [
          `${name} on ${readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim()}`,
        ];
      } catch {
        return []; // Not attached.
      }
    });
  return [...nodes.map((name) => `/dev/${name}`), ...loops.map((text) => `/dev/${text}`)];
}
