/** The record-batch format, with protobufjs as the second opinion. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { crc32 } from '../../src/base/checksum.ts';
import { BatchBuilder, stampBatch } from '../../src/batch/batch-builder.ts';
import { BATCH_HEADER_BYTES, BatchKind, BatchOffset } from '../../src/batch/batch-format.ts';
import { BatchView } from '../../src/batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../src/batch/delivery.ts';
import { RecordsScan } from '../../src/batch/records-scan.ts';
import { VarintCursor, varintBytes, writeVarint } from '../../src/batch/varint.ts';
import {
  appendMessage,
  arbitraryBase,
  arbitraryMessage,
  arbitraryMessages,
  dataBatch,
  type Message,
  plain,
  subjectRef,
  voidBatch,
} from './batch-support.ts';
import { loadOracle } from './grpc-oracle.ts';

const recordOracle = loadOracle('broker.v1.Record');
const responseOracle = loadOracle('broker.MessageResponse');
const SUBJECT = subjectRef('orders.eu.größe');
const LIMITS = { bodyBytes: 100_000, headersBytes: 10_000, headersCount: 10, records: 1000 };

/** What protobufjs should see of a message. */
function expected(message: Message): object {
  return {
    body: Buffer.from(message.body),
    headers: message.headers.map(({ key, value }) => ({ key, value: Buffer.from(value) })),
    expirationSeconds: message.expirationSeconds,
  };
}

function wrapped(bytes: Uint8Array, offset = 0): BatchView {
  const view = new BatchView();
  assert.equal(view.wrap(bytes, offset), null);
  assert.ok(view.verifyBody());
  assert.ok(view.verifyRecords());
  return view;
}

function appendSection(builder: BatchBuilder, message: Message, isChecksumKnown: boolean): void {
  const source = wrapped(dataBatch(SUBJECT, [message]).bytes);
  const scan = new RecordsScan();
  assert.equal(scan.scan(source.bytes, source.recordsStart, source.recordsEnd, LIMITS), null);
  const checksum = isChecksumKnown ? crc32(source.bytes.subarray(source.recordsStart, source.recordsEnd)) : null;
  builder.appendSection(source.bytes, source.recordsStart, source.recordsEnd, scan, checksum);
}

test('a batch gives back its header and its records, as protobufjs reads them', () => {
  fc.assert(
    fc.property(arbitraryMessages, arbitraryBase, fc.nat(), (messages, base, publishedAt) => {
      const batch = dataBatch(SUBJECT, messages, { base, publishedAt });
      const view = wrapped(batch.bytes);
      assert.deepEqual(Buffer.from(view.subject()), Buffer.from(SUBJECT.bytes));
      assert.ok(view.subjectIs(SUBJECT.bytes));
      assert.deepEqual(
        [view.kind, view.base, view.count, view.publishedAt, view.hash, view.totalLength],
        [BatchKind.DATA, base, messages.length, publishedAt, SUBJECT.hash, batch.bytes.length],
      );
      const expiries = messages.map(({ expirationSeconds }) => expirationSeconds);
      assert.equal(view.expiresMax, expiries.includes(0) ? 0 : Math.max(...expiries));
      assert.equal(
        view.hasExpiry,
        expiries.some((seconds) => seconds > 0),
      );
      for (const message of messages) {
        assert.ok(view.next());
        const record = view.bytes.subarray(view.recordStart, view.recordEnd);
        assert.deepEqual(recordOracle.decode(record), expected(message));
        assert.equal(view.expirationSeconds, message.expirationSeconds);
        assert.deepEqual(Buffer.from(view.bytes.subarray(view.bodyStart, view.bodyEnd)), Buffer.from(message.body));
      }
      assert.equal(view.next(), false);
    }),
    { numRuns: 200 },
  );
});

test('the records section is `repeated Record records = 3` of any protobuf library', () => {
  fc.assert(
    fc.property(arbitraryMessages, (messages) => {
      const view = wrapped(dataBatch(SUBJECT, messages).bytes);
      const section = Buffer.from(view.bytes.subarray(view.recordsStart, view.recordsEnd));
      const theirs = messages.map((message) => {
        const record = recordOracle.encode(expected(message) as Record<string, unknown>);
        const frame = Buffer.alloc(6);
        frame[0] = 0x1a;
        return Buffer.concat([frame.subarray(0, writeVarint(frame, 1, record.length)), record]);
      });
      const scan = new RecordsScan();
      const bytes = Buffer.concat(theirs);
      assert.equal(scan.scan(bytes, 0, bytes.length, LIMITS), null);
      const mine = new RecordsScan();
      assert.equal(mine.scan(section, 0, section.length, LIMITS), null);
      assert.deepEqual([scan.count, scan.expiresMax, scan.hasExpiry], [mine.count, mine.expiresMax, mine.hasExpiry]);
    }),
    { numRuns: 100 },
  );
});

