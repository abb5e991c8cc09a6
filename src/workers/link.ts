/**
 * The records that cross the rings between threads, one block per direction. All integers little endian, f64 for ids and times (exact to
 * 2^53). Offsets are from the start of a record's payload, which the ring aligns to 8 bytes. Types are valid inside one process only,
 * never stored, so they may change with any release.
 *
 *   main --(control, payload)--> shard --(commands)--> raft
 *   main <--(control, payload)-- shard <--(answers)--- raft
 *
 * Control and payload are separate rings so that an acknowledgement never waits behind a megabyte of deliveries. A record is whole: no
 * record may be longer than half its ring (docs/adr/0003-no-fragments.md).
 */

/** Ring capacities in bytes, powers of two. The payload rings take theirs from `ring.bytes`. */
export const CONTROL_RING_BYTES = 1 << 20;
export const RAFT_RING_BYTES = 1 << 22;

/** main -> shard, payload ring. */
export const ToShard = {
  /** A raw PublishRequest. 0 f64 deadline (epoch ms, Infinity = none) · 8 f64 enqueued at (performance.now of the process) · 16 u32 call · 20 u32 hash · 24 u32 1 = the main thread is busy · 28 u32 bytes of its trace (0 or TRACE_BYTES) · 32 trace · frame. */
  PUBLISH: 1,
  /** 0 f64 deadline · 8 f64 id · 16 u32 call · 20 u32 hash · 24 subject. */
  FETCH: 2,
  /** As FETCH without a meaning for id. */
  INCREMENT: 3,
  /** 0 f64 start value · 8 u32 subscription · 12 u32 group · 16 u32 hash · 20 u32 start kind (Start) · 24 u32 credit · 28 u32 encoding (Encoding) · 32 f64 from (StartPosition, 0 = any) · 40 subject. */
  SUBSCRIBE: 4,
  /** 0 f64 next id it wants · 8 u32 subscription · 12 u32 credit in bytes · 16 u32 kind (Credit). */
  CREDIT: 5,
  /** 0 u32 subscription. */
  UNSUBSCRIBE: 6,
  /** 0 f64 first · 8 u32 call · 12 u32 hash · 16 subject. */
  TRIM: 7,
  /** 0 u32 call · 4 u32 hash · 8 subject. */
  INFO: 8,
  /** Payload, behind the publishes before it: a batch of a publish stream. 0 f64 enqueued at · 8 f64 sequence · 16 f64 expected head (-1 = any) · 24 u32 token (StreamToken) · 28 u32 hash · 32 u8 subject length · 33 u8 producer length (0 = none) · 34 u8 1 = the main thread is busy · 35 u8 flags (BatchFlag) · 36 trace (TRACE_BYTES, if it is traced) · subject · producer · records section. */
  PUBLISH_BATCH: 9,
  /** Payload, behind the last batch of a publish stream. 0 u32 the stream's number · 4 u32 unused. */
  STREAM_ENDED: 10,
  /** Control: 0 u32 call · 4 u32 1 = may be new · 8 producer. */
  OPEN_PRODUCER: 11,
  /** Control: tell of new subjects from now on. 0 u32 token. Answered with WATCHED. */
  WATCH: 12,
  /** Control: 0 u32 token · 4 u32 count · 8 u32 subscriptions[count]. Answered with POSITIONS. */
  POSITIONS: 13,
  /** Control: slots are to leave the shard; answered by message when everything of them is over. 0 u32 token · 4 u32 position of the payload ring behind which nothing concerns them · 8 u32 count · 12 u32 unused · 16 u16 slots[count]. */
  DRAIN: 14,
  /** Control: batches of a subject are to be told to main (PEER_BATCH) once they are stored, because other nodes have subscribers of it. 0 u32 hash · 4 u32 1 = from now on, 0 = no more · 8 subject, or nothing: of all subjects. */
  PEERS: 15,
  /** Payload: a stored batch that another node wrote. 0 f64 base · 8 f64 log time · 16 u32 count · 20 u32 hash · 24 u32 subject length · 28 u32 unused · 32 subject · batch. Nothing of it is checked but that the subject is subscribed to. */
  PEER_BATCH: 16,
} as const;

