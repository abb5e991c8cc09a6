import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { SubjectTable } from '../../src/base/subject-table.ts';

function checkAgainstMap(names: readonly Uint8Array[], hashOf: (name: Uint8Array) => number): void {
  const table = new SubjectTable();
  const rows = new Map<string, number>();
  for (const name of names) {
    const padded = Buffer.concat([Buffer.from('<<'), name, Buffer.from('>')]);
    const key = Buffer.from(name).toString('hex');
    const row = table.find(padded, 2, 2 + name.length, hashOf(name));
    assert.equal(row, rows.get(key) ?? -1);
    if (row >= 0) continue;
    rows.set(key, rows.size);
    assert.equal(table.insert(padded, 2, 2 + name.length, hashOf(name)), rows.size - 1);
  }
  assert.equal(table.size, rows.size);
  for (const [key, row] of rows) {
    const name = Buffer.from(key, 'hex');
    assert.equal(table.find(name, 0, name.length, hashOf(name)), row);
    assert.deepEqual(Buffer.from(table.nameAt(row)), name);
    assert.equal(table.nameLength(row), name.length);
    assert.equal(table.hashAt(row), hashOf(name));
  }
}

const hash = (name: Uint8Array) => subjectHash(name, 0, name.length);
const name = fc.uint8Array({ minLength: 1, maxLength: 255 });

test('finds exactly what was inserted, as a map would: random names of 1 to 255 bytes', () => {
  fc.assert(fc.property(fc.array(name, { maxLength: 60 }), (names) => checkAgainstMap(names, hash)));
});

for (const [what, weak] of [
  ['are equal', () => 0xdeadbeef],
  ['are 0', () => 0],
  ['differ in the top bit only', (each: Uint8Array) => ((each[0] as number) & 1) * 0x8000_0000],
  ['share the slot', (each: Uint8Array) => (hash(each) & ~1023) >>> 0],
] as const) {
  test(`finds exactly what was inserted when the hashes ${what}`, () => {
    const names = Array.from({ length: 400 }, (_, i) => Buffer.from(`subject.${(i * 7) % 311}`));
    checkAgainstMap(names, weak);
  });
}

test('10,000 subjects of one slot are found in a few steps each, and take less than 60 bytes each', () => {
  const table = new SubjectTable();
  const names: Buffer[] = [];
  for (let i = 0; names.length < 10_000; i++) names.push(Buffer.from(`orders.europe.${String(i).padStart(6, '0')}`));
  for (const each of names) table.insert(each, 0, each.length, (hash(each) & ~1023) >>> 0);
  for (const [row, each] of names.entries()) {
    assert.equal(table.find(each, 0, each.length, (hash(each) & ~1023) >>> 0), row);
  }
  assert.equal(table.nameBytes, 200_000);
  assert.ok(table.byteLength() / table.size < 60, `${table.byteLength() / table.size} bytes a subject`);
});

test('a row keeps its number and name through growth', () => {
  const table = new SubjectTable(1, 1);
  for (let i = 0; i < 5_000; i++) {
    const each = Buffer.from(`${i}`);
    assert.equal(table.insert(each, 0, each.length, hash(each)), i);
    if (i % 500 === 0) assert.equal(Buffer.from(table.nameAt(0)).toString(), '0');
  }
  assert.equal(Buffer.from(table.nameAt(4_999)).toString(), '4999');
});

test('a second insert of one subject, a name of 0 or 256 bytes, a bad hash and a bad row are assertions', () => {
  const table = new SubjectTable();
  const each = Buffer.alloc(300, 'x');
  table.insert(each, 0, 255, 5);
  assert.throws(() => table.insert(each, 0, 255, 5), AssertionError);
  assert.throws(() => table.insert(each, 0, 256, 5), AssertionError);
  assert.throws(() => table.insert(each, 0, 0, 5), AssertionError);
  assert.throws(() => table.insert(each, 0, 1, -5), AssertionError);
  assert.throws(() => table.nameAt(1), AssertionError);
  assert.throws(() => table.hashAt(-1), AssertionError);
  assert.equal(table.size, 1);
});
