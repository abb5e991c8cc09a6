import type { BatchBuilder } from '../../batch/batch-builder.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** A message that carries a producer id and sequence: it is allotted as a part of its own. */
export interface ProducerPart {
  readonly producer: Uint8Array;
  readonly sequence: number;
  /** CRC-32 of the record: a repeated sequence with other content is refused. */
  readonly checksum: number;
}

const NOT_SEALED = Buffer.alloc(0);

/** Messages of one subject on their way to the store: gathered, then sealed, then stamped with their ids. */
export class OpenBatch {
  readonly subject: ActiveSubject;
  readonly builder: BatchBuilder;
  /** The call of each message, in order. */
  calls: Uint32Array;
  /** The deadline of each message's call, epoch ms. */
  deadlines: Float64Array;
  earliestDeadline = Number.POSITIVE_INFINITY;
  /** The producer part of each message, or null if none has one. A null element is a plain message. */
  parts: (ProducerPart | null)[] | null = null;
  count = 0;
  /** The encoded batch once sealed: the builder's memory, valid until the builder is reset. */
  sealed: Buffer = NOT_SEALED;
  base = 0;
  /** Log time of the allotment, epoch ms. */
  publishedAt = 0;
  allotment: Unresolved | null = null;
  /** Reason code if an earlier batch of the subject could not be stored: this one must not be either. -1: none. */
  doom = -1;

  constructor(subject: ActiveSubject, builder: BatchBuilder, capacity: number) {
    this.subject = subject;
    this.builder = builder;
    this.calls = new Uint32Array(capacity);
    this.deadlines = new Float64Array(capacity);
  }

  /** The message whose record was just appended to the builder. */
  add(call: number, part: ProducerPart | null, deadline: number): void {
    if (this.count === this.calls.length) this.#grow();
    this.calls[this.count] = call;
    this.deadlines[this.count] = deadline;
    this.earliestDeadline = Math.min(this.earliestDeadline, deadline);
    if (part !== null && this.parts === null) {
      this.parts = new Array<ProducerPart | null>(this.count).fill(null);
    }
    this.parts?.push(part);
    this.count += 1;
  }

  /** Takes out the messages that `keep` refuses; seals again if it was sealed. The calls of the others must have been answered. */
  keepOnly(keep: (index: number) => boolean): void {
    const wasSealed = this.sealed !== NOT_SEALED;
    this.builder.keepOnly(keep);
    let kept = 0;
    const parts: (ProducerPart | null)[] = [];
    for (let i = 0; i < this.count; i++) {
      if (!keep(i)) continue;
      this.calls[kept] = this.calls[i] as number;
      this.deadlines[kept] = this.deadlines[i] as number;
      if (this.parts !== null) parts.push(this.parts[i] ?? null);
      kept += 1;
    }
    if (this.parts !== null) this.parts = parts;
    this.count = kept;
    if (wasSealed && kept > 0) this.sealed = this.builder.seal();
  }

  #grow(): void {
    const calls = new Uint32Array(this.calls.length * 2);
    calls.set(this.calls);
    this.calls = calls;
    const deadlines = new Float64Array(this.deadlines.length * 2);
    deadlines.set(this.deadlines);
    this.deadlines = deadlines;
  }
}
