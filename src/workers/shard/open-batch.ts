import type { BatchBuilder } from '../../batch/batch-builder.ts';
import type { GroupTimes, RowTrace } from '../tracing/trace-record.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** What the state machine is told of a row that has a producer id and a sequence. */
export interface ProducerPart {
  readonly producer: Uint8Array;
  readonly sequence: number;
  /** CRC-32 of the row's records: a repeated sequence with other content is refused. */
  readonly checksum: number;
}

/** No expected head: the batch takes what ids there are. */
export const ANY_HEAD = -1;

const NOT_SEALED = Buffer.alloc(0);
/**
 * Calls that a batch has room for at first. Typed arrays of up to 64 bytes lie in V8's own heap, where garbage costs nothing; a larger one is an
 * allocation of the C library for each batch, and with one message to each of many subjects these were most of the shard's memory.
 */
const CALLS_START = 8;
/** Where several messages of a subject come together there are mostly many. */
const GROWTH = 4;

/**
 * Messages of one subject on their way to the store: gathered, then sealed, then stamped with their ids. A row is what is answered as one: the
 * message of a unary call, or a batch of a publish stream.
 */
export class OpenBatch {
  readonly subject: ActiveSubject;
  readonly builder: BatchBuilder;
  /** The call, or the stream token, of each row, in order. */
  calls: Uint32Array;
  /** When the client of each row stops waiting, epoch ms. */
  deadlines: Float64Array;
  earliestDeadline = Number.POSITIVE_INFINITY;
  /** The producer part of each row, or null if none has one. A null element is a row without. */
  parts: (ProducerPart | null)[] | null = null;
  rows = 0;
  messages = 0;
  /** Refuse unless the subject's head is this; then it is the only row. */
  expectedHead = ANY_HEAD;
  /** The encoded batch once sealed: the builder's memory, valid until the builder is reset. */
  sealed: Buffer = NOT_SEALED;
  base = 0;
  /** Log time of the allotment, epoch ms. */
  publishedAt = 0;
  /**
   * As the log was told, s, 0 if a message never expires: batch and void mark are filed by it. Rows that repeat a sequence are taken out later,
   * and then the builder's may be another.
   */
  expiresMax = 0;
  allotment: Unresolved | null = null;
  /** Of its request for ids. */
  counter = 0;
  /** The log refused to close it as stored: somebody had revoked it. */
  isRevoked = false;
  /** The log did not answer its close in time: nobody waits for it any more, and what becomes of it is still to come. */
  isAbandoned = false;
  /** Reason code if an earlier batch of the subject could not be stored: this one must not be either. -1: none. */
  doom = -1;
  /** Rows that are traced; null if none is. */
  traces: RowTrace[] | null = null;
  /** Of its group, if something of it is traced and it has been sealed. */
  times: GroupTimes | null = null;
  /** Messages and sequence of each row; null while every row is a unary call, with one message and sequence 0. */
  #counts: Uint32Array | null = null;
  #sequences: Float64Array | null = null;

  constructor(subject: ActiveSubject, builder: BatchBuilder) {
    this.subject = subject;
    this.builder = builder;
    this.calls = new Uint32Array(CALLS_START);
    this.deadlines = new Float64Array(CALLS_START);
  }

  /** The message of a unary call, whose record was just appended to the builder. */
  addCall(call: number, part: ProducerPart | null, deadline: number): void {
    this.#add(call, part, deadline, 1);
    if (this.#counts !== null) this.#counts[this.rows - 1] = 1;
  }

  /** A batch of a publish stream, whose section was just appended to the builder. */
  addSection(token: number, part: ProducerPart | null, sequence: number, messages: number): void {
    if (this.#counts === null || this.#sequences === null) {
      this.#counts = new Uint32Array(this.calls.length).fill(1);
      this.#sequences = new Float64Array(this.calls.length);
    }
    this.#add(token, part, Number.POSITIVE_INFINITY, messages);
    this.#counts[this.rows - 1] = messages;
    this.#sequences[this.rows - 1] = sequence;
  }

  trace(row: RowTrace): void {
    this.traces ??= [];
    this.traces.push(row);
  }

  /** Every row is a unary call. */
  get isUnary(): boolean {
    return this.#counts === null;
  }

  messagesOf(row: number): number {
    return this.#counts === null ? 1 : (this.#counts[row] as number);
  }

  /** 0 for a unary call. */
  sequenceOf(row: number): number {
    return this.#sequences === null ? 0 : (this.#sequences[row] as number);
  }

  /** Takes out the rows that `keep` refuses; seals again if it was sealed. The calls of the others must have been answered. */
  keepOnly(keep: (row: number) => boolean): void {
    const wasSealed = this.sealed !== NOT_SEALED;
    const kept: number[] = [];
    for (let row = 0; row < this.rows; row++) {
      if (keep(row)) kept.push(row);
    }
    this.#keepRecords(kept);
    const parts: (ProducerPart | null)[] = [];
    let messages = 0;
    kept.forEach((row, to) => {
      this.calls[to] = this.calls[row] as number;
      this.deadlines[to] = this.deadlines[row] as number;
      if (this.parts !== null) parts.push(this.parts[row] ?? null);
      messages += this.messagesOf(row);
      if (this.#counts !== null) this.#counts[to] = this.#counts[row] as number;
      if (this.#sequences !== null) this.#sequences[to] = this.#sequences[row] as number;
    });
    if (this.parts !== null) this.parts = parts;
    this.rows = kept.length;
    this.messages = messages;
    if (wasSealed && messages > 0) this.sealed = this.builder.seal();
  }

  #keepRecords(kept: readonly number[]): void {
    const keptMessages = new Uint8Array(this.messages);
    let next = 0;
    let at = 0;
    for (let row = 0; row < this.rows; row++) {
      const end = at + this.messagesOf(row);
      if (kept[next] === row) {
        keptMessages.fill(1, at, end);
        next += 1;
      }
      at = end;
    }
    this.builder.keepOnly((index) => keptMessages[index] === 1);
  }

  #add(call: number, part: ProducerPart | null, deadline: number, messages: number): void {
    if (this.rows === this.calls.length) this.#grow();
    this.calls[this.rows] = call;
    this.deadlines[this.rows] = deadline;
    this.earliestDeadline = Math.min(this.earliestDeadline, deadline);
    if (part !== null && this.parts === null) {
      this.parts = new Array<ProducerPart | null>(this.rows).fill(null);
    }
    this.parts?.push(part);
    this.rows += 1;
    this.messages += messages;
  }

  #grow(): void {
    const capacity = this.calls.length * GROWTH;
    this.calls = grown(this.calls, new Uint32Array(capacity));
    this.deadlines = grown(this.deadlines, new Float64Array(capacity));
    if (this.#counts !== null) this.#counts = grown(this.#counts, new Uint32Array(capacity));
    if (this.#sequences !== null) this.#sequences = grown(this.#sequences, new Float64Array(capacity));
  }
}

function grown<T extends Uint32Array | Float64Array>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}
