/** Random and mutated bytes: no scanner throws, hangs or reads outside its range, and what it accepts protobufjs reads the same way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  FetchScan,
  PublishScan,
  type ScanLimits,
  Start,
  SubjectRange,
  SubscribeScan,
  scanFetch,
  scanPublish,
  scanSubject,
  scanSubscribe,
} from '../../src/grpc/codec.ts';
import { loadOracle } from './grpc-oracle.ts';

const LIMITS: ScanLimits = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64 };
const RUNS = 3_000;
const PADDING = 16;

const publishRequest = loadOracle('broker.PublishRequest', { stringsAsBytes: true });
const fetchRequest = loadOracle('broker.FetchRequest', { stringsAsBytes: true });
const subscribeRequest = loadOracle('broker.SubscribeRequest', { stringsAsBytes: true });
const header = loadOracle('broker.Header', { stringsAsBytes: true });

const blob = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((value) => Buffer.from(value));

const whole: fc.Arbitrary<Buffer> = fc
  .record(
    {
      subject: blob(20),
      body: blob(300),
      expirationSeconds: fc.integer(),
      headers: fc.array(fc.record({ key: blob(10), value: blob(10) }), { maxLength: 3 }),
      producer_id: blob(10),
      sequence: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }).map(String),
    },
    { requiredKeys: [] },
  )
  .map((fields) => publishRequest.encode(fields));

/** A byte set, bits flipped, a range cut out, doubled or replaced by noise. */
const mutated: fc.Arbitrary<Buffer> = fc
  .tuple(whole, fc.array(fc.tuple(fc.nat(), fc.nat(40), blob(12), fc.nat(3)), { minLength: 1, maxLength: 4 }))
  .map(([start, edits]) =>
    edits.reduce((bytes, [where, length, noise, kind]) => {
      const at = where % (bytes.length + 1);
      const to = Math.min(bytes.length, at + length);
      switch (kind) {
        case 0:
          return Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
        case 1:
          return Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
        case 2:
          return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
        default:
          return Buffer.from(
            bytes.map((byte, i) => (i >= at && i < at + noise.length ? byte ^ (noise[i - at] as number) : byte)),
          );
      }
    }, start),
  );

/** Many short varints and tags of known fields: deeper into the scanners than noise gets. */
const tagged: fc.Arbitrary<Buffer> = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 63 }), blob(12)), { maxLength: 12 })
  .map((parts) => Buffer.concat(parts.flatMap(([tag, bytes]) => [Buffer.from([tag]), bytes])));

const anyMessage = fc.oneof(
  fc.uint8Array({ maxLength: 400 }).map((value) => Buffer.from(value)),
  mutated,
  tagged,
  whole,
);

/** `message` between bytes that would be a valid end of nearly anything, so that reading past the end would go unnoticed by the scanner. */
function framed(message: Buffer): { frame: Buffer; start: number; end: number } {
  const frame = Buffer.concat([Buffer.alloc(PADDING, 0x01), message, Buffer.alloc(PADDING, 0x01)]);
  return { frame, start: PADDING, end: PADDING + message.length };
}

function assertInside(start: number, end: number, low: number, high: number): void {
  assert.ok(start >= low && start <= end && end <= high, `[${start}, ${end}) is not in [${low}, ${high})`);
}

test(`scanPublish on ${RUNS} random or mutated messages: never throws, and agrees with protobufjs on all it accepts`, () => {
  const scan = new PublishScan();
  fc.assert(
    fc.property(anyMessage, (message) => {
      const { frame, start, end } = framed(message);
      const fault = scanPublish(frame, start, end, scan, LIMITS);
      assertInside(scan.subjectStart, scan.subjectEnd, start, end);
      assertInside(scan.bodyStart, scan.bodyEnd, start, end);
      assertInside(scan.producerStart, scan.producerEnd, start, end);
      for (let i = 0; i < scan.headerCount * 2; i += 2) {
        assertInside(scan.headers[i] as number, scan.headers[i + 1] as number, start, end);
      }
      if (fault !== null) return;
      const headers = Array.from({ length: scan.headerCount }, (_, i) =>
        header.decode(frame.subarray(scan.headers[i * 2], scan.headers[i * 2 + 1])),
      );
      assert.deepEqual(
        {
          headers,
          subject: frame.subarray(scan.subjectStart, scan.subjectEnd),
          body: frame.subarray(scan.bodyStart, scan.bodyEnd),
          expirationSeconds: scan.expirationSeconds,
          producer_id: frame.subarray(scan.producerStart, scan.producerEnd),
          sequence: String(scan.sequence),
        },
        publishRequest.decode(message),
      );
    }),
    { numRuns: RUNS },
  );
});

test(`scanSubject, scanFetch and scanSubscribe on ${RUNS} random or mutated messages: the same`, () => {
  const range = new SubjectRange();
  const fetch = new FetchScan();
  const subscribe = new SubscribeScan();
  fc.assert(
    fc.property(anyMessage, (message) => {
      const { frame, start, end } = framed(message);
      const subjectFault = scanSubject(frame, start, end, range);
      assertInside(range.start, range.end, start, end);
      const fetchFault = scanFetch(frame, start, end, fetch);
      const subscribeFault = scanSubscribe(frame, start, end, subscribe);
      const subject = frame.subarray(range.start, range.end);
      if (subjectFault === null && fetchFault === null) {
        assert.deepEqual({ subject, id: String(fetch.id) }, fetchRequest.decode(message));
      }
      if (subjectFault === null && subscribeFault === null) {
        const decoded = subscribeRequest.decode(message);
        assert.deepEqual(decoded.subject, subject);
        if (subscribe.start === Start.EARLIEST) assert.equal(decoded.earliest, true);
        if (subscribe.start === Start.ID) assert.equal(decoded.id, String(subscribe.value));
        if (subscribe.start === Start.TIME) assert.equal(decoded.time, String(subscribe.value));
      }
    }),
    { numRuns: RUNS },
  );
});

test('[F7] a message nested 100,000 deep, and one of 1 MiB of unknown fields, cost one walk and no stack', () => {
  let nested: Buffer = Buffer.from([0x0a, 0x00]);
  const parts: Buffer[] = [];
  for (let depth = 0, length = 2; depth < 100_000; depth++) {
    const prefix = lengthPrefix(0x22, length);
    parts.push(prefix);
    length += prefix.length;
  }
  nested = Buffer.concat([...parts.reverse(), nested]);
  const unknown = Buffer.alloc(1 << 20, Buffer.from([0x78, 0x01]));
  for (const message of [nested, unknown]) {
    const began = process.cpuUsage();
    for (const scan of [
      () => scanPublish(message, 0, message.length, new PublishScan(), LIMITS),
      () => scanSubject(message, 0, message.length, new SubjectRange()),
      () => scanFetch(message, 0, message.length, new FetchScan()),
      () => scanSubscribe(message, 0, message.length, new SubscribeScan()),
    ]) {
      scan();
    }
    assert.ok(process.cpuUsage(began).user < 1e6, 'more than a second');
  }
});

function lengthPrefix(tag: number, length: number): Buffer {
  const bytes = [tag];
  let rest = length;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}
