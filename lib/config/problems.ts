/** What is wrong with a config: each problem with its path, the value found, and what is allowed. */

import { TidemarkError } from '../binding/errors.ts';

export interface Problem {
  /** 'volumes[0].nodes.alpha.address'; '' for the config as a whole. */
  path: string;
  /** With the value found and the allowed range. */
  message: string;
}

const VALUE_CHARS_MAX = 80;

/** A value as it is shown in a message: one line, bounded; of objects only the keys, since a secret may be among the values. */
export function showValue(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `a list of ${value.length}`;
  const text =
    typeof value === 'object' && value !== null
      ? `{ ${Object.keys(value).join(', ')} }`
      : typeof value === 'string'
        ? `'${value.replaceAll('\n', '\\n')}'`
        : typeof value === 'bigint'
          ? `${value}n`
          : String(value);
  return text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}...` : text;
}

/** ['volumes', 0, 'name'] -> 'volumes[0].name' */
export function formatPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (/^[A-Za-z_$][\w$]*$/.test(String(key)))
      text += text === '' ? String(key) : `.${String(key)}`;
    else text += `['${String(key)}']`;
  }
  return text;
}

export function formatProblem(problem: Problem): string {
  return problem.path === '' ? problem.message : `${problem.path}: ${problem.message}`;
}

/** The config script was read, and what it says cannot be used. `problems` lists everything that was found. */
export class ConfigError extends TidemarkError {
  readonly problems: readonly Problem[];

  constructor(path: string, problems: readonly Problem[]) {
    const lines = problems.map(formatProblem);
    super(
      'CONFIG',
      lines.length === 1
        ? `${path}: ${lines[0]}`
        : `${path}: ${lines.length} problems:\n${lines.map((line) => `  ${line}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.problems = problems;
  }
}