test('a section from a client is stored as it is, with count and expiry found by walking it', () => {
  fc.assert(
    fc.property(arbitraryMessages, arbitraryMessages, (first, second) => {
      const source = wrapped(dataBatch(SUBJECT, second).bytes);
      const scan = new RecordsScan();
      assert.equal(scan.scan(source.bytes, source.recordsStart, source.recordsEnd, LIMITS), null);
      const builder = new BatchBuilder();
      builder.reset(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
      for (const message of first) appendMessage(builder, message);
      builder.appendSection(source.bytes, source.recordsStart, source.recordsEnd, scan, null);
      const bytes = Buffer.from(builder.seal());
      stampBatch(bytes, 1, 1_700_000_000_000);
      assert.deepEqual(bytes, dataBatch(SUBJECT, [...first, ...second]).bytes);
    }),
    { numRuns: 100 },
  );
});

test('sections whose checksum is known are sealed as if all had been read again, whatever comes before, between and behind', () => {
  const arbitrarySection = fc.record({ length: fc.nat(3_000), isKnown: fc.boolean() });
  const arbitraryPart = fc.oneof(arbitraryMessage, arbitrarySection);
  fc.assert(
    fc.property(fc.array(arbitraryPart, { minLength: 1, maxLength: 8 }), fc.boolean(), (parts, isCut) => {
      const builder = new BatchBuilder();
      builder.reset(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
      const messages: Message[] = [];
      for (const part of parts) {
        const message = 'isKnown' in part ? plain('s'.repeat(part.length)) : part;
        messages.push(message);
        if ('isKnown' in part) appendSection(builder, message, part.isKnown);
        else appendMessage(builder, message);
      }
      if (isCut && messages.length > 1) {
        // As when calls of a sealed batch have to be taken out.
        builder.seal();
        builder.keepOnly((index) => index > 0);
        messages.shift();
      }
      const bytes = Buffer.from(builder.seal());
      stampBatch(bytes, 1, 1_700_000_000_000);
      assert.deepEqual(bytes, dataBatch(SUBJECT, messages).bytes);
    }),
    { numRuns: 300 },
  );
});

test('a section is refused by name: malformed, too large, negative expiry, too many', () => {
  const scan = (bytes: Buffer, limits = LIMITS): string | null =>
    new RecordsScan().scan(bytes, 0, bytes.length, limits);
  const section = (messages: Message[]): Buffer => {
    const view = wrapped(dataBatch(SUBJECT, messages).bytes);
    return Buffer.from(view.bytes.subarray(view.recordsStart, view.recordsEnd));
  };
  const good = section([plain('one'), plain('two', 5)]);
  assert.equal(scan(good), null);
  assert.equal(scan(Buffer.alloc(0)), 'MALFORMED_MESSAGE');
  assert.equal(scan(good.subarray(0, good.length - 1)), 'MALFORMED_MESSAGE');
  assert.equal(scan(Buffer.concat([good, Buffer.from([0x22, 0])])), 'MALFORMED_MESSAGE', 'another field');
  assert.equal(scan(good, { ...LIMITS, records: 1 }), 'BATCH_TOO_LARGE');
  assert.equal(scan(good, { ...LIMITS, bodyBytes: 2 }), 'BODY_TOO_LARGE');
  const headers = [{ key: 'k', value: Buffer.alloc(10) }];
  const headed = section([{ body: Buffer.alloc(0), headers, expirationSeconds: 0 }]);
  assert.equal(scan(headed), null);
  assert.equal(scan(headed, { ...LIMITS, headersBytes: 10 }), 'HEADERS_TOO_LARGE');
  assert.equal(scan(headed, { ...LIMITS, headersCount: 0 }), 'HEADERS_TOO_LARGE');
  for (const key of ['', 'k'.repeat(256)]) {
    const nameless = section([
      { body: Buffer.alloc(0), headers: [{ key, value: Buffer.alloc(1) }], expirationSeconds: 0 },
    ]);
    assert.equal(scan(nameless), 'HEADER_INVALID', `a key of ${key.length} bytes`);
  }
  const noText = Buffer.from([0x1a, 5, 0x2a, 3, 0x0a, 1, 0xff]);
  assert.equal(scan(noText), 'HEADER_INVALID', 'a key that is no UTF-8');
  const negative = recordOracle.encode({ expirationSeconds: -1 });
  assert.equal(scan(Buffer.concat([Buffer.from([0x1a, negative.length]), negative])), 'EXPIRATION_NEGATIVE');
});

test('a delivery is the record and three fields: protobufjs reads a MessageResponse', () => {
  fc.assert(
    fc.property(arbitraryMessages, arbitraryBase, (messages, base) => {
      const publishedAt = 1_763_930_000_123;
      const view = wrapped(dataBatch(SUBJECT, messages, { base, publishedAt }).bytes);
      messages.forEach((message, i) => {
        assert.ok(view.recordAt(base + i));
        const length = encodedDeliveryBytes(view, base + i, SUBJECT.bytes.length);
        const target = Buffer.alloc(length + 20, 0xee);
        assert.equal(encodeDelivery(view, base + i, SUBJECT.bytes, target, 10), 10 + length);
        assert.ok(target.subarray(0, 10).every((byte) => byte === 0xee));
        assert.ok(target.subarray(10 + length).every((byte) => byte === 0xee));
        const response = responseOracle.decode(target.subarray(10, 10 + length));
        assert.deepEqual(
          { ...response },
          {
            ...response,
            ...expected(message),
            expirationSeconds: response.expirationSeconds,
            id: String(base + i),
            subject: 'orders.eu.größe',
            published_at: String(publishedAt),
          },
        );
      });
    }),
    { numRuns: 100 },
  );
});

test('keepOnly leaves the batch that would have been built without the others', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(arbitraryMessage, fc.boolean()), { minLength: 1, maxLength: 8 }), (pairs) => {
      fc.pre(pairs.some(([, kept]) => kept));
      const builder = new BatchBuilder();
      builder.reset(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
      for (const [message] of pairs) appendMessage(builder, message);
      builder.seal();
      builder.keepOnly((i) => pairs[i]?.[1] === true);
      const bytes = Buffer.from(builder.seal());
      stampBatch(bytes, 1, 1_700_000_000_000);
      const kept = pairs.filter(([, isKept]) => isKept).map(([message]) => message);
      assert.deepEqual(bytes, dataBatch(SUBJECT, kept).bytes);
      assert.deepEqual(builder.count, kept.length);
    }),
    { numRuns: 100 },
  );
});

