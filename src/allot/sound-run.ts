import { tryReadSafeUint } from '../base/bytes.ts';
import { subjectHash } from '../base/subject.ts';
import {
  CLOSE_HEADER,
  Kind,
  LIMITS_BYTES,
  NODE_STARTED_AFTER_BYTES,
  OPEN_HEADER,
  OpenFlag,
  ORIGIN_RUN_HEADER,
  PART_HEADER,
  PART_PRODUCER_HEADER,
  PRODUCER_BYTES_MAX,
  PRODUCER_COMMAND_HEADER,
  REVOKE_NODE_HEADER,
  RevokeReach,
  StartedFlag,
} from './commands.ts';
import { AllotVerdict } from './verdicts.ts';

/** Whose run it is, and which. The node's name is bytes[nodeStart, nodeEnd). */
export interface RunHeader {
  readonly nodeStart: number;
  readonly nodeEnd: number;
  readonly incarnationLow: number;
  readonly incarnationHigh: number;
  readonly run: number;
}

const UNSOUND = -1;

/**
 * The header of a run that comes from another node, or null unless `AllotMachine.apply` takes all of it: whatever the state, it would fail no
 * assertion of every node of the cluster. What only `cluster recover` writes is not taken.
 */
export function soundRun(bytes: Uint8Array): RunHeader | null {
  if (bytes.length < ORIGIN_RUN_HEADER || bytes[0] !== Kind.ORIGIN_RUN) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const run = tryReadSafeUint(view, 10);
  const nodeEnd = ORIGIN_RUN_HEADER + (bytes[1] as number);
  if (run < 1 || nodeEnd === ORIGIN_RUN_HEADER || nodeEnd >= bytes.length) return null;
  if (view.getUint32(18, true) !== bytes.length - nodeEnd) return null;
  const isStart = bytes[nodeEnd] === Kind.NODE_STARTED;
  if (isStart !== (run === 1)) return null;
  let at = isStart ? nodeStartedEnd(bytes, view, nodeEnd) : nodeEnd;
  while (at !== UNSOUND && at < bytes.length) at = commandEnd(bytes, view, at);
  if (at !== bytes.length) return null;
  return {
    nodeStart: ORIGIN_RUN_HEADER,
    nodeEnd,
    incarnationLow: view.getUint32(2, true),
    incarnationHigh: view.getUint32(6, true),
    run,
  };
}

function nodeStartedEnd(bytes: Uint8Array, view: DataView, at: number): number {
  const end = at + NODE_STARTED_AFTER_BYTES;
  if (end > bytes.length) return UNSOUND;
  const flags = bytes[at + 1] as number;
  const isKnown = (flags & ~StartedFlag.KEEP_OPEN) === StartedFlag.AFTER;
  return isKnown && tryReadSafeUint(view, at + 2) >= 0 ? end : UNSOUND;
}

/** Where the command at `at` ends, or UNSOUND; may be beyond the end of the bytes. */
function commandEnd(bytes: Uint8Array, view: DataView, at: number): number {
  switch (bytes[at]) {
    case Kind.OPEN:
      return openEnd(bytes, view, at);
    case Kind.CLOSE:
      return subjectIdEnd(bytes, view, at, AllotVerdict.STORED, AllotVerdict.VOID);
    case Kind.REVOKE:
      return (bytes[at + 3] ?? 0) > RevokeReach.BEHIND
        ? UNSOUND
        : subjectIdEnd(bytes, view, at, AllotVerdict.REVOKED, AllotVerdict.REVOKED);
    case Kind.TRIM:
      return subjectIdEnd(bytes, view, at, 0, 0);
    case Kind.REVOKE_NODE:
      return revokeNodeEnd(bytes, at);
    case Kind.PRODUCER:
      return producerEnd(bytes, at);
    case Kind.LIMITS:
      return limitsEnd(bytes, view, at);
    default:
      return UNSOUND;
  }
}

function openEnd(bytes: Uint8Array, view: DataView, at: number): number {
  const start = at + OPEN_HEADER;
  if (start > bytes.length) return UNSOUND;
  const flags = bytes[at + 2] as number;
  const subjectEnd = start + (bytes[at + 1] as number);
  const count = view.getUint32(at + 16, true);
  if (subjectEnd === start || subjectEnd > bytes.length || flags > 3 || bytes[at + 3] !== 0 || count === 0)
    return UNSOUND;
  if (subjectHash(bytes, start, subjectEnd) !== view.getUint32(at + 4, true)) return UNSOUND;
  let end = subjectEnd;
  if ((flags & OpenFlag.EXPECTED_HEAD) !== 0) {
    end += 8;
    if (end > bytes.length || tryReadSafeUint(view, subjectEnd) < 0) return UNSOUND;
  }
  return (flags & OpenFlag.PARTS) === 0 ? end : partsEnd(bytes, view, end, count);
}

function partsEnd(bytes: Uint8Array, view: DataView, at: number, countTotal: number): number {
  if (at + 2 > bytes.length) return UNSOUND;
  const parts = view.getUint16(at, true);
  let end = at + 2;
  let total = 0;
  for (let i = 0; i < parts; i++) {
    if (end + PART_HEADER > bytes.length) return UNSOUND;
    const count = view.getUint32(end, true);
    const producer = bytes[end + 4] as number;
    if (count === 0 || producer > PRODUCER_BYTES_MAX) return UNSOUND;
    const start = end;
    end += producer === 0 ? PART_HEADER : PART_PRODUCER_HEADER + producer;
    if (end > bytes.length) return UNSOUND;
    if (producer > 0 && tryReadSafeUint(view, start + 9) < 1) return UNSOUND;
    total += count;
  }
  return parts > 0 && total === countTotal ? end : UNSOUND;
}

/** `one` and `other`: the verdicts that it may have. */
function subjectIdEnd(bytes: Uint8Array, view: DataView, at: number, one: number, other: number): number {
  if (at + CLOSE_HEADER > bytes.length) return UNSOUND;
  const verdict = bytes[at + 2] as number;
  const length = bytes[at + 1] as number;
  if (length === 0 || (verdict !== one && verdict !== other) || tryReadSafeUint(view, at + 8) < 0) return UNSOUND;
  const start = at + CLOSE_HEADER;
  const isWhole = start + length <= bytes.length;
  return isWhole && subjectHash(bytes, start, start + length) === view.getUint32(at + 4, true)
    ? start + length
    : UNSOUND;
}

function revokeNodeEnd(bytes: Uint8Array, at: number): number {
  const length = bytes[at + 1] ?? 0;
  const hasShard = bytes[at + 2] ?? 0;
  return length > 0 && hasShard <= 1 ? at + REVOKE_NODE_HEADER + length : UNSOUND;
}

function limitsEnd(bytes: Uint8Array, view: DataView, at: number): number {
  const end = at + LIMITS_BYTES;
  if (end > bytes.length || bytes[at + 1] !== 0) return UNSOUND;
  return [2, 10, 18].every((offset) => tryReadSafeUint(view, at + offset) >= 1) ? end : UNSOUND;
}

function producerEnd(bytes: Uint8Array, at: number): number {
  const length = bytes[at + 1] ?? 0;
  const mayBeNew = bytes[at + 2] ?? 0;
  return length > 0 && length <= PRODUCER_BYTES_MAX && mayBeNew <= 1 ? at + PRODUCER_COMMAND_HEADER + length : UNSOUND;
}
