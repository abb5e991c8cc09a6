/** Numbers and text in few columns of a terminal. */

/** What would move the cursor, or turn the direction of writing: of what clients say nothing may reach a terminal as it is. */
const UNSAFE = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;
const ZERO_WIDTH = /[\p{Mn}\p{Me}]/u;
/** Scripts and pictures that take two columns: CJK, Hangul, full-width forms, emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

export function safe(text: string): string {
  return text.replace(UNSAFE, '\ufffd');
}

function widthOfChar(char: string): number {
  if (char < '\u0300') return 1;
  if (ZERO_WIDTH.test(char)) return 0;
  return WIDE.test(char) ? 2 : 1;
}

/** In columns of a terminal. */
export function widthOf(text: string): number {
  let width = 0;
  for (const char of text) width += widthOfChar(char);
  return width;
}

/** At most `width` columns; what is cut off is marked. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const char of text) {
    const next = used + widthOfChar(char);
    if (next > width - 1) break;
    kept += char;
    used = next;
  }
  return width <= 0 ? '' : `${kept}…`;
}

/** Exactly `width` columns. */
export function pad(text: string, width: number, isRight = false): string {
  const shown = cut(text, width);
  const space = ' '.repeat(Math.max(0, width - widthOf(shown)));
  return isRight ? space + shown : shown + space;
}

/** `1 node`, `2 nodes`, `0 batches`: as many as are shown. */
export function counted(count: number, noun: string, format: (count: number) => string = inFull): string {
  const shown = format(count);
  if (shown === '1') return `1 ${noun}`;
  return `${shown} ${noun}${/(ch|sh|s|x)$/.test(noun) ? 'es' : 's'}`;
}

function inFull(count: number): string {
  return count.toLocaleString('en-US');
}

const UNITS = ['', 'k', 'M', 'G', 'T', 'P'];

/** 0, 9.5, 1,234, 12.3k, 4.5M: at most six columns. */
export function compact(value: number): string {
  if (value < 10 && !Number.isInteger(value)) return value.toFixed(1);
  if (value < 9_999.5) return Math.round(value).toLocaleString('en-US');
  return scaled(value, 1_000, UNITS);
}

/** 0 B, 12 kB, 3.4 MB. */
export function bytesOf(value: number): string {
  return `${scaled(
    value,
    1_000,
    UNITS.map((unit) => ` ${unit}`),
  )}B`;
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let scaledValue = value;
  let unit = 0;
  // What would be shown as 1000 of a unit is 1.0 of the next.
  while (scaledValue >= step - 0.5 && unit < units.length - 1) {
    scaledValue /= step;
    unit += 1;
  }
  const digits = unit > 0 && scaledValue < 99.95 ? 1 : 0;
  return `${scaledValue.toFixed(digits)}${units[unit]}`;
}

export function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}

export function millis(ms: number): string {
  return ms >= 100 ? String(Math.round(ms)) : ms.toFixed(1);
}

/** 45s, 12m, 3h12m, 4d3h. */
export function ageOf(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${minutes % 60}m`;
  return `${Math.floor(hours / 24)}d${hours % 24}h`;
}