/** A trace in front of what is traced: 0 f64 received at · 8 context (base/trace-context.ts) · 33 unused. Records that are not traced have none. */
export const TRACE_BYTES = 40;

/** Of PUBLISH_BATCH. OVER_QUOTA: refused in its order, and without a records section. */
export const BatchFlag = { OVER_QUOTA: 1, TRACED: 2 } as const;

/** Messages of one batch of a publish stream. */
export const BATCH_MESSAGES_MAX = 65_535;

export const PUBLISH_BATCH_HEADER = 36;
export const STREAM_ENDED_BYTES = 8;
export const OPEN_PRODUCER_HEADER = 8;

/** Of StreamToken: lower bits of the sequence, and numbers of streams. */
const SEQUENCE_BITS = 10;
const SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1;
const STREAMS_MAX = 1 << 21;

/**
 * What stands for a batch of a publish stream where the number of a call stands for a unary publish: the highest bit set, then the number of
 * the stream, then the lower bits of the sequence. Numbers of calls are below 2^31 (limits.in_flight_calls).
 */
export const StreamToken = {
  make(stream: number, sequence: number): number {
    return (0x8000_0000 | (stream << SEQUENCE_BITS) | (sequence & SEQUENCE_MASK)) >>> 0;
  },
  is(token: number): boolean {
    return token >= 0x8000_0000;
  },
  stream(token: number): number {
    return (token >>> SEQUENCE_BITS) & (STREAMS_MAX - 1);
  },
  /** Lower bits of the sequence. */
  sequence(token: number): number {
    return token & SEQUENCE_MASK;
  },
} as const;

export const PEERS_HEADER = 8;
export const PEER_BATCH_HEADER = 32;
export const DRAIN_HEADER = 16;
export const PUBLISH_HEADER = 32;
/** With a trace. */
export const PUBLISH_HEADER_MAX = PUBLISH_HEADER + TRACE_BYTES;
export const FETCH_HEADER = 24;
export const SUBSCRIBE_HEADER = 40;
export const TRIM_HEADER = 16;
export const INFO_HEADER = 8;
export const CREDIT_BYTES = 24;

/** Start positions of a subscription, as numbers for the ring. */
export const Start = { NEW: 0, EARLIEST: 1, ID: 2, TIME: 3 } as const;

/** How runs are written for a subscription: frames of single messages, or frames of stored batches. */
export const Encoding = { MESSAGES: 0, BATCHES: 1 } as const;

/** Subscriptions of one POSITIONS record: with its answer an eighth of a control ring at most. */
export const POSITIONS_MAX = 4_096;
export const POSITIONS_HEADER = 8;

/** What a CREDIT record says. MORE: the reader may send that many bytes more. PAUSE: the stream does not drain, send nothing. RESUME: it has drained, read on from `next` with this credit. */
export const Credit = { MORE: 0, PAUSE: 1, RESUME: 2 } as const;

