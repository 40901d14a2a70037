// Where the machine's kernel and initramfs are kept between runs: outside the checkout, so that
// clones share them and `git clean` does not cost a download.
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

export function cacheDirectory(): string {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return process.env.TIDEMARK_VM_CACHE || join(base, 'tidemark', 'vm');
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Removes entries that begin so and were made longer than `ageMs` ago: no running machine needs them. */
export async function dropOld(prefix: string, ageMs: number): Promise<void> {
  const directory = cacheDirectory();
  const names = (await exists(directory)) ? await readdir(directory) : [];
  for (const name of names.filter((entry) => entry.startsWith(prefix))) {
    const made = await stat(join(directory, name)).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > ageMs) {
      await rm(join(directory, name), { recursive: true, force: true });
    }
  }
}

/**
 * Makes `name` in the cache unless it is there. `fill` works in a private directory whose `content`
 * then takes its name in one step: an interrupted run leaves no half entry, and of two runs at once the first wins.
 */
export async function cached(
  name: string,
  fill: (content: string) => Promise<void>,
): Promise<string> {
  const directory = cacheDirectory();
  const entry = join(directory, name);
  if (await exists(entry)) return entry;
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(join(directory, '.new-'));
  try {
    const content = join(work, 'content');
    await fill(content);
    await rename(content, entry).catch(async (error) => {
      if (!(await exists(entry))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return entry;
}
