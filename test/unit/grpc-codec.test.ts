import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeId,
  encodeBroadcastMessage,
  encodeBroadcastResponse,
  encodeId,
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
import { Writer } from '../support/wire.ts';
import { type Fields, loadOracle } from './grpc-oracle.ts';

const LIMITS: ScanLimits = { bodyBytes: 1_000, headersBytes: 500, headersCount: 8 };
const NONE = Buffer.alloc(0);

const publishRequest = loadOracle('broker.PublishRequest');
const fetchRequest = loadOracle('broker.FetchRequest');
const subscribeRequest = loadOracle('broker.SubscribeRequest');
const publishResponse = loadOracle('broker.PublishResponse');
const incIdxResponse = loadOracle('broker.IncIdxResponse');
const broadcastResponse = loadOracle('broker.BroadcastResponse');
const messageResponse = loadOracle('broker.MessageResponse');
const header = loadOracle('broker.Header');

/** Scans `message` in the middle of other bytes, as it lies in a ring. */
function publishOf(message: Uint8Array, limits: ScanLimits = LIMITS) {
  const frame = Buffer.concat([Buffer.from([0xff, 0xff]), message, Buffer.from([0xff])]);
  const scan = new PublishScan();
  const fault = scanPublish(frame, 2, 2 + message.length, scan, limits);
  return { fault, frame, scan };
}

/** What the scan says, in the shape of the oracle's answer. */
function fieldsOf({ frame, scan }: { frame: Buffer; scan: PublishScan }): Fields {
  const headers: Fields[] = [];
  for (let i = 0; i < scan.headerCount * 2; i += 2) {
    headers.push(header.decode(frame.subarray(scan.headers[i], scan.headers[i + 1])));
  }
  return {
    headers,
    subject: frame.toString('utf8', scan.subjectStart, scan.subjectEnd),
    body: Buffer.from(frame.subarray(scan.bodyStart, scan.bodyEnd)),
    expirationSeconds: scan.expirationSeconds,
    producer_id: frame.toString('utf8', scan.producerStart, scan.producerEnd),
    sequence: String(scan.sequence),
  };
}

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((value) => Buffer.from(value));
const text = (maxLength: number): fc.Arbitrary<string> => fc.string({ unit: 'grapheme', maxLength });
const headers = fc.array(
  fc.record({ key: fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 20 }), value: bytes(20) }),
  { maxLength: 4 },
);
const producer = fc.record({
  producer_id: fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 64 }),
  sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }).map(String),
});
const publishFields: fc.Arbitrary<Fields> = fc
  .tuple(
    fc.record(
      { subject: text(40), body: bytes(60), expirationSeconds: fc.integer({ min: 0, max: 0x7fff_ffff }), headers },
      { requiredKeys: [] },
    ),
    fc.option(producer, { nil: {} }),
  )
  .map(([fields, by]) => ({ ...fields, ...by }));

test('scanPublish reads any request as protobufjs does', () => {
  fc.assert(
    fc.property(publishFields, (fields) => {
      const message = publishRequest.encode(fields);
      const result = publishOf(message);
      assert.equal(result.fault, null);
      assert.deepEqual(fieldsOf(result), publishRequest.decode(message));
    }),
  );
});

test('scanPublish merges as protobuf says: of a field that comes twice the last one counts, headers add up', () => {
  fc.assert(
    fc.property(publishFields, publishFields, (first, second) => {
      const message = Buffer.concat([publishRequest.encode(first), publishRequest.encode(second)]);
      const result = publishOf(message);
      assert.equal(result.fault, null);
      assert.deepEqual(fieldsOf(result), publishRequest.decode(message));
    }),
  );
});

