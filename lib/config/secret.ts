/** Reads a volume's secret. Only a daemon needs it, so that other commands run without access to it. */

import { readFileSync, statSync } from 'node:fs';
import { TidemarkError } from '../binding/errors.ts';
import { SECRET_BYTES_MAX, SECRET_BYTES_MIN } from './limits.ts';
import type { SecretSource } from './resolved.ts';

/** What is wrong with a secret's length, null: nothing. Its value is never shown. */
export function checkSecret(value: string): string | null {
  const bytes = Buffer.byteLength(value);
  return bytes >= SECRET_BYTES_MIN && bytes <= SECRET_BYTES_MAX
    ? null
    : `is not ${SECRET_BYTES_MIN}..${SECRET_BYTES_MAX} bytes long`;
}

function readSecretFile(file: string): string {
  try {
    const mode = statSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new TidemarkError(
        'SECRET',
        `secret file ${file} has mode 0${mode.toString(8)}: others may read it; chmod 600 ${file}`,
      );
    }
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (cause) {
    if (cause instanceof TidemarkError) throw cause;
    const { message, errno, syscall } = cause as NodeJS.ErrnoException;
    throw new TidemarkError('SECRET', `secret file ${file}: ${message}`, {
      cause,
      ...(errno === undefined ? {} : { errno }),
      ...(syscall === undefined ? {} : { syscall }),
    });
  }
}

/**
 * The secret's text; null for a volume without one.
 * @throws TidemarkError SECRET, which never shows the value.
 */
export function readSecret(source: SecretSource | null): string | null {
  if (source === null) return null;
  if ('value' in source) return source.value;
  let value: string;
  let where: string;
  if ('file' in source) {
    value = readSecretFile(source.file);
    where = `secret file ${source.file}`;
  } else {
    value = process.env[source.env] ?? '';
    where = `environment variable ${source.env}`;
    if (value === '') throw new TidemarkError('SECRET', `${where} with the secret is not set`);
  }
  const why = checkSecret(value);
  if (why !== null) throw new TidemarkError('SECRET', `${where}: the secret ${why}`);
  return value;
}
