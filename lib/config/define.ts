/** What a config script calls. Both return what they are given: they exist for the types, and to tell the two apart. */

import type { Config, Volume } from './types.ts';

const KIND = Symbol.for('tidemark.config.kind');

export type DefinedKind = 'volume' | 'config';

function tag<T extends object>(value: T, kind: DefinedKind): T {
  if (typeof value === 'object' && value !== null && Object.isExtensible(value)) {
    Object.defineProperty(value, KIND, { value: kind });
  }
  return value;
}

/** What the object was made by; undefined: by neither. */
export function definedKind(value: object): DefinedKind | undefined {
  return (value as Record<symbol, DefinedKind | undefined>)[KIND];
}

/**
 * A config of one volume.
 *
 * @example
 * ```ts
 * import { defineVolume } from 'tidemark';
 *
 * export default defineVolume({
 *   name: 'r0',
 *   protocol: 'C',
 *   secret: { file: '/etc/tidemark/r0.secret' },
 *   nodes: {
 *     alpha: { backing: '/dev/vg/r0', address: '10.0.0.1:7790', frontend: { kind: 'ublk', id: 0 } },
 *     beta: { backing: '/dev/vg/r0', address: '10.0.0.2:7790', frontend: { kind: 'ublk', id: 0 } },
 *   },
 * });
 * ```
 */
export function defineVolume(volume: Volume): Volume {
  return tag(volume, 'volume');
}

/** A config of several volumes, or one that says which node this machine is. */
export function defineConfig(config: Config): Config {
  return tag(config, 'config');
}
