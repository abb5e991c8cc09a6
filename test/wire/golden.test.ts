/** The bytes of every public message, both ways: once a client has been built on them they never change. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { subjectHash } from '../../src/base/subject.ts';
import { BatchBuilder, stampBatch } from '../../src/batch/batch-builder.ts';
import { BatchView } from '../../src/batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../src/batch/delivery.ts';
import {
  decodeId,
  encodeBroadcastMessage,
  encodeBroadcastResponse,
  encodeId,
  FetchScan,
  PublishScan,
  Start,
  SubjectRange,
  SubscribeScan,
  scanFetch,
  scanPublish,
  scanSubject,
  scanSubscribe,
} from '../../src/grpc/codec.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { type Fields, loadOracle } from '../unit/grpc-oracle.ts';

const header = (key: string, value: string): Fields => ({ key, value: Buffer.from(value) });
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const LIMITS = { bodyBytes: 1_000, headersBytes: 1_000, headersCount: 10 };

const PUBLISH_SHORT = '0a03612e62 12026869';
const PUBLISH_FULL =
  '0a066f7264657273 120200ff 18ac02 2206 0a016b 120176 2207 0a05656d707479 2a027031 30ffffffffffffff0f';
const DELIVERY = '0a026869 1007 1a03612e62 2080d095ffbc31 2a06 0a016b 120176 303c';

const GOLDEN: readonly (readonly [name: string, fields: Fields, bytes: string])[] = [
  ['broker.PublishRequest', { subject: 'a.b', body: Buffer.from('hi') }, PUBLISH_SHORT],
  [
    'broker.PublishRequest',
    {
      subject: 'orders',
      body: Buffer.from([0, 255]),
      expirationSeconds: 300,
      // An empty value is absent on the wire.
      headers: [header('k', 'v'), { key: 'empty' }],
      producer_id: 'p1',
      sequence: '9007199254740991',
    },
    PUBLISH_FULL,
  ],
  ['broker.PublishRequest', { expirationSeconds: -1 }, '18ffffffffffffffffff01'],
  ['broker.PublishResponse', { id: '1' }, '0801'],
  ['broker.PublishResponse', { id: '9007199254740991' }, '08ffffffffffffff0f'],
  ['broker.SubscribeRequest', { subject: 'a' }, '0a0161'],
  ['broker.SubscribeRequest', { subject: 'a', new: true }, '0a0161 1001'],
  ['broker.SubscribeRequest', { subject: 'a', earliest: true }, '0a0161 1801'],
  ['broker.SubscribeRequest', { subject: 'a', id: '300' }, '0a0161 20ac02'],
  ['broker.SubscribeRequest', { subject: 'a', time: '1700000000000' }, '0a0161 2880d095ffbc31'],
  [
    'broker.MessageResponse',
    {
      body: Buffer.from('hi'),
      id: '7',
      subject: 'a.b',
      published_at: '1700000000000',
      headers: [header('k', 'v')],
      expirationSeconds: 60,
    },
    DELIVERY,
  ],
  ['broker.FetchRequest', { subject: 'a.b', id: '7' }, '0a03612e62 1007'],
  ['broker.BroadcastResponse', { ack: true }, '0801'],
  ['broker.IncIdxRequest', { subject: 'a.b' }, '0a03612e62'],
  ['broker.IncIdxResponse', { newIdx: '128' }, '088001'],
  [
    'broker.v1.Record',
    { body: Buffer.from('hi'), headers: [header('k', 'v')], expirationSeconds: 60 },
    '0a026869 2a06 0a016b 120176 303c',
  ],
  [
    'google.rpc.ErrorInfo',
    { reason: 'QUEUE_FULL', domain: 'broker', metadata: { outcome: 'none' } },
    '0a0a51554555455f46554c4c 1206 62726f6b6572 1a0f 0a076f7574636f6d65 12046e6f6e65',
  ],
  ['google.rpc.RetryInfo', { retry_delay: { seconds: '5', nanos: 50_000_000 } }, '0a07 0805 1080e1eb17'],
];

for (const [name, fields, bytes] of GOLDEN) {
  test(`the proto files say that ${name} ${JSON.stringify(fields).slice(0, 60)} is ${bytes.replaceAll(' ', '').length / 2} bytes`, () => {
    const oracle = loadOracle(name);
    assert.equal(oracle.encode(fields).toString('hex'), hex(bytes).toString('hex'));
  });
}

test('scanPublish reads the golden PublishRequest', () => {
  const message = hex(PUBLISH_FULL);
  const scan = new PublishScan();
  assert.equal(scanPublish(message, 0, message.length, scan, LIMITS), null);
  assert.equal(message.toString('latin1', scan.subjectStart, scan.subjectEnd), 'orders');
  assert.equal(message.toString('hex', scan.bodyStart, scan.bodyEnd), '00ff');
  assert.equal(scan.expirationSeconds, 300);
  assert.equal(scan.headerCount, 2);
  assert.equal(message.toString('hex', scan.headers[0], scan.headers[1]), '0a016b120176');
  assert.equal(message.toString('hex', scan.headers[2], scan.headers[3]), '0a05656d707479');
  assert.equal(message.toString('latin1', scan.producerStart, scan.producerEnd), 'p1');
  assert.equal(scan.sequence, Number.MAX_SAFE_INTEGER);
  const negative = hex('18ffffffffffffffffff01');
  assert.equal(scanPublish(negative, 0, negative.length, scan, LIMITS), 'EXPIRATION_NEGATIVE');
});

test('scanFetch, scanSubscribe and scanSubject read the golden requests', () => {
  const fetchRequest = hex('0a03612e62 1007');
  const fetch = new FetchScan();
  assert.equal(scanFetch(fetchRequest, 0, fetchRequest.length, fetch), null);
  assert.equal(fetch.id, 7);
  const range = new SubjectRange();
  assert.equal(scanSubject(fetchRequest, 0, fetchRequest.length, range), null);
  assert.equal(fetchRequest.toString('latin1', range.start, range.end), 'a.b');
  const subscribe = new SubscribeScan();
  for (const [bytes, start, value] of [
    ['0a0161', Start.NEW, 0],
    ['0a0161 1001', Start.NEW, 1],
    ['0a0161 1801', Start.EARLIEST, 1],
    ['0a0161 20ac02', Start.ID, 300],
    ['0a0161 2880d095ffbc31', Start.TIME, 1_700_000_000_000],
  ] as const) {
    const message = hex(bytes);
    assert.equal(scanSubscribe(message, 0, message.length, subscribe), null);
    assert.deepEqual([subscribe.start, subscribe.value], [start, value]);
  }
});

test('answers are the golden bytes: PublishResponse, IncIdxResponse, BroadcastResponse', () => {
  assert.equal(encodeId(1).toString('hex'), '0801');
  assert.equal(encodeId(Number.MAX_SAFE_INTEGER).toString('hex'), '08ffffffffffffff0f');
  assert.equal(encodeId(128).toString('hex'), '088001');
  assert.equal(decodeId(hex('088001')), 128);
  assert.equal(encodeBroadcastResponse(true).toString('hex'), '0801');
});

test('a stored record is the front of its delivery; id, subject and time are written behind it', () => {
  const request = loadOracle('broker.PublishRequest').encode({
    subject: 'a.b',
    body: Buffer.from('hi'),
    headers: [header('k', 'v')],
    expirationSeconds: 60,
  });
  const scan = new PublishScan();
  assert.equal(scanPublish(request, 0, request.length, scan, LIMITS), null);
  const subject = Buffer.from('a.b');
  const builder = new BatchBuilder();
  builder.reset(subject, 0, subject.length, subjectHash(subject, 0, subject.length));
  builder.appendRecord(request, scan.bodyStart, scan.bodyEnd, scan.headers, scan.headerCount, scan.expirationSeconds);
  const batch = builder.seal();
  stampBatch(batch, 7, 1_700_000_000_000);
  const view = new BatchView();
  assert.equal(view.wrap(batch, 0), null);
  assert.equal(view.recordAt(7), true);
  const delivery = Buffer.alloc(encodedDeliveryBytes(view, 7, subject.length));
  assert.equal(encodeDelivery(view, 7, subject, delivery, 0), delivery.length);
  assert.equal(
    delivery.toString('hex'),
    hex('0a026869 2a06 0a016b 120176 303c 1007 1a03612e62 2080d095ffbc31').toString('hex'),
  );
  const decode = loadOracle('broker.MessageResponse').decode;
  assert.deepEqual(decode(delivery), decode(hex(DELIVERY)));
});

test('a broadcast message is the golden bytes: body, subject, headers', () => {
  const request = hex(PUBLISH_FULL);
  const scan = new PublishScan();
  assert.equal(scanPublish(request, 0, request.length, scan, LIMITS), null);
  assert.equal(
    encodeBroadcastMessage(request, scan).toString('hex'),
    hex('0a0200ff 1a066f7264657273 2a06 0a016b 120176 2a07 0a05656d707479').toString('hex'),
  );
});

test('grpc-status-details-bin of QUEUE_FULL is the golden bytes: google.rpc.Status with ErrorInfo and RetryInfo', () => {
  const { code, message, metadata } = makeStatus('QUEUE_FULL', '');
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  const text = Buffer.from(message);
  const expected = Buffer.concat([
    Buffer.from([0x08, code, 0x12, text.length]),
    text,
    hex('1a51 0a28'),
    Buffer.from('type.googleapis.com/google.rpc.ErrorInfo'),
    hex('1225 0a0a51554555455f46554c4c 1206 62726f6b6572 1a0f 0a076f7574636f6d65 12046e6f6e65'),
    hex('1a33 0a28'),
    Buffer.from('type.googleapis.com/google.rpc.RetryInfo'),
    hex('1207 0a05 1080e1eb17'),
  ]);
  assert.ok(Buffer.isBuffer(bytes));
  assert.equal(bytes.toString('hex'), expected.toString('hex'));
});
