// Bundles all scenarios into one file of plain JavaScript: translating TypeScript inside the machine
// would cost seconds for each.
import { readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { build } from 'esbuild';
import { guestResults } from './machine.js';

const guestDirectory = join(import.meta.dirname, 'guest');
/** What is in guest/ besides scenarios. */
const helpers = new Set(['main.ts', 'support.ts']);

/** Names of the scenario files: every .ts file in guest/ but the helpers. */
export async function scenarioFiles(): Promise<string[]> {
  const names = await readdir(guestDirectory);
  return names.filter((name) => name.endsWith('.ts') && !helpers.has(name)).sort();
}

/** Writes the bundle to `target`; running it in the guest runs the scenarios. */
export async function bundleScenarios(target: string): Promise<void> {
  const files = await scenarioFiles();
  if (files.length === 0) throw new Error(`no scenario files in ${guestDirectory}`);
  const lines = [
    "import { main } from './main.js';",
    ...files.map((file, index) => `import file${index} from './${file}';`),
    `await main({ ${files.map((file, index) => `'${file}': file${index}`).join(', ')} });`,
  ];
  await bundleModule(lines.join('\n'), guestDirectory, target);
}

/** The module `contents`, whose imports start at `folder`, and all that it imports, as one file that runs in the guest. */
export async function bundleModule(
  contents: string,
  folder: string,
  target: string,
): Promise<void> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: folder, loader: 'ts' },
    // Where the guest will see it: the source map's paths are relative to that.
    outfile: join(guestResults, basename(target)),
    write: false,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    // Scenarios drive Tidemark from outside; an add-on does not belong in the bundle.
    external: ['*.node'],
    // Dependencies in CommonJS form call require() for Node's own modules.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    sourcemap: 'inline',
    logLevel: 'warning',
  });
  for (const output of outputFiles) await writeFile(target, output.contents);
}
