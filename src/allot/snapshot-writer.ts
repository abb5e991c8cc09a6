import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/bytes.ts';
import { SLOT_COUNT } from '../base/subject.ts';
import type { AllotState, SubjectObserver } from './allot-state.ts';
import { FrozenRows } from './frozen-rows.ts';
import type { NodeRow } from './nodes.ts';
import { BUCKET_COUNT, type FrozenProducer } from './producers.ts';
import type { SlotSubjects, SubjectColumns } from './slot-subjects.ts';
import { CHUNK_HEADER, Field, Section, sealChunk, writeAllotments } from './snapshot-format.ts';

/** Producers after which a chunk ends although it is short: sorting and writing them costs more time than bytes. */
const PRODUCERS_PER_CHUNK = 1024;

/**
 * Writes a snapshot of the state at the moment it is made, chunk by chunk, while the machine goes on. What changes before it is written is
 * copied first, in blocks of rows of a slot and producer by producer: columns, not encoded bytes, so that one entry that touches every
 * slot costs a few ms at most.
 */
export class SnapshotWriter implements SubjectObserver {
  readonly #state: AllotState;
  readonly #writer = new ByteWriter(64 * 1024);
  readonly #meta: Uint8Array;
  #frozen: FrozenRows;
  /** Rows of each slot when the snapshot began: younger ones are not in it. */
  readonly #rows = new Uint32Array(SLOT_COUNT);
  /** Where the next section begins; `#part` is an index into the slot's rows or the bucket's producers. */
  #phase: number = Section.META;
  #unit = 0;
  #part = 0;
  #bucket: FrozenProducer[] | null = null;
  #chunks = 0;
  #subjects = 0;
  #unresolved = 0;
  #producers = 0;
  #done = false;
  /** Raft index and log time of the snapshot. */
  readonly index: number;
  readonly time: number;

  constructor(state: AllotState) {
    assert(state.observer === null, 'another snapshot is in progress');
    this.#state = state;
    this.#frozen = new FrozenRows(state);
    this.index = state.index;
    this.time = state.time;
    this.#meta = metaSection(state);
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.#rows[slot] = state.slots[slot]?.size ?? 0;
    state.observer = this;
    state.producers.beginSnapshot();
  }

