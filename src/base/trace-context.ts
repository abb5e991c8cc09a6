/**
 * W3C Trace Context (https://www.w3.org/TR/trace-context/, level 1) as bytes: 16 of the trace id, 8 of the span id that a new span has as its parent
 * (all zero: it has none), one of flags. A fixed size, so that it travels in records of rings and messages between nodes.
 */

export const TRACE_CONTEXT_BYTES = 25;
const FLAGS_AT = 24;
export const TRACE_ID_BYTES = 16;
export const SPAN_ID_BYTES = 8;
export const SAMPLED = 1;
/** `00-<32 hex>-<16 hex>-<2 hex>` */
export const TRACEPARENT_LENGTH = 55;
const DASH = 0x2d;

/** Of which something may be recorded, and where: what a call brings, or what this node began for it. */
export interface CallTrace {
  /** TRACE_CONTEXT_BYTES: the trace, and the parent of the span of the call. */
  readonly context: Uint8Array;
  /** When the call came, in ms of performance.now(), which all threads of a process share. */
  readonly receivedAt: number;
}

export function isSampled(context: Uint8Array): boolean {
  return ((context[FLAGS_AT] as number) & SAMPLED) !== 0;
}

/** The traceparent at bytes[at, at + length) as a context; null if it is none. Later versions may be longer, and begin like this one. */
export function readTraceparent(bytes: Uint8Array, at: number, length: number): Uint8Array | null {
  if (length < TRACEPARENT_LENGTH) return null;
  const version = hexByte(bytes, at);
  if (version < 0 || version === 0xff || (version === 0 && length !== TRACEPARENT_LENGTH)) return null;
  if (length > TRACEPARENT_LENGTH && bytes[at + TRACEPARENT_LENGTH] !== DASH) return null;
  if (bytes[at + 2] !== DASH || bytes[at + 35] !== DASH || bytes[at + 52] !== DASH) return null;
  const context = new Uint8Array(TRACE_CONTEXT_BYTES);
  const isWhole =
    readHex(bytes, at + 3, context, 0, TRACE_ID_BYTES) &&
    readHex(bytes, at + 36, context, TRACE_ID_BYTES, SPAN_ID_BYTES) &&
    readHex(bytes, at + 53, context, FLAGS_AT, 1);
  return isWhole && isAny(context, 0, TRACE_ID_BYTES) && isAny(context, TRACE_ID_BYTES, FLAGS_AT) ? context : null;
}

/** The same of text, such as the value of a metadata key. */
export function parseTraceparent(text: string): Uint8Array | null {
  // Longer ones of later versions end somewhere; nobody needs a novel.
  if (text.length < TRACEPARENT_LENGTH || text.length > 512) return null;
  return readTraceparent(Buffer.from(text, 'latin1'), 0, text.length);
}

export function formatTraceparent(context: Uint8Array): string {
  return `00-${traceIdOf(context)}-${spanIdOf(context)}-${hex(context, FLAGS_AT, TRACE_CONTEXT_BYTES)}`;
}

export function traceIdOf(context: Uint8Array): string {
  return hex(context, 0, TRACE_ID_BYTES);
}

/** Of the parent; '' if there is none. */
export function spanIdOf(context: Uint8Array): string {
  return isAny(context, TRACE_ID_BYTES, FLAGS_AT) ? hex(context, TRACE_ID_BYTES, FLAGS_AT) : '';
}

/** The same trace, sampled, with the span `spanId` as the parent. */
export function childContext(context: Uint8Array, spanId: Uint8Array): Uint8Array {
  const child = new Uint8Array(TRACE_CONTEXT_BYTES);
  child.set(context.subarray(0, TRACE_ID_BYTES));
  child.set(spanId, TRACE_ID_BYTES);
  child[FLAGS_AT] = SAMPLED;
  return child;
}

function hex({ buffer, byteOffset }: Uint8Array, start: number, end: number): string {
  return Buffer.from(buffer as ArrayBuffer, byteOffset + start, end - start).toString('hex');
}

function isAny(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return true;
  return false;
}

function readHex(bytes: Uint8Array, at: number, into: Uint8Array, to: number, count: number): boolean {
  for (let i = 0; i < count; i++) {
    const value = hexByte(bytes, at + i * 2);
    if (value < 0) return false;
    into[to + i] = value;
  }
  return true;
}

/** -1 if it is not two lower case hex digits: the standard knows no others. */
function hexByte(bytes: Uint8Array, at: number): number {
  const high = hexDigit(bytes[at] as number);
  const low = hexDigit(bytes[at + 1] as number);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  return code >= 0x61 && code <= 0x66 ? code - 0x57 : -1;
}

/** `traceparent`, the key of a message header. */
const KEY = Buffer.from('traceparent');
export const TRACEPARENT_KEY_LENGTH = KEY.length;

export function isTraceparentKey(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== TRACEPARENT_KEY_LENGTH) return false;
  for (let i = 0; i < TRACEPARENT_KEY_LENGTH; i++) if (bytes[start + i] !== KEY[i]) return false;
  return true;
}