test('a builder that is used again leaves nothing of the batch before', () => {
  const builder = new BatchBuilder();
  for (const size of [400_000, 3, 70_000, 1]) {
    builder.reset(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
    const message = { body: Buffer.alloc(size, 0xab), headers: [], expirationSeconds: size === 3 ? 9 : 0 };
    appendMessage(builder, message);
    const bytes = Buffer.from(builder.seal());
    stampBatch(bytes, 1, 1_700_000_000_000);
    assert.deepEqual(bytes, dataBatch(SUBJECT, [message]).bytes);
    assert.deepEqual(Buffer.from(builder.lastRecord()), Buffer.from(wrappedRecord(bytes)));
  }
});

function wrappedRecord(bytes: Uint8Array): Uint8Array {
  const view = wrapped(bytes);
  assert.ok(view.next());
  return view.bytes.subarray(view.recordStart, view.recordEnd);
}

test('a void mark has ids and no records', () => {
  const mark = voidBatch(SUBJECT, 7, 5);
  const view = wrapped(mark.bytes);
  assert.deepEqual([view.kind, view.base, view.count, view.expiresMax], [BatchKind.VOID, 7, 5, 0]);
  assert.equal(view.recordsStart, view.recordsEnd);
  assert.equal(view.next(), false);
  assert.equal(view.recordAt(8), false);
});

test('random access finds every record, in any order, and nothing outside of the batch', () => {
  const messages = Array.from({ length: 50 }, (_, i) => plain(`message ${i}`));
  const view = wrapped(dataBatch(SUBJECT, messages, { base: 100 }).bytes);
  fc.assert(
    fc.property(fc.integer({ min: 90, max: 160 }), (id) => {
      const isIn = id >= 100 && id < 150;
      assert.equal(view.recordAt(id), isIn);
      if (isIn)
        assert.equal(Buffer.from(view.bytes.subarray(view.bodyStart, view.bodyEnd)).toString(), `message ${id - 100}`);
    }),
  );
  assert.throws(() => view.seek(99), AssertionError);
  assert.ok(view.seek(150), 'the end of the batch');
  assert.equal(view.next(), false);
});

test('[S5] every flipped bit of a batch is found', () => {
  const batch = dataBatch(SUBJECT, [plain('one'), plain('two', 7), plain('')]).bytes;
  const view = new BatchView();
  for (let bit = 0; bit < batch.length * 8; bit++) {
    const copy = Buffer.from(batch);
    copy.writeUInt8(copy.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    const isFound = view.wrap(copy, 0) !== null || !view.verifyBody();
    assert.ok(isFound, `bit ${bit & 7} of byte ${bit >> 3}`);
  }
});

test('[S5] whatever the bytes are, a view names the fault and never throws', () => {
  const batch = dataBatch(SUBJECT, [plain('one'), plain('two', 7)]).bytes;
  const patch = fc.tuple(fc.nat(batch.length - 1), fc.nat(255));
  const view = new BatchView();
  fc.assert(
    fc.property(fc.array(patch, { maxLength: 6 }), fc.nat(batch.length), fc.nat(16), (patches, length, offset) => {
      const copy = Buffer.from(batch).subarray(0, length);
      for (const [at, value] of patches) if (at < length) copy[at] = value;
      if (view.wrap(copy, offset) !== null || !view.verifyBody()) return;
      assert.deepEqual([copy, offset], [batch, 0]);
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.integer({ min: -5, max: 500 }), (bytes, offset) => {
      assert.notEqual(view.wrap(bytes, offset), null);
    }),
  );
});

test('records that lie about their lengths are found, though checksums are right', () => {
  const arbitraryLie = fc.tuple(fc.nat(60), fc.nat(255));
  fc.assert(
    fc.property(fc.array(arbitraryLie, { minLength: 1, maxLength: 4 }), (lies) => {
      const builder = new BatchBuilder();
      builder.reset(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
      for (const text of ['first', 'second', 'third']) appendMessage(builder, plain(text, 3));
      const start = BATCH_HEADER_BYTES + SUBJECT.bytes.length;
      const sealed = builder.seal();
      for (const [at, value] of lies) if (start + at < builder.byteLength) sealed[start + at] = value;
      sealed.writeUInt32LE(crc32(sealed.subarray(start, builder.byteLength)), BatchOffset.BODY_CRC);
      stampBatch(sealed, 1, 1);
      const view = new BatchView();
      assert.equal(view.wrap(sealed, 0), null);
      assert.ok(view.verifyBody());
      if (!view.verifyRecords()) return;
      for (let i = 0; i < 3; i++) {
        assert.ok(view.next());
        assert.ok(view.recordStart <= view.bodyStart && view.bodyEnd <= view.recordEnd);
        assert.ok(view.expirationSeconds >= -1);
      }
      assert.equal(view.next(), false);
    }),
    { numRuns: 1000 },
  );
});

test('ids and times beyond 2^53-1 are refused, by writer and reader', () => {
  const batch = dataBatch(SUBJECT, [plain('a'), plain('b')], { base: Number.MAX_SAFE_INTEGER - 1 });
  assert.equal(wrapped(batch.bytes).base, Number.MAX_SAFE_INTEGER - 1);
  assert.throws(() => stampBatch(batch.bytes, Number.MAX_SAFE_INTEGER, 1), AssertionError);
  assert.throws(() => stampBatch(batch.bytes, 0, 1), AssertionError);
  assert.throws(() => stampBatch(batch.bytes, 1, 2 ** 53), AssertionError);
  const bytes = Buffer.from(batch.bytes);
  bytes.writeUInt32LE(0x20_0000, BatchOffset.BASE + 4);
  assert.equal(new BatchView().wrap(bytes, 0), 'ids');
});

test('varints are those of protobuf, to 2^53-1', () => {
  const cursor = new VarintCursor();
  const arbitrary = fc.oneof(fc.maxSafeNat(), fc.nat(300), fc.integer({ min: 2 ** 31 - 3, max: 2 ** 35 + 3 }));
  fc.assert(
    fc.property(arbitrary, (value) => {
      const bytes = Buffer.alloc(12, 0xff);
      const end = writeVarint(bytes, 1, value);
      assert.equal(end - 1, varintBytes(value));
      assert.equal(cursor.read(bytes, 1, end), end);
      assert.equal(cursor.value, value);
      assert.equal(cursor.read(bytes, 1, end - 1), -1, 'cut off');
      const theirs = responseOracle.decode(Buffer.concat([Buffer.from([0x10]), bytes.subarray(1, end)]));
      assert.equal(theirs.id, String(value));
    }),
  );
  assert.equal(cursor.read(Buffer.from('ffffffffffffffffff01', 'hex'), 0, 10), -1, 'beyond 2^53-1');
  assert.equal(cursor.read(Buffer.alloc(12, 0xff), 0, 12), -1, 'too long');
});
