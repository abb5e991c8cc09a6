/** Figures and bytes as people read them. Pure: no document. */

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat('en', { maximumSignificantDigits: 3, notation: 'compact' });
const SMALL = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** @param {number} value */
export const whole = (value) => WHOLE.format(value);

/** @param {number} value such as a rate */
export const short = (value) => (Math.abs(value) < 10_000 ? SMALL.format(value) : SHORT.format(value));

/** @param {number} value of 1 */
export const percent = (value) => `${SMALL.format(value * 100)} %`;

/** @param {number} bytes */
export function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1_024 && unit < units.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${unit === 0 ? whole(value) : SMALL.format(value)} ${units[unit]}`;
}

/** @param {number} ms */
export function span(ms) {
  if (ms < 10) return `${SMALL.format(ms)} ms`;
  if (ms < 1_000) return `${whole(ms)} ms`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

/** In local time. @param {number} ms since 1970 */
export function clock(ms) {
  const two = (/** @type {number} */ value) => String(value).padStart(2, '0');
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const fraction = String(at.getMilliseconds()).padStart(3, '0');
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${fraction}`;
}

/** @param {string} base64 */
export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Null if it is not UTF-8. `isCut`: the last character may be incomplete. @param {Uint8Array} bytes @param {boolean} isCut */
export function textOf(bytes, isCut) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: isCut });
  } catch {
    return null;
  }
}

/** Offset, bytes in hex, and what of them is printable ASCII. @param {Uint8Array} bytes @param {number} width bytes of a line */
export function hexDump(bytes, width) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += width) {
    const row = [...bytes.subarray(at, at + width)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const ascii = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(width * 3 - 1)}  ${ascii}`);
  }
  return lines.join('\n');
}

const DEPTH_MAX = 64;
const TOKEN = /"(?:\\.|[^"\\])*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/**
 * JSON with line breaks and indents; null if it is none, or nested too deep to be read. The tokens stay as they are: numbers are not rounded, and a
 * name that comes twice is shown twice.
 * @param {string} text
 */
export function indentJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let out = '';
  let depth = 0;
  let last = '';
  const breakLine = () => `\n${'  '.repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '}' || token === ']') {
      depth -= 1;
      out += last === '{' || last === '[' ? token : breakLine() + token;
    } else {
      if (last === '{' || last === '[' || last === ',') out += breakLine();
      out += token === ':' ? ': ' : token;
      if (token === '{' || token === '[') depth += 1;
    }
    if (depth > DEPTH_MAX) return null;
    last = token;
  }
  return out;
}
