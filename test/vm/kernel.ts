// Provides a kernel with ublk for the test machine: Debian's newest 6.12 image, unpacked into the
// cache and not installed.
import { mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDirectory, cached, exists } from './cache.js';
import { run } from './command.js';
import { withPackageLists } from './packages.js';

export interface Kernel {
  /** As `uname -r` says it. */
  version: string;
  directory: string;
  image: string;
  /** What the guest mounts on /lib/modules. */
  modules: string;
}

const packagePattern = /^linux-image-(6\.12\.(\d+)\S*?-amd64)(-unsigned)?$/;
const downloadTimeoutMs = 10 * 60_000;
const entryPrefix = 'kernel-';

interface Candidate {
  packageName: string;
  version: string;
  patch: number;
  signed: boolean;
}

function parseCandidate(packageName: string): Candidate | undefined {
  const match = packagePattern.exec(packageName);
  // The cloud and rt flavours name themselves between version and architecture.
  if (!match?.[1] || /-(cloud|rt)-/.test(packageName)) return undefined;
  return { packageName, version: match[1], patch: Number(match[2]), signed: !match[3] };
}

function newestFirst(a: Candidate, b: Candidate): number {
  return b.patch - a.patch || Number(b.signed) - Number(a.signed);
}

/** What apt could download, the newest first. */
async function candidates(): Promise<Candidate[]> {
  // pkgnames also lists names that are only mentioned, search only packages that a source offers.
  const { stdout } = await run(['apt-cache', 'search', '--names-only', '^linux-image-6\\.12\\.']);
  return stdout
    .split('\n')
    .map((line) => parseCandidate(line.split(' ', 1)[0] ?? ''))
    .filter((candidate) => candidate !== undefined)
    .sort(newestFirst);
}

async function cachedKernels(): Promise<Candidate[]> {
  const names = (await exists(cacheDirectory())) ? await readdir(cacheDirectory()) : [];
  return names
    .filter((name) => name.startsWith(entryPrefix))
    .map((name) => parseCandidate(`linux-image-${name.slice(entryPrefix.length)}`))
    .filter((candidate) => candidate !== undefined)
    .sort(newestFirst);
}

function describe(version: string): Kernel {
  const directory = join(cacheDirectory(), entryPrefix + version);
  return {
    version,
    directory,
    image: join(directory, 'vmlinuz'),
    modules: join(directory, 'lib', 'modules'),
  };
}

/**
 * The newest cached kernel, or, when there is none or `refresh` asks for it, the newest that apt knows.
 */
export async function provideKernel(
  refresh: boolean,
  note: (text: string) => void,
): Promise<Kernel> {
  const [here] = await cachedKernels();
  if (here && !refresh) return describe(here.version);

  if (refresh) await run(['apt-get', 'update', '-q'], { timeoutMs: downloadTimeoutMs });
  const version = await withPackageLists(async () => {
    const [newest] = await candidates();
    if (!newest) {
      throw new Error(
        "apt offers no linux-image-6.12.*-amd64 package; the test machine needs Debian 12's or 13's " +
          '(if the package lists are old, run apt-get update as root)',
      );
    }
    await fetchKernel(newest, note);
    return newest.version;
  });
  return describe(version);
}

async function fetchKernel(candidate: Candidate, note: (text: string) => void): Promise<void> {
  const { version } = candidate;
  await cached(entryPrefix + version, async (content) => {
    note(`fetching ${candidate.packageName} (about 100 MB)`);
    const unpacked = `${content}-unpacked`;
    await mkdir(unpacked, { recursive: true });
    await run(['apt-get', 'download', '-q', candidate.packageName], {
      cwd: unpacked,
      timeoutMs: downloadTimeoutMs,
    });
    const archive = (await readdir(unpacked)).find((name) => name.endsWith('.deb'));
    if (!archive) throw new Error(`apt-get download ${candidate.packageName} left no .deb file`);
    await run(['dpkg-deb', '-x', join(unpacked, archive), unpacked], {
      timeoutMs: downloadTimeoutMs,
    });
    await mkdir(join(content, 'lib', 'modules'), { recursive: true });
    // Debian 13 moved the modules below /usr.
    const below = (await exists(join(unpacked, 'lib', 'modules'))) ? 'lib' : join('usr', 'lib');
    const modules = join(content, 'lib', 'modules', version);
    await rename(join(unpacked, below, 'modules', version), modules);
    await rename(join(unpacked, 'boot', `vmlinuz-${version}`), join(content, 'vmlinuz'));
    await run(['/sbin/depmod', '-b', content, version]);
    const known = await readFile(join(modules, 'modules.dep'), 'utf8');
    if (!known.includes('/ublk_drv.ko')) {
      throw new Error(`${candidate.packageName} has no ublk_drv module`);
    }
  });
}
