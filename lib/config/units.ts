/** Sizes and durations as people write them: '4KiB', '1MiB', '500ms', '5s', or plain integers (bytes, milliseconds). */

import type { Limit, Unit } from './limits.ts';

const SIZE_FACTORS: Record<string, number> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};
const DURATION_FACTORS: Record<string, number> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 };

const EXPECTED: Record<Unit, string> = {
  bytes: "a size (an integer of bytes, or text such as '4KiB', '1MiB', '2GiB')",
  ms: "a duration (an integer of milliseconds, or text such as '500ms', '5s', '2min')",
  count: 'an integer',
};

function parseScaled(text: string, factors: Record<string, number>): number | null {
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(text.trim());
  if (!match) return null;
  const factor = match[2] === '' ? 1 : factors[match[2]!];
  if (factor === undefined) return null;
  const value = Number(match[1]) * factor;
  return Number.isSafeInteger(value) ? value : null;
}

/** Reads a number of the unit from a config's value; null when it is none. */
export function parseUnit(value: unknown, unit: Unit): number | null {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : null;
  if (typeof value !== 'string' || unit === 'count') return null;
  return parseScaled(value, unit === 'bytes' ? SIZE_FACTORS : DURATION_FACTORS);
}

/** '4KiB', '1.5GiB': in the largest unit that shows the exact value, else in bytes. */
export function formatExactBytes(bytes: number): string {
  for (const [name, factor] of Object.entries(SIZE_FACTORS).reverse()) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${name}`;
  }
  return `${bytes}B`;
}

/** For people: '1.5 GiB', three digits at most behind nothing smaller than a byte. */
export function formatBytes(bytes: number): string {
  let name = 'B';
  let scaled = bytes;
  for (const [unit, factor] of Object.entries(SIZE_FACTORS)) {
    if (bytes < factor) break;
    name = unit;
    scaled = bytes / factor;
  }
  const text = Number.isInteger(scaled) ? String(scaled) : scaled.toFixed(scaled < 100 ? 1 : 0);
  return `${text} ${name}`;
}

/** '500ms', '5s', '2min': exact. */
export function formatExactMs(ms: number): string {
  for (const [name, factor] of Object.entries(DURATION_FACTORS).reverse()) {
    if (ms >= factor && ms % factor === 0) return `${ms / factor}${name}`;
  }
  return `${ms}ms`;
}

export function formatUnit(value: number, unit: Unit): string {
  if (unit === 'bytes') return formatExactBytes(value);
  if (unit === 'ms') return formatExactMs(value);
  return String(value);
}

/** '4KiB..64MiB, a power of two' */
export function formatRange(limit: Limit): string {
  const range = `${formatUnit(limit.min, limit.unit)}..${formatUnit(limit.max, limit.unit)}`;
  if (limit.powerOfTwo) return `${range}, a power of two`;
  if (limit.multipleOf)
    return `${range}, a multiple of ${formatUnit(limit.multipleOf, limit.unit)}`;
  return range;
}

/** What is wrong with a value, in words that go behind it ('is not ...', 'is out of range (...)'); null: nothing. */
export function checkLimit(value: unknown, limit: Limit): string | null {
  const number = parseUnit(value, limit.unit);
  if (number === null) return `is not ${EXPECTED[limit.unit]} in ${formatRange(limit)}`;
  const fits =
    number >= limit.min &&
    number <= limit.max &&
    (!limit.powerOfTwo || Number.isInteger(Math.log2(number))) &&
    (!limit.multipleOf || number % limit.multipleOf === 0);
  return fits ? null : `is out of range (${formatRange(limit)})`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The known word that was probably meant, or null when none is near. */
export function nearestWord(word: string, known: readonly string[]): string | null {
  const lower = word.toLowerCase();
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const other = candidate.toLowerCase();
    const distance =
      lower.length >= 3 && (other.startsWith(lower) || lower.startsWith(other))
        ? 1
        : editDistance(lower, other);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}
