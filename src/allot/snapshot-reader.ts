import { assert } from '../base/assert.ts';
import { ByteReader } from '../base/bytes.ts';
import { isPlanted } from '../base/planted.ts';
import { SLOT_COUNT, slotOfHash, subjectHash } from '../base/subject.ts';
import { type AllotState, rowOfSubject, slotOfSubject } from './allot-state.ts';
import { newRow } from './nodes.ts';
import type { Producer } from './producers.ts';
import { SequenceWindow, WINDOW_SEQUENCES } from './sequence-window.ts';
import { SlotSubjects } from './slot-subjects.ts';
import { chunkVersion, Field, openChunk, Section } from './snapshot-format.ts';
import { AllotVerdict } from './verdicts.ts';

interface Totals {
  /** 0 before the first chunk. */
  version: number;
  unresolved: number;
  ended: boolean;
}

/** Fills an empty state from the chunks of one snapshot, in order. Anything but a whole, undamaged snapshot is an AssertionError. */
export function restoreState(state: AllotState, chunks: Iterable<Uint8Array>): void {
  const totals: Totals = { version: 0, unresolved: 0, ended: false };
  let number = 0;
  for (const chunk of chunks) {
    const reader = new ByteReader(openChunk(chunk, number));
    const version = chunkVersion(chunk);
    totals.version ||= version;
    assert(version === totals.version, 'the chunks of a snapshot have different versions');
    while (reader.remaining > 0) {
      assert(!totals.ended, 'a snapshot goes on behind its end');
      const kind = reader.uint8();
      assert(
        number > 0 || reader.offset > 1 || kind === Section.META,
        'a snapshot does not begin with its meta section',
      );
      readSection(state, reader, kind, totals);
    }
    number += 1;
  }
  assert(totals.ended, 'a snapshot has no end: chunks are missing');
}

function readSection(state: AllotState, reader: ByteReader, kind: number, totals: Totals): void {
  switch (kind) {
    case Section.META:
      readMeta(state, reader, totals.version);
      return;
    case Section.SUBJECTS:
      totals.unresolved += readSubjects(state, reader);
      return;
    case Section.PRODUCERS:
      readProducers(state, reader);
      return;
    case Section.END:
      assert(reader.uint32() === state.subjects, 'a snapshot has another number of subjects than it says');
      assert(reader.uint32() === totals.unresolved, 'a snapshot has another number of allotments than it says');
      assert(reader.uint32() === state.producers.size, 'a snapshot has another number of producers than it says');
      totals.ended = true;
      return;
    default:
      assert(false, () => `unknown section ${kind} in a snapshot`);
  }
}

function readMeta(state: AllotState, reader: ByteReader, version: number): void {
  state.index = reader.safeUint();
  state.time = reader.safeUint();
  state.chain = reader.uint32() | 0;
  state.floor = reader.safeUint();
  const nodes = reader.uint32();
  for (let i = 0; i < nodes; i++) {
    const row = newRow(reader.take(reader.uint8()).slice());
    row.incarnationLow = reader.uint32();
    row.incarnationHigh = reader.uint32();
    row.startedIndex = reader.safeUint();
    // Version 1 is from before runs had numbers.
    if (version > 1) row.lastRun = reader.safeUint();
    if (isPlanted('R26-run-number-lost')) row.lastRun = 0;
    state.nodes.rows.push(row);
  }
  if (version === 1) return;
  const [subjectsMax, producersMax, openPerNodeMax] = [reader.safeUint(), reader.safeUint(), reader.safeUint()];
  state.limits = { subjectsMax, producersMax, openPerNodeMax };
}

/** Returns how many unresolved allotments there were. */
function readSubjects(state: AllotState, reader: ByteReader): number {
  const number = reader.uint16();
  const firstRow = reader.uint32();
  const rows = reader.uint32();
  assert(number < SLOT_COUNT, () => `slot ${number} in a snapshot`);
  let slot = state.slots[number] ?? null;
  if (slot === null) {
    slot = new SlotSubjects(Math.min(rows, reader.remaining), 0);
    state.slots[number] = slot;
  }
  assert(slot.size === firstRow, 'rows of a slot are missing from a snapshot');
  let unresolved = 0;
  for (let i = 0; i < rows; i++) unresolved += readSubject(state, slot, number, reader);
  return unresolved;
}

