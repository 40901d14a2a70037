// Builds the test machine's initramfs: a static busybox, the modules needed to reach the host's
// files over 9p and to overlay them, and the two boot stages in image/.
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cached, dropOld } from './cache.js';
import { run } from './command.js';
import type { Kernel } from './kernel.js';
import { findCommand } from './packages.js';

const bootModules = ['9pnet_virtio', '9p', 'overlay', 'virtio_pci', 'virtio_console'];
const dayMs = 24 * 3_600_000;
const imageDirectory = join(import.meta.dirname, 'image');

/** Returns the path of the initramfs for this kernel, made when its inputs changed. */
export async function provideInitramfs(kernel: Kernel): Promise<string> {
  const busybox = await findCommand('busybox');
  if (!busybox) throw new Error('busybox not found; it comes with the package busybox-static');
  const init = await readFile(join(imageDirectory, 'init'));
  const start = await readFile(join(imageDirectory, 'start'));
  const hash = createHash('sha256');
  for (const part of [init, start, await readFile(busybox), bootModules.join()]) hash.update(part);
  const name = `initramfs-${kernel.version}-${hash.digest('hex').slice(0, 12)}.cpio`;

  return cached(name, async (content) => {
    await dropOld('initramfs-', dayMs); // Made from earlier versions of image/.
    await dropOld('.new-', dayMs); // Left by runs that were killed.
    const tree = `${content}-tree`;
    for (const part of ['bin', 'modules', 'image']) {
      await mkdir(join(tree, part), { recursive: true });
    }
    await copyFile(busybox, join(tree, 'bin', 'busybox'));
    await writeFile(join(tree, 'init'), init);
    await writeFile(join(tree, 'image', 'start'), start);
    await chmod(join(tree, 'init'), 0o755);
    await chmod(join(tree, 'bin', 'busybox'), 0o755);

    const order: string[] = [];
    for (const path of await modulesInOrder(kernel)) {
      const plain = basename(path).replace(/\.(xz|zst|gz)$/, '');
      await unpackModule(path, join(tree, 'modules', plain));
      order.push(plain);
    }
    await writeFile(join(tree, 'modules', 'order'), `${order.join('\n')}\n`);
    await run(['sh', '-c', `find . | cpio --quiet -o -H newc -R 0:0 > "$0"`, content], {
      cwd: tree,
    });
  });
}

/** The module files that `bootModules` need, dependencies first; built-in ones need none. */
async function modulesInOrder(kernel: Kernel): Promise<string[]> {
  const where = ['-d', kernel.directory, '-S', kernel.version];
  const { stdout } = await run([
    '/sbin/modprobe',
    ...where,
    '--show-depends',
    '-a',
    ...bootModules,
  ]);
  const paths = stdout
    .split('\n')
    .map((line) => /^insmod (\S+)/.exec(line)?.[1])
    .filter((path) => path !== undefined);
  return [...new Set(paths)];
}

async function unpackModule(from: string, to: string): Promise<void> {
  const tool = from.endsWith('.xz') ? 'xz' : from.endsWith('.zst') ? 'zstd' : undefined;
  if (!tool) return copyFile(from, to);
  await run(['sh', '-c', `${tool} -dc "$0" > "$1"`, from, to]);
}
