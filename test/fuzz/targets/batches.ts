/** Batches as they are stored, the records sections that clients make, and the tokens of consume streams. */
import { crc32 } from 'node:zlib';
import { aligned, BATCH_HEADER_BYTES, BatchOffset } from '../../../src/batch/batch-format.ts';
import { BatchView } from '../../../src/batch/batch-view.ts';
import { RecordsScan } from '../../../src/batch/records-scan.ts';
import { SectionCutter } from '../../../src/batch/section-cutter.ts';
import { decodeResumeToken, encodeResumeToken } from '../../../src/grpc/resume-token.ts';
import { dataBatch, plain, subjectRef, voidBatch } from '../../unit/batch-support.ts';
import { loadOracle } from '../../unit/grpc-oracle.ts';
import { choiceOf, expect, type FuzzTarget } from '../target.ts';

const MIB = 1 << 20;
/** Sections of more records are cut one by one in other tests. */
const CUT_RECORDS_MAX = 64;

export function seedBatches(): Buffer[] {
  const subject = subjectRef('orders.eu');
  return [
    dataBatch(subject, [plain('hello')]).bytes,
    dataBatch(
      subjectRef('a'),
      [plain('one', 5), plain('two'), { ...plain('x'), headers: [{ key: 'k', value: Buffer.from('v') }] }],
      {
        base: Number.MAX_SAFE_INTEGER - 5,
      },
    ).bytes,
    dataBatch(
      subject,
      Array.from({ length: 20 }, (_, i) => plain(`message ${i}`, i % 3)),
      { base: 1_000 },
    ).bytes,
    voidBatch(subject, 8, 0xffff_ffff).bytes,
  ].map((bytes) => Buffer.from(bytes));
}

/** Lengths, most times, and both checksums. */
function repairBatch(bytes: Buffer): Buffer {
  let batch = bytes;
  if (batch.length < BATCH_HEADER_BYTES) return batch;
  if (choiceOf(bytes, 4) !== 0) {
    const total = aligned(batch.length);
    const prefix = BATCH_HEADER_BYTES + batch.readUInt8(BatchOffset.SUBJECT_LENGTH);
    const padding =
      batch.readUInt32LE(BatchOffset.TOTAL_LENGTH) - prefix - batch.readUInt32LE(BatchOffset.RECORDS_LENGTH);
    const zeros = padding >= 0 && padding < 8 ? padding : 0;
    batch = Buffer.concat([batch, Buffer.alloc(total - batch.length)]);
    batch.writeUInt32LE(total, BatchOffset.TOTAL_LENGTH);
    batch.writeUInt32LE(
      Math.max(0, Math.min(total, bytes.length === total ? total - zeros : bytes.length) - prefix),
      BatchOffset.RECORDS_LENGTH,
    );
  }
  const recordsStart = BATCH_HEADER_BYTES + batch.readUInt8(BatchOffset.SUBJECT_LENGTH);
  const recordsEnd = recordsStart + batch.readUInt32LE(BatchOffset.RECORDS_LENGTH);
  batch.writeUInt32LE(crc32(batch.subarray(recordsStart, recordsEnd)), BatchOffset.BODY_CRC);
  batch.writeUInt32LE(crc32(batch.subarray(BatchOffset.VERSION, recordsStart)), BatchOffset.HEADER_CRC);
  return batch;
}

const view = new BatchView();
const cutter = new SectionCutter();

const batch: FuzzTarget = {
  name: 'batch',
  about: 'a stored batch: header, records, and sections of it; checksums by zlib',
  memoryBytes: MIB,
  seeds: seedBatches,
  repair: repairBatch,
  run: (bytes) => {
    if (view.wrap(bytes, 0) !== null || !view.verifyBody()) return false;
    expect(
      view.totalLength <= bytes.length && view.recordsEnd <= view.totalLength,
      'a batch that ends behind its bytes',
    );
    const header = crc32(bytes.subarray(BatchOffset.VERSION, view.recordsStart));
    const body = crc32(bytes.subarray(view.recordsStart, view.recordsEnd));
    expect(header === bytes.readUInt32LE(BatchOffset.HEADER_CRC), 'a wrong checksum of the header is accepted');
    expect(body === bytes.readUInt32LE(BatchOffset.BODY_CRC), 'a wrong checksum of the body is accepted');
    expect(view.base >= 1 && view.base + (view.count - 1) <= Number.MAX_SAFE_INTEGER, 'ids that do not exist');
    if (!view.verifyRecords()) return false;
    if (view.recordsStart === view.recordsEnd) return true;
    let records = 0;
    while (view.next()) {
      records += 1;
      const isInside =
        view.bodyStart >= view.recordsStart && view.bodyStart <= view.bodyEnd && view.bodyEnd <= view.recordsEnd;
      expect(isInside && view.expiresAt >= 0, 'a body outside of the records');
    }
    expect(records === view.count, 'another number of records than it says', () => [records, view.count]);
    if (records <= CUT_RECORDS_MAX) checkSections(bytes);
    return true;
  },
};