/** shard -> main. */
export const ToMain = {
  /** Control: consecutive ids of one batch. 0 f64 base · 8 u32 count · 12 u32 unused · 16 u32 calls[count]. */
  ACKS: 1,
  /** Control: 0 f64 id · 8 u32 call. */
  ACK_ONE: 2,
  /** Control: 0 u32 reason code · 4 u32 count · 8 u32 calls[count]. */
  REFUSE: 3,
  /** Payload, before the first run of the subscription: 0 f64 next id · 8 u32 subscription · 12 u32 1 if it waits for its time · 16 f64 head · 24 f64 settled. */
  SUBSCRIBED: 4,
  /** Payload, behind the runs that were sent before it: 0 u32 subscription · 4 u32 reason code. */
  UNSUBSCRIBED: 5,
  /** Control: 0 f64 first · 8 f64 head · 16 f64 settled · 24 f64 batches · 32 f64 bytes · 40 u32 call · 44 u32 ever expires. */
  INFO: 6,
  /** Payload: 0 u32 call · 4 u32 unused · 8 MessageResponse. */
  FETCHED: 7,
  /** Payload: a run of a subject for a group. 0 f64 from · 8 f64 to (exclusive) · 16 u32 group · 20 u32 count · 24 f64 ids[count] · u32 ends[count], padding to 8 · gRPC frames (flag, u32 length, MessageResponse), where ends[i] is the end of frame i in them. Ids in [from, to) that are not in it are void or expired. */
  GROUP_RUN: 8,
  /** Payload: the same for one subscription (catch-up). 16 u32 subscription. */
  READER_RUN: 9,
  /** Control: consecutive ids of one batch whose calls, or stream tokens, have several messages each. 0 f64 base · 8 u32 rows · 12 u32 unused · 16 rows x (u32 call or token, u32 messages). */
  ACK_ROWS: 10,
  /** Control: 0 f64 last sequence · 8 u32 call. */
  PRODUCER: 11,
  /** Payload: a run of a subject for a group of consume streams. 0 f64 from · 8 f64 to (exclusive) · 16 u32 group · 20 u32 messages · 24 f64 first id in it · 32 u32 bytes of its records sections · 36 u32 unused · 40 one gRPC frame of deliveries, or nothing. Ids in [from, to) that are not in it are void or expired. */
  GROUP_BATCHES: 12,
  /** Payload: the same for one subscription (catch-up). 16 u32 subscription. */
  READER_BATCHES: 13,
  /** Control: 0 u32 token. */
  WATCHED: 14,
  /** Control: a subject has been given its first id. 0 u32 hash · 4 u32 unused · 8 subject. */
  BORN: 15,
  /** Control: 0 u32 token · 4 u32 count · 8 count x (f64 head, f64 settled), -1 if not known. */
  POSITIONS: 16,
  /** Payload: a batch of this shard that the log has closed as stored, for other nodes. As ToShard.PEER_BATCH, but 28 u32 bytes of a trace context at the end (0 or TRACE_CONTEXT_BYTES of base/trace-context.ts). */
  PEER_BATCH: 17,
  /** Payload: a traced row was answered; tracing/trace-record.ts has the layout. In front of the runs that deliver it. */
  TRACE: 18,
} as const;

/** A run of one message is at most this much longer than the PUBLISH record that brought it: id, time, headers and padding of the run. */
export const DELIVERY_EXTRA_BYTES = 64;

export const RUN_HEADER = 24;
export const BATCH_RUN_HEADER = 40;
export const BORN_HEADER = 8;

/** Offsets of the columns of a run of `count` messages from the start of its record: ids behind the header, then ends, then frames. */
export function runLayout(count: number): { readonly ends: number; readonly frames: number } {
  const ends = RUN_HEADER + count * 8;
  return { ends, frames: (ends + count * 4 + 7) & ~7 };
}

/** shard -> raft. */
export const ToRaft = {
  /** A run of commands of src/allot, verbatim. */
  COMMANDS: 1,
  /** 0 f64 id · 8 u32 counter · 12 u32 hash · 16 subject. Answered with STATE once a read index covers it. */
  QUERY: 2,
  /** Newest ids of the store: a run of (f64 id, u32 hash, u32 length, subject, padding to 8). The node halts if one is above its head. */
  VERIFY: 3,
  /** 0 u32 unused. All that the shard's slots have in the store was sent with VERIFY. */
  VERIFIED: 4,
  /** This shard delivers the subject, or does not any more: 0 u32 hash · 4 u32 1 = from now on, 0 = no more · 8 subject. Answered with PROGRESS, and then whenever the log moves its head or settled. */
  INTEREST: 5,
  /** With peers: tell of new subjects of this shard's slots with BORN from now on, or no more. 0 u32 1 = on, 0 = off. */
  WATCH: 6,
  /** An open that is traced, in front of its command: 0 u32 its counter · 4 context of the trace · 29 unused. Answered with TRACED. */
  TRACE: 7,
} as const;

