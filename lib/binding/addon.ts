// Loads the native add-on: the development build in build/Release, a prebuilt binary in prebuilds/, or
// the build in the folder that TIDEMARK_PREBUILD names (a sanitizer's).

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** What csrc/addon exports. */
export interface Addon {
  /** The package's version at the time the add-on was built. */
  readonly version: string;
}

const require = createRequire(import.meta.url);

// lib/binding and dist/binding are equally deep below the package's top.
const PACKAGE_DIR = fileURLToPath(new URL('../../', import.meta.url));

/**
 * Returns the add-on, loading it on the first call.
 * @throws the loader's error, which lists the files it looked for, when none fits this platform.
 */
export function loadAddon(): Addon {
  const load = require('node-gyp-build') as (dir: string) => Addon;
  return load(PACKAGE_DIR);
}