test('unknown fields of every wire type are skipped, in a request and in a header', () => {
  const unknown = (field: number): Buffer =>
    Buffer.concat([
      new Writer()
        .varint(field, (1n << 64n) - 1n)
        .bytes(field + 1, 'x'.repeat(200))
        .finish(),
      tagOf(field, 1),
      Buffer.alloc(8, 0xff),
      tagOf(field, 5),
      Buffer.alloc(4, 0xff),
    ]);
  for (const field of [7, 15, 16, 2_047, 536_870_910]) {
    const inner = Buffer.concat([unknown(field), header.encode({ key: 'k', value: Buffer.from('v') }), unknown(field)]);
    const message = Buffer.concat([
      unknown(field),
      publishRequest.encode({ subject: 'a' }),
      new Writer().bytes(4, inner).finish(),
      unknown(field),
    ]);
    const result = publishOf(message, { ...LIMITS, headersBytes: 2_000 });
    assert.equal(result.fault, null, `field ${field}`);
    assert.deepEqual(fieldsOf(result), publishRequest.decode(message));
    const range = new SubjectRange();
    assert.equal(scanSubject(message, 0, message.length, range), null);
    assert.equal(message.toString('utf8', range.start, range.end), 'a');
  }
});

test('groups, field number 0 and wire types that do not exist are malformed, for every scanner', () => {
  const malformed = [[0x0b], [0x0c], [0x3b, 0x3c], [0x00], [0x02, 0x00], [0x0e], [0x0f], [0x3e, 0x00], [0x3f, 0x00]];
  for (const message of malformed) {
    for (const [name, scan] of SCANNERS)
      assert.equal(scan(Buffer.from(message)), 'MALFORMED_MESSAGE', `${name} ${message}`);
  }
});

test('a known field with another wire type is malformed', () => {
  for (const [field, wrong] of [
    [1, 0],
    [2, 0],
    [3, 2],
    [4, 0],
    [5, 0],
    [6, 2],
  ] as const) {
    const writer = new Writer();
    const message = wrong === 0 ? writer.varint(field, 1).finish() : writer.bytes(field, 'x').finish();
    assert.equal(publishOf(message).fault, 'MALFORMED_MESSAGE', `field ${field}`);
  }
});

const SCANNERS: readonly (readonly [string, (message: Buffer) => string | null])[] = [
  ['subject', (message) => scanSubject(message, 0, message.length, new SubjectRange())],
  ['publish', (message) => scanPublish(message, 0, message.length, new PublishScan(), LIMITS)],
  ['fetch', (message) => scanFetch(message, 0, message.length, new FetchScan())],
  ['subscribe', (message) => scanSubscribe(message, 0, message.length, new SubscribeScan())],
];

test('every truncation of a request inside a field is malformed', () => {
  const whole = publishRequest.encode({
    subject: 'a.b',
    body: Buffer.alloc(200, 1),
    expirationSeconds: 300,
    headers: [{ key: 'k', value: Buffer.from('v') }],
    producer_id: 'p',
    sequence: String(Number.MAX_SAFE_INTEGER),
  });
  const ends = fieldEnds(whole);
  for (let length = 1; length < whole.length; length++) {
    const fault = publishOf(whole.subarray(0, length)).fault;
    if (!ends.has(length)) assert.equal(fault, 'MALFORMED_MESSAGE', `cut at ${length}`);
  }
});

/** A field's tag with any wire type: the type is in the lowest bits of the first byte. */
function tagOf(field: number, wire: number): Buffer {
  const tag = Buffer.from(new Writer().varint(field, 0).finish().subarray(0, -1));
  tag[0] = (tag[0] as number) | wire;
  return tag;
}

/** Offsets behind each top-level field of `message`. */
function fieldEnds(message: Buffer): Set<number> {
  const ends = new Set<number>();
  for (let at = 0; at < message.length; ends.add(at)) {
    const wire = (message[at++] as number) & 7;
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) break;
    }
    if (wire === 2) at += value;
  }
  return ends;
}

