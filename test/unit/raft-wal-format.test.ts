/** Golden bytes: what is on disks today must be read by every later release. A change here needs a new format version. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  parseAppend,
  parsePointer,
  parseSegment,
  RecordBuilder,
  RecordMalformed,
} from '../../src/storage/raft-wal/record.ts';

const PLACE = { epoch: 0x01020304, previous: 0x0a0b0c0d, position: 64, synced: 48 };

function hex(builder: RecordBuilder): string {
  return builder.bytes.toString('hex', 0, builder.length);
}

function sealed(put: (builder: RecordBuilder) => void): { hex: string; payload: Uint8Array; own: number } {
  const builder = new RecordBuilder();
  put(builder);
  const own = builder.seal(PLACE);
  const length = builder.bytes.readUInt32LE(8);
  return { hex: hex(builder), payload: Uint8Array.from(builder.bytes.subarray(32, 32 + length)), own };
}

test('a segment header has these bytes', () => {
  const instance = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  const record = sealed((builder) => builder.putSegment(3, 2 ** 53 - 2, instance));
  assert.equal(record.hex, GOLDEN_SEGMENT);
  assert.deepEqual(parseSegment(record.payload), {
    sequence: 3,
    firstIndex: 2 ** 53 - 2,
    instance: Uint8Array.from(instance),
  });
});

test('an append record has these bytes', () => {
  const entries = [
    { term: 7, index: 5, type: 0, data: Buffer.from('ab') },
    { term: 7, index: 6, type: 1, data: new Uint8Array(0) },
  ];
  const hardState = { term: 7, vote: 'n1', commit: 4 };
  const record = sealed((builder) => builder.putAppend(entries, hardState));
  assert.equal(record.hex, GOLDEN_APPEND);
  assert.equal(record.own, Buffer.from(record.hex.slice(0, 8), 'hex').readUInt32LE());
  const parsed = parseAppend(record.payload);
  assert.deepEqual(parsed.hardState, hardState);
  assert.deepEqual(
    parsed.entries.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data) })),
    [
      { term: 7, index: 5, type: 0, data: Buffer.from('ab') },
      { term: 7, index: 6, type: 1, data: Buffer.alloc(0) },
    ],
  );
});

test('a snapshot pointer has these bytes', () => {
  const pointer = { index: 5, term: 2, bytes: 1000, crc: 0xdeadbeef, installed: true };
  const record = sealed((builder) => builder.putPointer(pointer));
  assert.equal(record.hex, GOLDEN_POINTER);
  assert.deepEqual(parsePointer(record.payload), pointer);
});

test('[R29] numbers beyond 2^53-1, in records with right checksums, are refused', () => {
  const bad = sealed((builder) =>
    builder.putAppend([{ term: 1, index: 5, type: 0, data: Buffer.from('ab') }], null),
  ).payload;
  for (const at of [8, 16]) {
    const copy = Uint8Array.from(bad);
    copy[at + 6] = 0x20;
    assert.throws(() => parseAppend(copy), RecordMalformed);
    copy[at + 7] = 0xff;
    assert.throws(() => parseAppend(copy), RecordMalformed);
  }
  const pointer = sealed((builder) =>
    builder.putPointer({ index: 1, term: 1, bytes: 1, crc: 0, installed: false }),
  ).payload;
  pointer[7] = 0x7f;
  assert.throws(() => parsePointer(pointer), RecordMalformed);
});

test('a cut or extended payload of any record type is refused', () => {
  const hardState = { term: 7, vote: 'n1', commit: 4 };
  const append = sealed((builder) =>
    builder.putAppend([{ term: 1, index: 5, type: 0, data: Buffer.from('ab') }], hardState),
  ).payload;
  for (let length = 0; length < append.length; length++) {
    assert.throws(() => parseAppend(append.subarray(0, length)), RecordMalformed, `length ${length}`);
  }
  const longer = Buffer.concat([append, Buffer.alloc(1)]);
  assert.throws(() => parseAppend(longer), RecordMalformed);
  assert.throws(() => parsePointer(new Uint8Array(31)), RecordMalformed);
  assert.throws(() => parseSegment(new Uint8Array(33)), RecordMalformed);
});

const GOLDEN_SEGMENT =
  'e555963ca12d85b820000000574c0101040302010d0c0b0a40000000300000000300000000000000feffffffffff1f0000112233445566778899aabbccddeeffffffffffffffffff';
const GOLDEN_APPEND =
  'd131e9583b885ee944000000574c0201040302010d0c0b0a400000003000000002000000010200000500000000000000070000000000000004000000000000006e3107000000000000000200000000000000616207000000000000000000000001000000ffffffff';
const GOLDEN_POINTER =
  '4668737b18be1c6f20000000574c0301040302010d0c0b0a400000003000000005000000000000000200000000000000e803000000000000efbeadde01000000ffffffffffffffff';
