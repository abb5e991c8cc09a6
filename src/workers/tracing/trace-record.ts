/** What a shard tells the main thread of one traced row (ToMain.TRACE of link.ts): written here, and read here. */
import { SPAN_ID_BYTES, TRACE_CONTEXT_BYTES } from '../../base/trace-context.ts';

/** Moments in ms of performance.now(); 0 = it did not come to that. */
export interface RowTimes {
  /** The main thread had the whole request. */
  readonly receivedAt: number;
  /** It was written to the shard's ring. */
  readonly enqueuedAt: number;
  /** The shard took it off. */
  readonly takenAt: number;
}

/** Of the group that the row was stored with. */
export interface GroupTimes {
  sealedAt: number;
  idsAt: number;
  storeAt: number;
  storedAt: number;
  closeAt: number;
  closedAt: number;
}

/** What the Raft thread of this node says of a request for ids. */
export interface LogTimes {
  receivedAt: number;
  submittedAt: number;
  appliedAt: number;
  /** This node led when it was applied. */
  isLeader: boolean;
}

/** What the leader's Raft thread tells of ids that it gave to another node. */
export interface ForeignIds {
  readonly context: Uint8Array;
  /** The node that asked. */
  readonly from: string;
  /** Ms of performance.now(). */
  readonly receivedAt: number;
  readonly appliedAt: number;
}

/** A row that is traced, on its way through a shard. */
export interface RowTrace extends RowTimes {
  /** The trace, and the parent of the row's span. */
  readonly context: Uint8Array;
  readonly spanId: Uint8Array;
  /** Of the span of its ids, which the log's spans are children of. */
  readonly idsSpanId: Uint8Array;
  /** Contexts that messages of it brought, beside the one above. */
  readonly links: readonly Uint8Array[];
  /** The call, or the stream token. */
  readonly call: number;
  log: LogTimes | null;
}

export interface TraceRecord {
  readonly row: Omit<RowTrace, 'call'>;
  readonly group: GroupTimes;
  readonly shard: number;
  /** When the shard answered it. */
  readonly answeredAt: number;
  /** First id, 0 if it was refused. */
  readonly base: number;
  readonly messages: number;
  readonly isStream: boolean;
  /** Reason code; -1: it is stored. */
  readonly reason: number;
  readonly hash: number;
  readonly subject: Uint8Array;
}

export const NO_TIMES: Readonly<GroupTimes> = Object.freeze({
  sealedAt: 0,
  idsAt: 0,
  storeAt: 0,
  storedAt: 0,
  closeAt: 0,
  closedAt: 0,
});

/** Messages of a batch whose contexts are told, beside the first. */
export const LINKS_MAX = 15;

/**
 * 0 f64 x 15: received, enqueued, taken, sealed, ids, store, stored, close, closed, log received, log submitted, log applied, answered, base, reason ·
 * 120 u32 messages · 124 u32 shard · 128 u32 hash · 132 u8 flags (TraceFlag) · 133 u8 links · 134 u8 subject length · 135 u8 unused · 136 context ·
 * 161 span id · 169 ids span id · 177 links x context · subject
 */
const COUNTS_AT = 120;
const CONTEXT_AT = 136;
const SPAN_AT = CONTEXT_AT + TRACE_CONTEXT_BYTES;
const IDS_SPAN_AT = SPAN_AT + SPAN_ID_BYTES;
const LINKS_AT = IDS_SPAN_AT + SPAN_ID_BYTES;
const TraceFlag = { STREAM: 1, HAS_LOG: 2, LEADER: 4 } as const;

export function traceRecordBytes({ row, subject }: Pick<TraceRecord, 'row' | 'subject'>): number {
  return LINKS_AT + row.links.length * TRACE_CONTEXT_BYTES + subject.length;
}

export function writeTraceRecord(view: DataView, bytes: Uint8Array, at: number, record: TraceRecord): void {
  const { row, group, subject } = record;
  const { log } = row;
  const times = [
    row.receivedAt,
    row.enqueuedAt,
    row.takenAt,
    group.sealedAt,
    group.idsAt,
    group.storeAt,
    group.storedAt,
    group.closeAt,
    group.closedAt,
    log?.receivedAt ?? 0,
    log?.submittedAt ?? 0,
    log?.appliedAt ?? 0,
    record.answeredAt,
    record.base,
    record.reason,
  ];
  times.forEach((time, i) => {
    view.setFloat64(at + i * 8, time, true);
  });
  view.setUint32(at + COUNTS_AT, record.messages, true);
  view.setUint32(at + COUNTS_AT + 4, record.shard, true);
  view.setUint32(at + COUNTS_AT + 8, record.hash, true);
  const flags =
    (record.isStream ? TraceFlag.STREAM : 0) |
    (log === null ? 0 : TraceFlag.HAS_LOG) |
    (log?.isLeader === true ? TraceFlag.LEADER : 0);
  view.setUint8(at + COUNTS_AT + 12, flags);
  view.setUint8(at + COUNTS_AT + 13, row.links.length);
  view.setUint8(at + COUNTS_AT + 14, subject.length);
  bytes.set(row.context, at + CONTEXT_AT);
  bytes.set(row.spanId, at + SPAN_AT);
  bytes.set(row.idsSpanId, at + IDS_SPAN_AT);
  let to = at + LINKS_AT;
  for (const link of row.links) {
    bytes.set(link, to);
    to += TRACE_CONTEXT_BYTES;
  }
  bytes.set(subject, to);
}

/** A copy: the ring's space is given back when the round is done. */
export function readTraceRecord(view: DataView, bytes: Uint8Array, at: number): TraceRecord {
  const time = (i: number): number => view.getFloat64(at + i * 8, true);
  const flags = view.getUint8(at + COUNTS_AT + 12);
  const part = (start: number, length: number): Uint8Array => bytes.slice(at + start, at + start + length);
  const linkCount = view.getUint8(at + COUNTS_AT + 13);
  const subjectAt = LINKS_AT + linkCount * TRACE_CONTEXT_BYTES;
  return {
    row: {
      receivedAt: time(0),
      enqueuedAt: time(1),
      takenAt: time(2),
      context: part(CONTEXT_AT, TRACE_CONTEXT_BYTES),
      spanId: part(SPAN_AT, SPAN_ID_BYTES),
      idsSpanId: part(IDS_SPAN_AT, SPAN_ID_BYTES),
      links: Array.from({ length: linkCount }, (_, i) => part(LINKS_AT + i * TRACE_CONTEXT_BYTES, TRACE_CONTEXT_BYTES)),
      log:
        (flags & TraceFlag.HAS_LOG) === 0
          ? null
          : {
              receivedAt: time(9),
              submittedAt: time(10),
              appliedAt: time(11),
              isLeader: (flags & TraceFlag.LEADER) !== 0,
            },
    },
    group: {
      sealedAt: time(3),
      idsAt: time(4),
      storeAt: time(5),
      storedAt: time(6),
      closeAt: time(7),
      closedAt: time(8),
    },
    answeredAt: time(12),
    base: time(13),
    reason: time(14),
    messages: view.getUint32(at + COUNTS_AT, true),
    shard: view.getUint32(at + COUNTS_AT + 4, true),
    hash: view.getUint32(at + COUNTS_AT + 8, true),
    isStream: (flags & TraceFlag.STREAM) !== 0,
    subject: part(subjectAt, view.getUint8(at + COUNTS_AT + 14)),
  };
}