test('a varint of more than ten bytes or 64 bits is malformed, padding within ten is not', () => {
  const overlong = [...Array<number>(10).fill(0x80), 0x00];
  const tooLarge = [...Array<number>(9).fill(0xff), 0x02];
  for (const varint of [overlong, tooLarge]) {
    for (const [name, scan] of SCANNERS) {
      assert.equal(scan(Buffer.from([0x38, ...varint])), 'MALFORMED_MESSAGE', `${name}: value of field 7`);
      assert.equal(scan(Buffer.from(varint)), 'MALFORMED_MESSAGE', `${name}: tag`);
      assert.equal(scan(Buffer.from([0x3a, ...varint])), 'MALFORMED_MESSAGE', `${name}: length of field 7`);
    }
  }
  const padded = Buffer.from([0x18, 0x85, ...Array<number>(8).fill(0x80), 0x00]);
  const result = publishOf(padded);
  assert.equal(result.fault, null);
  assert.equal(result.scan.expirationSeconds, 5);
  // Of tags and lengths no library takes more than five bytes, and what they are in goes on to consumers as it is.
  for (const [name, scan] of SCANNERS) {
    const zeros = [0x80, 0x80, 0x80, 0x00];
    assert.notEqual(scan(Buffer.from([0xba, ...zeros, 0x00])), 'MALFORMED_MESSAGE', `${name}: a tag of five bytes`);
    assert.equal(scan(Buffer.from([0xba, 0x80, ...zeros, 0x00])), 'MALFORMED_MESSAGE', `${name}: a tag of six`);
    assert.notEqual(scan(Buffer.from([0x3a, 0x80, ...zeros])), 'MALFORMED_MESSAGE', `${name}: a length of five bytes`);
    assert.equal(scan(Buffer.from([0x3a, 0x80, 0x80, ...zeros])), 'MALFORMED_MESSAGE', `${name}: a length of six`);
  }
});

test('a length beyond the end of the message is malformed, also one near 2^32 and 2^64', () => {
  for (const length of [
    2n,
    127n,
    (1n << 31n) - 1n,
    1n << 31n,
    (1n << 32n) - 1n,
    1n << 32n,
    (1n << 32n) + 1n,
    (1n << 64n) - 1n,
  ]) {
    const tagged = Buffer.concat([
      Buffer.from([0x0a]),
      new Writer().varint(0, length).finish().subarray(1),
      Buffer.from('x'),
    ]);
    for (const [name, scan] of SCANNERS) assert.equal(scan(tagged), 'MALFORMED_MESSAGE', `${name}: ${length}`);
  }
});

test('expirationSeconds is a signed int32: negative ones are refused', () => {
  for (const [value, fault] of [
    [0, null],
    [1, null],
    [0x7fff_ffff, null],
    [-1, 'EXPIRATION_NEGATIVE'],
    [-0x8000_0000, 'EXPIRATION_NEGATIVE'],
  ] as const) {
    const result = publishOf(publishRequest.encode({ subject: 'a', expirationSeconds: value }));
    assert.equal(result.fault, fault);
    assert.equal(result.scan.expirationSeconds, value);
  }
});

test('body and headers at their limits pass, one byte or header more is refused by name', () => {
  const body = (size: number) => publishOf(publishRequest.encode({ body: Buffer.alloc(size) })).fault;
  assert.equal(body(LIMITS.bodyBytes), null);
  assert.equal(body(LIMITS.bodyBytes + 1), 'BODY_TOO_LARGE');
  const counted = (count: number) =>
    publishOf(publishRequest.encode({ headers: Array.from({ length: count }, () => ({ key: 'k' })) })).fault;
  assert.equal(counted(LIMITS.headersCount), null);
  assert.equal(counted(LIMITS.headersCount + 1), 'HEADERS_TOO_LARGE');
  const sized = (size: number) => {
    const content = size - header.encode({ key: 'k', value: Buffer.alloc(200) }).length + 200;
    return publishOf(publishRequest.encode({ headers: [{ key: 'k', value: Buffer.alloc(content) }] })).fault;
  };
  assert.equal(sized(LIMITS.headersBytes), null);
  assert.equal(sized(LIMITS.headersBytes + 1), 'HEADERS_TOO_LARGE');
});