  /** Called by the state before a subject changes. */
  beforeSubjectChange(slot: number, row: number): void {
    if (this.#phase > Section.SUBJECTS || row >= (this.#rows[slot] as number)) return;
    if (this.#phase === Section.SUBJECTS && (slot < this.#unit || (slot === this.#unit && row < this.#part))) return;
    this.#frozen.freeze(slot, row, this.#rows[slot] as number);
  }

  /**
   * The next chunk, an own copy, or null when the snapshot is whole. It ends with the subject or producer that makes it at least
   * `bytesMax` long (a subject is about 300 bytes plus 40 for each allotment without a verdict, a producer at most 23 KiB). About 4 ms per MiB.
   */
  nextChunk(bytesMax: number): Uint8Array | null {
    if (this.#done) return null;
    const writer = this.#writer;
    writer.clear();
    writer.claim(CHUNK_HEADER);
    const producersBefore = this.#producers;
    do this.#section(bytesMax);
    while (!this.#done && writer.length < bytesMax && this.#producers - producersBefore < PRODUCERS_PER_CHUNK);
    const chunk = sealChunk(writer.toBytes(), this.#chunks);
    this.#chunks += 1;
    return chunk;
  }

  /** Ends it early and lets go of what it kept. */
  abandon(): void {
    if (this.#done) return;
    this.#state.producers.abandonSnapshot();
    this.#finish();
  }

  #section(bytesMax: number): void {
    switch (this.#phase) {
      case Section.META:
        this.#writer.bytes(this.#meta);
        this.#phase = Section.SUBJECTS;
        return;
      case Section.SUBJECTS:
        this.#subjectsSection(bytesMax);
        return;
      case Section.PRODUCERS:
        this.#producersSection(bytesMax);
        return;
      default:
        this.#writer.uint8(Section.END);
        this.#writer.uint32(this.#subjects);
        this.#writer.uint32(this.#unresolved);
        this.#writer.uint32(this.#producers);
        this.#finish();
    }
  }

  #subjectsSection(bytesMax: number): void {
    const slot = this.#state.slots[this.#unit] ?? null;
    const rows = this.#rows[this.#unit] as number;
    if (slot !== null && this.#part < rows) {
      const writer = this.#writer;
      writer.uint8(Section.SUBJECTS);
      writer.uint16(this.#unit);
      writer.uint32(this.#part);
      const countAt = writer.length;
      writer.uint32(0);
      const from = this.#part;
      while (this.#part < rows && (this.#part === from || writer.length < bytesMax)) {
        this.#subject(slot, this.#part);
        this.#part += 1;
      }
      writer.patchUint32(countAt, this.#part - from);
      this.#subjects += this.#part - from;
      if (this.#part < rows) return;
    }
    this.#unit += 1;
    this.#part = 0;
    if (this.#unit < SLOT_COUNT) return;
    this.#phase = Section.PRODUCERS;
    this.#unit = 0;
  }

  #subject(slot: SlotSubjects, row: number): void {
    const writer = this.#writer;
    const place = this.#frozen.placeOf(this.#unit, row);
    const isFrozen = place >= 0;
    const columns: SubjectColumns = isFrozen ? this.#frozen.columns(place) : slot;
    const at = isFrozen ? this.#frozen.rowIn(place) : row;
    const tail = columns.tail(at);
    const first = columns.first(at);
    const range = isFrozen ? this.#frozen.voidRange(this.#unit, row) : slot.voidRanges?.get(row);
    const fields =
      (first === 1 ? 0 : Field.FIRST) |
      (range === undefined ? 0 : Field.VOID_RANGE) |
      (tail === 0 ? 0 : Field.ALLOTMENTS);
    writer.uint8(fields);
    writer.uint8(columns.flags(at));
    const start = slot.names.nameStart(row);
    const length = slot.names.nameLength(row);
    writer.uint8(length);
    writer.bytes(slot.names.names, start, start + length);
    writer.safeUint(columns.head(at));
    if (first !== 1) writer.safeUint(first);
    if (range !== undefined) {
      writer.safeUint(range.from);
      writer.safeUint(range.to);
    }
    if (tail === 0) return;
    writer.safeUint(columns.settled(at));
    if (!isFrozen) {
      this.#unresolved += writeAllotments(writer, this.#state.pool, tail);
      return;
    }
    const allotments = this.#frozen.allotments(this.#unit, row);
    assert(allotments !== undefined, 'a frozen row lacks its allotments');
    writer.bytes(allotments, 4);
    this.#unresolved += new DataView(allotments.buffer, allotments.byteOffset).getUint32(0, true);
  }

  #producersSection(bytesMax: number): void {
    this.#bucket ??= this.#state.producers.beginBucket(this.#unit);
    const bucket = this.#bucket;
    if (this.#part < bucket.length) {
      const writer = this.#writer;
      writer.uint8(Section.PRODUCERS);
      writer.uint16(this.#unit);
      const countAt = writer.length;
      writer.uint32(0);
      const from = this.#part;
      while (this.#part < bucket.length && (this.#part === from || writer.length < bytesMax)) {
        writeProducer(writer, this.#state.producers.asOfSnapshot(bucket[this.#part] as FrozenProducer));
        this.#part += 1;
      }
      writer.patchUint32(countAt, this.#part - from);
      this.#producers += this.#part - from;
      if (this.#part < bucket.length) return;
    }
    this.#state.producers.endBucket(this.#unit);
    this.#bucket = null;
    this.#part = 0;
    this.#unit += 1;
    if (this.#unit === BUCKET_COUNT) this.#phase = Section.END;
  }

  #finish(): void {
    this.#done = true;
    this.#frozen = new FrozenRows(this.#state);
    this.#bucket = null;
    if (this.#state.observer === this) this.#state.observer = null;
  }
}

function metaSection(state: AllotState): Uint8Array {
  const writer = new ByteWriter();
  writer.uint8(Section.META);
  writer.safeUint(state.index);
  writer.safeUint(state.time);
  writer.uint32(state.chain >>> 0);
  writer.safeUint(state.floor);
  writer.uint32(state.nodes.rows.length);
  for (const row of state.nodes.rows) writeNode(writer, row);
  writer.safeUint(state.limits.subjectsMax);
  writer.safeUint(state.limits.producersMax);
  writer.safeUint(state.limits.openPerNodeMax);
  return writer.toBytes();
}

function writeNode(writer: ByteWriter, row: NodeRow): void {
  writer.uint8(row.name.length);
  writer.bytes(row.name);
  writer.uint32(row.incarnationLow);
  writer.uint32(row.incarnationHigh);
  writer.safeUint(row.startedIndex);
  writer.safeUint(row.lastRun);
}

function writeProducer(writer: ByteWriter, producer: FrozenProducer): void {
  const window = producer.window;
  writer.uint8(producer.name.length);
  writer.bytes(producer.name);
  writer.safeUint(producer.lastPublish);
  writer.safeUint(window.last);
  writer.uint16(window.size);
  let left = window.size;
  for (let sequence = window.last; left > 0; sequence--) {
    const entry = window.find(sequence);
    if (entry < 0) continue;
    left -= 1;
    writer.uint16(window.last - sequence);
    writer.safeUint(window.firstId(entry));
    writer.uint32(window.subject(entry));
    writer.uint32(window.count(entry));
    writer.uint32(window.checksum(entry));
  }
}
