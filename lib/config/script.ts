/**
 * Runs a config script (TypeScript or JavaScript, by jiti) and tells where in it an exception came from. Use it in a
 * worker only: a script may loop for ever.
 */

import { SourceMap } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createJiti } from 'jiti';
import { TidemarkError } from '../binding/errors.ts';
import * as publicModule from './public.ts';

export interface Script {
  /** The default export. */
  exported: unknown;
  /** 'file:line:column' of the innermost place of the user's code in the error's stack; '' when there is none. */
  placeOf(error: unknown): string;
  /** The original place of one in the transformed code; lines and columns count from 1. */
  placeAt(file: string, line: number, column: number): string;
}

const INLINE_MAP =
  /\/\/# sourceMappingURL=data:application\/json;(?:charset=utf-8;)?base64,([\w+/=]+)\s*$/;
const STACK_PLACE =
  /(?:\(|at )(?:async )?((?:file:\/\/)?\/[^():]+(?:\([^)]*\)[^():]*)*):(\d+):(\d+)\)?$/;

class SourceMaps {
  private readonly maps = new Map<string, SourceMap>();

  /** Keeps the map that babel put at the end of the code. */
  learn(file: string, code: string): void {
    const match = INLINE_MAP.exec(code);
    if (match) {
      this.maps.set(file, new SourceMap(JSON.parse(Buffer.from(match[1]!, 'base64').toString())));
    }
  }

  knows(file: string): boolean {
    return this.maps.has(file);
  }

  /** Lines are kept by the transformation, columns are not: types are cut out of them. */
  place(file: string, line: number, column: number): string {
    const entry = this.maps.get(file)?.findEntry(line - 1, column - 1);
    if (entry !== undefined && 'originalLine' in entry) {
      return `${file}:${entry.originalLine + 1}:${entry.originalColumn + 1}`;
    }
    return `${file}:${line}:${column}`;
  }
}

function placeInStack(error: unknown, maps: SourceMaps): string {
  const stack = error instanceof Error ? String(error.stack) : '';
  for (const line of stack.split('\n')) {
    const match = STACK_PLACE.exec(line.trim());
    if (!match) continue;
    const file = match[1]!.startsWith('file://') ? fileURLToPath(match[1]!) : match[1]!;
    if (maps.knows(file)) return maps.place(file, Number(match[2]), Number(match[3]));
  }
  return '';
}

/** jiti's parser says 'ParseError: <what>  \n <file>:<line>:<column from 0>'. */
function parseErrorText(error: unknown): string | null {
  const text = error instanceof Error ? error.message : '';
  const match = /^ParseError: ([\s\S]*?)\s+(\/.*):(\d+):(\d+)\s*$/.exec(text);
  if (!match) return null;
  return `${match[2]}:${match[3]}:${Number(match[4]) + 1}: ${match[1]!.split('\n')[0]!.trim()}`;
}

export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message.split('\n')[0]!;
  return String(error);
}

/**
 * @throws TidemarkError CONFIG_SCRIPT: it cannot be read, parsed, or it threw; the message begins with the place.
 */
export async function runScript(path: string): Promise<Script> {
  const maps = new SourceMaps();
  const options = { fsCache: false, moduleCache: false, interopDefault: false, sourceMaps: true };
  const transformer = createJiti(pathToFileURL(path).href, options);
  const jiti = createJiti(pathToFileURL(path).href, {
    ...options,
    virtualModules: { tidemark: publicModule },
    transform(source) {
      const code = transformer.transform(source);
      if (source.filename !== undefined) maps.learn(source.filename, code);
      return { code };
    },
  });
  const placeOf = (error: unknown) => placeInStack(error, maps);
  try {
    const namespace = await jiti.import<{ default?: unknown }>(path);
    return {
      exported: namespace.default,
      placeOf,
      placeAt: (file, line, column) => maps.place(file, line, column),
    };
  } catch (cause) {
    const place = placeOf(cause);
    const message = parseErrorText(cause) ?? `${place === '' ? path : place}: ${messageOf(cause)}`;
    throw new TidemarkError('CONFIG_SCRIPT', message, { cause });
  }
}