test('more headers than the scan has room for are all read', () => {
  const all = Array.from({ length: 100 }, (_, i) => ({ key: `k${i}`, value: Buffer.from([i]) }));
  const result = publishOf(publishRequest.encode({ subject: 's', headers: all }), {
    bodyBytes: 0,
    headersBytes: 4_000,
    headersCount: 100,
  });
  assert.equal(result.fault, null);
  assert.deepEqual(fieldsOf(result).headers, all);
});

test('a header key is 1 to 255 bytes of valid UTF-8', () => {
  const keyed = (key: Uint8Array | string) =>
    publishOf(new Writer().bytes(4, new Writer().bytes(1, key).bytes(2, 'v').finish()).finish(), {
      ...LIMITS,
      headersBytes: 1_000,
    }).fault;
  assert.equal(keyed('k'), null);
  assert.equal(keyed('ü'.repeat(127)), null);
  assert.equal(keyed('x'.repeat(255)), null);
  assert.equal(keyed('x'.repeat(256)), 'HEADER_INVALID');
  assert.equal(keyed(''), 'HEADER_INVALID');
  for (const wrong of [[0xff], [0x61, 0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xe6, 0x97]]) {
    assert.equal(keyed(Buffer.from(wrong)), 'HEADER_INVALID', String(wrong));
  }
  assert.equal(publishOf(Buffer.from([0x22, 0x00])).fault, 'HEADER_INVALID');
});

test('producer and sequence come together: 1 to 64 bytes of UTF-8, 1 to 2^53-1', () => {
  const named = (id: string | Uint8Array, sequence: number | bigint) =>
    publishOf(new Writer().bytes(5, id).varint(6, sequence).finish()).fault;
  assert.equal(named('p', 1), null);
  assert.equal(named('p'.repeat(64), Number.MAX_SAFE_INTEGER), null);
  assert.equal(named('', 0), null);
  assert.equal(named('p'.repeat(65), 1), 'PRODUCER_INVALID');
  assert.equal(named('', 1), 'PRODUCER_INVALID');
  assert.equal(named('p', 0), 'PRODUCER_INVALID');
  assert.equal(named(Buffer.from([0xff]), 1), 'PRODUCER_INVALID');
});

test('[R29] an int64 beyond 2^53-1 or below 0 is refused, never rounded: sequence, fetch id, start id and time', () => {
  const safe = BigInt(Number.MAX_SAFE_INTEGER);
  const refused = [safe + 1n, safe + 2n, safe + 10n, 1n << 62n, (1n << 63n) - 10n, (1n << 63n) - 1n, -1n, -(1n << 63n)];
  const sequence = (value: bigint) => {
    const { fault, scan } = publishOf(new Writer().bytes(5, 'p').varint(6, value).finish());
    return fault ?? scan.sequence;
  };
  const fetched = (value: bigint) => {
    const scan = new FetchScan();
    const message = new Writer().bytes(1, 'a').varint(2, value).finish();
    return scanFetch(message, 0, message.length, scan) ?? scan.id;
  };
  const started = (field: number) => (value: bigint) => {
    const scan = new SubscribeScan();
    const message = new Writer().bytes(1, 'a').varint(field, value).finish();
    return scanSubscribe(message, 0, message.length, scan) ?? scan.value;
  };
  for (const [read, reason] of [
    [sequence, 'PRODUCER_INVALID'],
    [fetched, 'ID_INVALID'],
    [started(4), 'ID_INVALID'],
    [started(5), 'START_INVALID'],
  ] as const) {
    for (let below = 0n; below < 10n; below++) assert.equal(read(safe - below), Number(safe - below));
    for (const value of refused) assert.equal(read(value), reason, `${value}`);
  }
  assert.equal(fetched(0n), 'ID_INVALID');
  assert.equal(started(4)(0n), 'ID_INVALID');
  assert.equal(started(5)(0n), 0);
});

test('[R29] ids in answers are exact to 2^53-1, and none beyond is written', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (id) => {
      assert.equal(publishResponse.decode(encodeId(id)).id, String(id));
      assert.equal(incIdxResponse.decode(encodeId(id)).newIdx, String(id));
      assert.equal(decodeId(encodeId(id)), id);
    }),
  );
  for (let id = Number.MAX_SAFE_INTEGER - 10; id <= Number.MAX_SAFE_INTEGER; id++) {
    assert.equal(publishResponse.decode(encodeId(id)).id, String(id));
  }
  for (const id of [2 ** 53, 2 ** 63, -1, Number.NaN]) assert.throws(() => encodeId(id));
});

