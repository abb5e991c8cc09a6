import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fillMachine } from '../../perf/lib/state-fill.ts';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { SubjectTable } from '../../src/base/subject-table.ts';
import { loadSidecar, SidecarBuilder } from '../../src/storage/embedded/sidecar.ts';
import { newEntry } from '../../src/storage/embedded/slot-index.ts';
import { SubjectIndex } from '../../src/storage/embedded/subject-index.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { openNode, openSubjects } from './raft-node-rig.ts';

const SUBJECTS = 100_000;
const LIMITS = { subjectsMax: SUBJECTS, producersMax: 10, openPerNodeMax: 1_000 };
const nameOf = (index: number): string => `device.${String(index).padStart(6, '0')}.state`;
const NAME_BYTES = nameOf(0).length;

test('a subject costs the state machine less than 65 bytes beside its name, before and after a restart', (t) => {
  const machine = fillMachine(LIMITS, SUBJECTS, nameOf);
  assert.equal(machine.counts().subjects, SUBJECTS);
  const grown = machine.counts().bytes / SUBJECTS - NAME_BYTES;
  const chunks: Uint8Array[] = [];
  const writer = machine.beginSnapshot();
  for (let chunk = writer.nextChunk(65_536); chunk !== null; chunk = writer.nextChunk(65_536)) chunks.push(chunk);
  const restored = AllotMachine.restore(chunks, LIMITS);
  assert.equal(restored.counts().subjects, SUBJECTS);
  const again = restored.counts().bytes / SUBJECTS - NAME_BYTES;
  t.diagnostic(`${grown.toFixed(1)} bytes, ${again.toFixed(1)} bytes after a restart`);
  assert.ok(grown < 65, `${grown.toFixed(1)} bytes`);
  assert.ok(again < 65, `${again.toFixed(1)} bytes after a restart`);
});

test('a batch costs the notes of a segment less than 42 bytes where the index has the name, and the index less than 70 bytes beside the name', (t) => {
  const index = new SubjectIndex();
  const notes = new SidecarBuilder();
  const entry = newEntry();
  for (let i = 0; i < SUBJECTS; i++) {
    const bytes = Buffer.from(nameOf(i));
    const place = index.rowFor(bytes, 0, bytes.length, subjectHash(bytes, 0, bytes.length));
    index.putAt(place, entry);
    notes.addRow(place.slot.table, place.row, entry, 0);
  }
  const noted = notes.byteLength() / SUBJECTS;
  const indexed = index.byteLength() / SUBJECTS - NAME_BYTES;
  t.diagnostic(`${noted.toFixed(1)} and ${indexed.toFixed(1)} bytes`);
  assert.ok(noted < 42, `${noted.toFixed(1)} bytes`);
  assert.ok(indexed < 70, `${indexed.toFixed(1)} bytes`);
});

test('notes that point into several tables, one subject in two of them, make a sidecar with every batch', () => {
  const notes = new SidecarBuilder();
  const expected = new Map<string, number[]>();
  const bytesOf = (subject: string) => Buffer.from(subject);
  const hashOf = (subject: string) => subjectHash(bytesOf(subject), 0, subject.length);
  const tables = Array.from({ length: 3 }, () => new SubjectTable());
  const entry = { ...newEntry(), count: 1, length: 64 };
  for (let i = 0; i < 10_000; i++) {
    const subject = `s.${(i * 7) % 900}`;
    entry.base = i + 1;
    expected.set(subject, [...(expected.get(subject) ?? []), entry.base]);
    const [bytes, hash] = [bytesOf(subject), hashOf(subject)];
    const table = tables[i % 4];
    if (table === undefined) {
      notes.add(bytes, 0, bytes.length, hash, entry, 0);
      continue;
    }
    const found = table.find(bytes, 0, bytes.length, hash);
    notes.addRow(table, found < 0 ? table.insert(bytes, 0, bytes.length, hash) : found, entry, 0);
  }
  const summary = notes.summary({ segment: 1, nonce: 2, length: 3, chain: 4, damaged: 0 });
  assert.equal(summary.batches, 10_000);
  const index = new SubjectIndex();
  assert.equal(
    loadSidecar(notes.encode(summary), index, () => true),
    10_000,
  );
  assert.equal(index.subjects, 900);
  for (const [subject, bases] of expected) {
    const cursor = index.find({ bytes: bytesOf(subject), hash: hashOf(subject) });
    assert.deepEqual(
      Array.from({ length: cursor.length }, (_, i) => cursor.base(i)),
      bases,
    );
  }
});

test('a node without peers keeps no applied entry in memory, before and after a restart, and its snapshots are whole', async (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'raft'), { recursive: true });
  const first = await openNode(t, folder, { snapshotEntries: 100 });
  openSubjects(first.node, 0, 350);
  while (first.lines.every(({ message }) => message !== 'took a snapshot')) {
    first.node.work();
    await new Promise((resolve) => setImmediate(resolve));
  }
  openSubjects(first.node, 350, 400);
  first.node.countLevels();
  assert.equal(first.counters.get('subjects'), 400);
  assert.equal(first.counters.get('log_memory_bytes'), 0);
  const { index } = first.node.machine;
  first.node.close();

  const second = await openNode(t, folder);
  second.node.countLevels();
  assert.equal(second.counters.get('subjects'), 400);
  assert.equal(second.counters.get('log_memory_bytes'), 0);
  assert.ok(second.node.machine.index > index);
  openSubjects(second.node, 400, 410);
  second.node.close();
  rmSync(folder, { recursive: true });
});

test('what a subject has in flight leaves in any order, and ids above it stay unresolved', () => {
  const subject = new ActiveSubject({ bytes: Buffer.from('s'), hash: 1 });
  assert.equal(subject.resolvedTo, -1);
  const [a, b, c] = [subject.allotted(1, 2, 10), subject.allotted(3, 1, 20), subject.allotted(4, 3, 30)];
  assert.deepEqual([subject.resolvedTo, subject.idle], [0, false]);
  assert.deepEqual(
    [9, 10, 15, 30, 31].map((ms) => subject.firstInFlightSince(ms)),
    [1, 1, 3, 4, 7],
  );
  subject.resolved(b);
  assert.deepEqual(
    [1, 3, 4, 7].map((id) => subject.isResolved(id)),
    [false, true, false, false],
  );
  assert.equal(subject.resolvedTo, 0);
  subject.resolved(a);
  assert.equal(subject.resolvedTo, 3);
  subject.resolved(c);
  assert.deepEqual([subject.resolvedTo, subject.idle, subject.isResolved(6)], [6, true, true]);
  const d = subject.allotted(7, 1, 40);
  assert.equal(subject.resolvedTo, 6);
  subject.resolved(d);
  assert.equal(subject.resolvedTo, 7);
});
