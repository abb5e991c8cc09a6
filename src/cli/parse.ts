/** What people type on the command line, to values. Every function throws a usage error that names the rule. */

import { isTenant } from '../base/subject-space.ts';
import type { Start } from '../client/index.ts';
import { type Endpoint, parseEndpoint } from '../config/endpoint.ts';
import { parseDuration } from '../config/units.ts';
import { usageError } from './failure.ts';
import type { Format } from './output.ts';

export interface Header {
  readonly key: string;
  readonly value: Uint8Array;
}

export function parseFormat(text: string): Format {
  if (text === 'table' || text === 'json') return text;
  throw usageError(`-o ${text}: must be table or json`);
}

export function parseAddress(text: string, name = '--address'): Endpoint {
  const endpoint = parseEndpoint(text);
  if (endpoint !== null && endpoint.port > 0) return endpoint;
  throw usageError(`${name} ${text}: must be HOST:PORT, such as 127.0.0.1:8081 or [::1]:8081`);
}

/** A whole number from 1 (to 2^53-1, which nobody asks for); `name` is the option or argument. */
export function parsePositive(text: string, name: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && Number.isSafeInteger(value)) return value;
  throw usageError(`${name} ${text}: must be a whole number from 1`);
}

/** 0, or an id far enough below 2^53 that ids can go on behind it. */
export function parseFloor(text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (value <= FLOOR_MAX) return value;
  throw usageError(`--floor ${text}: must be an id, at most ${FLOOR_MAX}`);
}

const FLOOR_MAX = 2 ** 52;

export function parseTimeout(text: string): number {
  const value = parseDuration(text);
  if (value !== null && value > 0) return value;
  throw usageError(`--timeout ${text}: must be a duration with its unit, such as 500ms or 10s`);
}

const EXPIRE_SECONDS_MAX = 2 ** 31 - 1;

/** `10s` -> 10. The wire counts whole seconds, so anything between is refused rather than rounded. */
export function parseExpire(text: string): number {
  const ms = parseDuration(text);
  const seconds = ms === null ? -1 : ms / 1_000;
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= EXPIRE_SECONDS_MAX) return seconds;
  throw usageError(`--expire ${text}: must be a duration of whole seconds, such as 10s, 5m or 24h (at most 24855d)`);
}

/** `key=value`, split at the first `=`. */
export function parseHeader(text: string): Header {
  const split = text.indexOf('=');
  if (split < 1) throw usageError(`--header ${text}: must be KEY=VALUE, such as content-type=text/plain`);
  return { key: text.slice(0, split), value: Buffer.from(text.slice(split + 1)) };
}

const ISO_TIME = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

/** `new`, `earliest`, an id, a time such as 2026-05-01T12:00:00Z, or how long ago, such as 15m. `now` in ms since 1970. */
export function parseStart(text: string, now: number): Start {
  if (text === 'new' || text === 'earliest') return text;
  if (/^\d+$/.test(text)) return { id: parsePositive(text, '--from') };
  const ago = parseDuration(text);
  if (ago !== null) return { time: Math.max(0, now - ago) };
  const ms = ISO_TIME.test(text) && isDay(text.slice(0, 10)) ? Date.parse(text) : Number.NaN;
  if (Number.isFinite(ms) && ms >= 0) return { time: ms };
  throw usageError(
    `--from ${text}: must be new, earliest, an id (42), a time (2026-05-01T12:00:00Z) or how long ago (15m)`,
  );
}

/** JavaScript takes the 31st of February for the 3rd of March. */
function isDay(date: string): boolean {
  const ms = Date.parse(date);
  return Number.isFinite(ms) && new Date(ms).toISOString().startsWith(date);
}

export function parseTenant(text: string): string {
  if (isTenant(text)) return text;
  throw usageError(`--tenant ${text}: must be 1 to 64 letters, digits, ".", "_" or "-"`);
}