/** Of ToRaft.TRACE. */
export const LOG_TRACE_BYTES = 32;

export const INTEREST_HEADER = 8;

export const QUERY_HEADER = 16;

/** raft -> shard. `counter` is the shard's own number of the request. */
export const FromRaft = {
  /** 0 f64 base · 8 f64 log time · 16 u32 counter. */
  OPENED: 1,
  /** 0 u32 counter · 4 u32 reason code. */
  REFUSED: 2,
  /** An open with parts. 0 f64 base (0 = none) · 8 f64 log time · 16 u32 counter · 20 u32 parts · 24 parts x (f64 first id or 0, u32 PartVerdict of src/allot, u32 reason code). */
  OPENED_PARTS: 3,
  /** The revoke of an allotment of this node was applied. 0 f64 base · 8 u32 hash · 12 u32 unused · 16 subject. */
  REVOKED: 4,
  /** 0 f64 first as applied, 0 = no such subject · 8 u32 hash · 12 u32 unused · 16 subject. */
  TRIMMED: 5,
  /** 0 f64 first · 8 f64 head · 16 f64 settled · 24 u32 counter · 28 u32 flags (StateFlag). */
  STATE: 6,
  /** 0 f64 last sequence of the producer · 8 u32 counter. */
  PRODUCER: 7,
  /** With a database as the store: a close(stored) was applied or refused. 0 u32 counter of the allotment's open · 4 u32 1 = applied. */
  CLOSED: 8,
  /** At a start: the log has settled ids from this one on that the store does not have. 0 f64 id · 8 u32 hash · 12 u32 unused · 16 subject. */
  MISSING: 9,
  /** A close or a revoke of this node came too late: the allotment had become void, or was settled. 0 f64 base · 8 u32 hash · 12 u32 unused · 16 subject. */
  GONE: 10,
  /** With peers, of a subject that the shard is interested in: where the log stands. 0 f64 first · 8 f64 head · 16 f64 settled · 24 u32 hash · 28 u32 flags (StateFlag) · 32 subject. One stands for all changes of a round. */
  PROGRESS: 11,
  /** With peers: a revoked allotment whose owner cannot mark it any more. This shard writes the mark and closes it as void. May come again while that lasts. 0 f64 base · 8 f64 log time of its open · 16 u32 count · 20 u32 largest expiry in s · 24 u32 hash · 28 u32 unused · 32 subject. */
  MARK: 12,
  /** With peers, to a shard that watches (ToRaft.WATCH): a subject of its slots has got its first ids, from whichever node. 0 u32 hash · 4 u32 unused · 8 subject. */
  BORN: 13,
  /** Before any answer: new subjects begin behind this id, which `cluster recover` set. Comes if it is not 0. 0 f64 floor. */
  FLOOR: 14,
  /** In front of the answer to an open that is traced. 0 f64 taken off the ring · 8 f64 given to the log · 16 f64 applied (all ms of performance.now()) · 24 u32 counter · 28 u32 1 = this node led. */
  TRACED: 15,
} as const;

export const PROGRESS_HEADER = 32;
export const MARK_HEADER = 32;
export const RAFT_BORN_HEADER = 8;

export const SUBJECT_ANSWER_HEADER = 16;
export const OPENED_PARTS_HEADER = 24;
export const PART_BYTES = 16;

/** UNDECIDED: the id asked for is allotted and neither stored nor void. */
export const StateFlag = { EXISTS: 1, EVER_EXPIRES: 2, UNDECIDED: 4, VOID: 8 } as const;