function readSubject(state: AllotState, slot: SlotSubjects, number: number, reader: ByteReader): number {
  const fields = reader.uint8();
  const flags = reader.uint8();
  const length = reader.uint8();
  const start = reader.skip(length);
  const head = reader.safeUint();
  const hash = subjectHash(reader.bytes, start, start + length);
  assert(slotOfHash(hash) === number, 'a subject of a snapshot is in the wrong slot');
  const row = slot.insert(reader.bytes, start, start + length, hash, head);
  slot.addFlags(row, flags);
  if ((fields & Field.FIRST) !== 0) slot.setFirst(row, reader.safeUint());
  if ((fields & Field.VOID_RANGE) !== 0) {
    slot.voidRanges ??= new Map();
    slot.voidRanges.set(row, { from: reader.safeUint(), to: reader.safeUint() });
  }
  state.subjects += 1;
  if ((fields & Field.ALLOTMENTS) === 0) return 0;
  const settled = reader.safeUint();
  slot.setSettled(row, settled);
  slot.setHead(row, settled);
  const unresolved = readAllotments(state, slot, number, row, reader);
  assert(slot.head(row) === head, 'the allotments of a subject do not reach its head');
  return unresolved;
}

function readAllotments(
  state: AllotState,
  slot: SlotSubjects,
  number: number,
  row: number,
  reader: ByteReader,
): number {
  const count = reader.uint32();
  let unresolved = 0;
  for (let i = 0; i < count; i++) {
    const verdict = reader.uint8();
    assert(verdict >= AllotVerdict.OPEN && verdict <= AllotVerdict.VOID, () => `verdict ${verdict} in a snapshot`);
    const taken = state.append(slot, number, row, reader.safeUint(), verdict);
    if (!state.pool.isUnresolved(taken)) continue;
    unresolved += 1;
    const node = reader.uint16();
    const low = reader.uint32();
    const high = reader.uint32();
    const shard = reader.uint32();
    const counter = reader.uint32();
    const openedAt = reader.safeUint();
    state.pool.describe(taken, openedAt, low, high, shard, counter, reader.uint32(), reader.uint32());
    state.nodes.link(state.pool, taken, node);
    if (verdict === AllotVerdict.OPEN) state.open += 1;
    else state.revoked += 1;
  }
  return unresolved;
}

function readProducers(state: AllotState, reader: ByteReader): void {
  const bucket = reader.uint16();
  const count = reader.uint32();
  const found: { producer: Producer; lastPublish: number }[] = [];
  for (let i = 0; i < count; i++) {
    const name = reader.take(reader.uint8()).slice();
    const hash = subjectHash(name, 0, name.length);
    assert(slotOfHash(hash) === bucket, 'a producer of a snapshot is in the wrong bucket');
    const lastPublish = reader.safeUint();
    const producer = state.producers.add(name, hash, new SequenceWindow());
    readWindow(state, reader, producer);
    found.push({ producer, lastPublish });
  }
  state.producers.restoreOrder(found);
}

function readWindow(state: AllotState, reader: ByteReader, producer: Producer): void {
  const window = producer.window;
  const last = reader.safeUint();
  window.last = last;
  const size = reader.uint16();
  assert(size <= WINDOW_SEQUENCES, () => `${size} sequences of one producer in a snapshot`);
  for (let i = 0; i < size; i++) {
    const sequence = last - reader.uint16();
    const firstId = reader.safeUint();
    const subject = reader.uint32();
    window.put(sequence, firstId, subject, reader.uint32(), reader.uint32());
    const slot = state.slotOf(subject);
    const holder = state.holderOf(slot, rowOfSubject(subject), firstId);
    if (holder !== 0 && state.pool.state(holder) === AllotVerdict.OPEN) {
      state.addPartOwner(holder, producer, sequence, firstId);
    }
    assert(
      slotOfSubject(subject) < SLOT_COUNT && firstId <= slot.head(rowOfSubject(subject)),
      'a sequence has ids above the head',
    );
  }
}