test('scanFetch reads any request as protobufjs does', () => {
  fc.assert(
    fc.property(text(40), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (subject, id) => {
      const message = fetchRequest.encode({ subject, id: String(id) });
      const scan = new FetchScan();
      const range = new SubjectRange();
      assert.equal(scanFetch(message, 0, message.length, scan), null);
      assert.equal(scanSubject(message, 0, message.length, range), null);
      assert.deepEqual(
        { subject: message.toString('utf8', range.start, range.end), id: String(scan.id) },
        fetchRequest.decode(message),
      );
    }),
  );
});

test('scanSubscribe: of several starts the last one counts, none is new', () => {
  const starts = [
    [{}, Start.NEW],
    [{ new: true }, Start.NEW],
    [{ earliest: true }, Start.EARLIEST],
    [{ id: '77' }, Start.ID],
    [{ time: '1700000000000' }, Start.TIME],
  ] as const;
  const scan = new SubscribeScan();
  for (const [first] of starts) {
    for (const [second, kind] of starts.slice(1)) {
      const message = Buffer.concat([
        subscribeRequest.encode({ subject: 'a', ...first }),
        subscribeRequest.encode(second),
      ]);
      assert.equal(scanSubscribe(message, 0, message.length, scan), null);
      assert.equal(scan.start, kind);
    }
  }
  for (const [fields, kind] of starts) {
    const message = subscribeRequest.encode({ subject: 'a', ...fields });
    assert.equal(scanSubscribe(message, 0, message.length, scan), null);
    assert.equal(scan.start, kind);
  }
});

test('a scan is as good as new for the next message: nothing of the one before is left', () => {
  const scan = new PublishScan();
  const full = publishRequest.encode({
    subject: 'a',
    body: Buffer.from('b'),
    expirationSeconds: 9,
    headers: [{ key: 'k' }],
    producer_id: 'p',
    sequence: '4',
  });
  assert.equal(scanPublish(full, 0, full.length, scan, LIMITS), null);
  assert.equal(scanPublish(NONE, 0, 0, scan, LIMITS), null);
  assert.deepEqual(fieldsOf({ frame: NONE, scan }), publishRequest.decode(NONE));
  const subscribe = new SubscribeScan();
  scanSubscribe(Buffer.from([0x20, 0x05]), 0, 2, subscribe);
  assert.equal(scanSubscribe(NONE, 0, 0, subscribe), null);
  assert.deepEqual([subscribe.start, subscribe.value], [Start.NEW, 0]);
  const fetch = new FetchScan();
  scanFetch(Buffer.from([0x10, 0x05]), 0, 2, fetch);
  assert.equal(scanFetch(NONE, 0, 0, fetch), 'ID_INVALID');
});

test('answers of Broadcast, and the message that its subscribers get, are what protobufjs reads', () => {
  assert.deepEqual(broadcastResponse.decode(encodeBroadcastResponse(true)), { ack: true });
  assert.deepEqual(broadcastResponse.decode(encodeBroadcastResponse(false)), { ack: false });
  fc.assert(
    fc.property(publishFields, (fields) => {
      const { frame, scan, fault } = publishOf(publishRequest.encode(fields));
      assert.equal(fault, null);
      const request = fieldsOf({ frame, scan });
      assert.deepEqual(messageResponse.decode(encodeBroadcastMessage(frame, scan)), {
        headers: request.headers,
        body: request.body,
        id: '0',
        subject: request.subject,
        published_at: '0',
        expirationSeconds: 0,
      });
    }),
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
      () =>
        scanPublish(message, 0, message.length, new PublishScan(), {
          bodyBytes: 1 << 20,
          headersBytes: 1 << 16,
          headersCount: 64,
        }),
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
