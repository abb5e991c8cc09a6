/** Durations and sizes as people write them. Inside the program they are plain numbers: milliseconds and bytes. */

const DURATION_UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const BYTE_UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;

export const DURATION_PATTERN = '^(0|\\d+(\\.\\d+)?(ms|s|m|h|d))$';
export const BYTES_PATTERN = '^\\d+(\\.\\d+)?(B|KiB|MiB|GiB|TiB)?$';

/** `"250ms"`, `"1.5h"` or `"0"` in ms; null if it is not one. A number without a unit is not one, since nobody can tell what it counts. */
export function parseDuration(text: string): number | null {
  if (text === '0') return 0;
  return parseQuantity(text, /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/, DURATION_UNITS_MS);
}

/** `"64KiB"`, `"1.5MiB"` or `"4096"` in bytes; null if it is not one. `MB` is refused: half its readers take it for 2^20. */
export function parseBytes(text: string): number | null {
  return parseQuantity(text, /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB)?$/, BYTE_UNITS);
}

function parseQuantity(text: string, pattern: RegExp, units: Readonly<Record<string, number>>): number | null {
  const match = pattern.exec(text);
  if (match === null) return null;
  const value = Number(match[1]) * (units[match[2] ?? ''] ?? 1);
  return Number.isSafeInteger(value) ? value : null;
}

/** The shortest exact way to write a duration: 60000 is `1m`. */
export function formatDuration(milliseconds: number): string {
  return milliseconds === 0 ? '0' : formatQuantity(milliseconds, DURATION_UNITS_MS);
}

/** The shortest exact way to write a size: 65536 is `64KiB`. */
export function formatBytes(bytes: number): string {
  return bytes === 0 ? '0' : formatQuantity(bytes, BYTE_UNITS);
}

function formatQuantity(value: number, units: Readonly<Record<string, number>>): string {
  let best = String(value);
  for (const [unit, size] of Object.entries(units)) {
    if (value % size === 0) best = `${value / size}${unit}`;
  }
  return best;
}

const DURATION_WORDS =
  /^(\d+(?:\.\d+)?) *(ms|msec|millis|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)$/i;
const BYTE_WORDS = /^(\d+(?:\.\d+)?) *([kmgt])i?b?$/i;

/** `5 sec` -> `5s`; a bare number could be of any unit. */
export function guessDuration(text: string): readonly string[] {
  const [, value, word] = DURATION_WORDS.exec(text) ?? [];
  if (value === undefined || word === undefined) {
    return /^\d+$/.test(text) ? Object.keys(DURATION_UNITS_MS).map((unit) => text + unit) : [];
  }
  const unit = word.toLowerCase();
  return [value + (/^(ms|milli)/.test(unit) ? 'ms' : unit.slice(0, 1))];
}

/** `10MB` -> `10MiB`. */
export function guessBytes(text: string): readonly string[] {
  const [, value, letter] = BYTE_WORDS.exec(text) ?? [];
  return value === undefined || letter === undefined ? [] : [`${value}${letter.toUpperCase()}iB`];
}