/** Every record that has not expired is in one section, in order. */
function checkSections(bytes: Buffer): void {
  const now = view.publishedAt + choiceOf(bytes, 3) * 3_000;
  cutter.wrap(view, view.base, 1 + choiceOf(bytes, 100), now);
  let id = view.base;
  while (cutter.next()) {
    expect(cutter.firstId >= id && cutter.count >= 1, 'sections overlap');
    expect(cutter.start >= view.recordsStart && cutter.end <= view.recordsEnd && cutter.start < cutter.end, 'outside');
    id = cutter.firstId + cutter.count;
  }
  expect(id <= view.base + view.count, 'a section has more than the batch');
}

const LIMITS = { bodyBytes: 1 << 16, headersBytes: 512, headersCount: 4, records: 100 };
const scan = new RecordsScan();
const record = loadOracle('broker.v1.Record', { stringsAsBytes: true });
const TRACE = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

const section: FuzzTarget = {
  name: 'records-section',
  about: 'a records section that a client made, against protobufjs record by record',
  memoryBytes: MIB,
  dictionary: ['traceparent', TRACE],
  seeds: () => {
    const encoded = [
      record.encode({ body: Buffer.from('b') }),
      record.encode({
        body: Buffer.alloc(150, 1),
        expirationSeconds: 9,
        headers: [{ key: Buffer.from('k'), value: Buffer.from('v') }],
      }),
      record.encode({ headers: [{ key: Buffer.from('traceparent'), value: Buffer.from(TRACE) }] }),
      record.encode({ expirationSeconds: -1 }),
    ].map((bytes) =>
      Buffer.concat([
        Buffer.from(
          bytes.length < 128 ? [0x1a, bytes.length] : [0x1a, (bytes.length & 0x7f) | 0x80, bytes.length >>> 7],
        ),
        bytes,
      ]),
    );
    return [...encoded, Buffer.concat(encoded.slice(0, 3))];
  },
  run: (bytes) => {
    scan.wantsTraces = true;
    if (scan.scan(bytes, 0, bytes.length, LIMITS) !== null) return false;
    expect(scan.count >= 1 && scan.count <= LIMITS.records && scan.traces.length <= 16, 'beyond its limits');
    let at = 0;
    let count = 0;
    let expiresMax = 0;
    let isEndless = false;
    while (at < bytes.length) {
      const [start, length] = lengthAt(bytes, at + 1);
      const { body, headers, expirationSeconds } = record.decode(bytes.subarray(start, start + length)) as {
        readonly body: Uint8Array;
        readonly headers: readonly { readonly key: Uint8Array }[];
        readonly expirationSeconds: number;
      };
      expect(body.length <= LIMITS.bodyBytes && headers.length <= LIMITS.headersCount, 'a record beyond its limits');
      expect(
        expirationSeconds >= 0 && headers.every(({ key }) => key.length >= 1 && key.length <= 255),
        'a record that must not be',
      );
      expiresMax = Math.max(expiresMax, expirationSeconds);
      isEndless ||= expirationSeconds === 0;
      at = start + length;
      count += 1;
    }
    const found = [scan.count, scan.expiresMax, scan.hasExpiry];
    const told = [count, isEndless ? 0 : expiresMax, expiresMax > 0];
    expect(found.join() === told.join(), 'protobufjs reads other records', () => [found, told]);
    return true;
  },
};

function lengthAt(bytes: Buffer, offset: number): readonly [start: number, length: number] {
  let length = 0;
  for (let at = offset, scale = 1; ; at++, scale *= 0x80) {
    const byte = bytes.readUInt8(at);
    length += (byte & 0x7f) * scale;
    if (byte < 0x80) return [at + 1, length];
  }
}

const SUBJECTS_MAX = 100;

const resume: FuzzTarget = {
  name: 'resume-token',
  about: 'the token of a consume stream; what is accepted is written and read the same',
  memoryBytes: MIB,
  seeds: () => [
    encodeResumeToken({ patterns: new Set(), next: new Map(), times: new Map() }),
    encodeResumeToken({
      patterns: new Set(['a.>', 'b']),
      next: new Map([
        ['a.b', 7],
        ['b', Number.MAX_SAFE_INTEGER],
      ]),
      times: new Map([['b', 1_700_000_000_000]]),
    }),
  ],
  repair: (bytes) => {
    if (bytes.length <= 5) return bytes;
    bytes[4] = 1;
    bytes.writeUInt32LE(crc32(bytes.subarray(4)), 0);
    return bytes;
  },
  run: (bytes) => {
    const positions = decodeResumeToken(bytes, SUBJECTS_MAX);
    if (positions === null) return false;
    expect(crc32(bytes.subarray(4)) === bytes.readUInt32LE(0), 'a wrong checksum is accepted');
    expect(positions.next.size <= SUBJECTS_MAX && positions.patterns.size <= SUBJECTS_MAX, 'more than the most');
    const again = decodeResumeToken(encodeResumeToken(positions), SUBJECTS_MAX);
    const flat = (value: typeof positions | null): string =>
      JSON.stringify(value === null ? null : [[...value.patterns], [...value.next], [...value.times]]);
    expect(flat(again) === flat(positions), 'read otherwise the second time', () => flat(positions));
    return true;
  },
};

export const BATCH_TARGETS: readonly FuzzTarget[] = [batch, section, resume];
