/** Requests of the public service, against protobufjs. */
import { isDeepStrictEqual } from 'node:util';
import { decodeMessage, decodeNumber, encodeFetch, encodePublish, encodeSubscribe } from '../../../src/client/codec.ts';
import { ClientError } from '../../../src/client/errors.ts';
import {
  decodeId,
  encodeBroadcastMessage,
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
} from '../../../src/grpc/codec.ts';
import { loadOracle } from '../../unit/grpc-oracle.ts';
import { accepts, expect, type FuzzTarget } from '../target.ts';

const LIMITS: ScanLimits = { bodyBytes: 1 << 20, headersBytes: 1 << 10, headersCount: 8 };
/** Bytes in front and behind that would be a valid part of nearly anything: reading there would change what is found. */
const PADDING = 16;
const MEMORY_BYTES = 1 << 20;

const publishRequest = loadOracle('broker.PublishRequest', { stringsAsBytes: true });
const fetchRequest = loadOracle('broker.FetchRequest', { stringsAsBytes: true });
const subscribeRequest = loadOracle('broker.SubscribeRequest', { stringsAsBytes: true });
const messageResponse = loadOracle('broker.MessageResponse', { stringsAsBytes: true });
const header = loadOracle('broker.Header', { stringsAsBytes: true });

const work = Buffer.alloc(1 << 16, 0x01);

/** `message` between other bytes; the same memory each time. */
function framed(message: Uint8Array): { readonly frame: Buffer; readonly start: number; readonly end: number } {
  const end = PADDING + message.length;
  work.set(message, PADDING);
  work.fill(0x01, end, end + PADDING);
  return { frame: work.subarray(0, end + PADDING), start: PADDING, end };
}

function expectInside(start: number, end: number, low: number, high: number): void {
  expect(start >= low && start <= end && end <= high, 'outside of the message', () => [start, end, low, high]);
}

const publishScan = new PublishScan();

const publish: FuzzTarget = {
  name: 'publish-request',
  about: 'scanPublish and the message of a broadcast, against protobufjs',
  memoryBytes: MEMORY_BYTES,
  seeds: () => [
    Buffer.alloc(0),
    encodePublish({ subject: 'a', body: Buffer.from('b'), headers: [], expirationSeconds: 0, producer: null }),
    encodePublish({
      subject: 'orders.eu.1',
      body: Buffer.alloc(200, 7),
      headers: [
        { key: 'k', value: Buffer.from('v') },
        { key: 'traceparent', value: Buffer.alloc(0) },
      ],
      expirationSeconds: 3_600,
      producer: { id: 'p-1', sequence: Number.MAX_SAFE_INTEGER },
    }),
    publishRequest.encode({ subject: Buffer.from('s'), expirationSeconds: -1, sequence: '-1' }),
    publishRequest.encode({ headers: Array.from({ length: 9 }, () => ({ key: Buffer.from('k') })) }),
  ],
  run: (message) => {
    const { frame, start, end } = framed(message);
    const scan = publishScan;
    const fault = scanPublish(frame, start, end, scan, LIMITS);
    expectInside(scan.subjectStart, scan.subjectEnd, start, end);
    expectInside(scan.bodyStart, scan.bodyEnd, start, end);
    expectInside(scan.producerStart, scan.producerEnd, start, end);
    for (let i = 0; i < scan.headerCount * 2; i += 2) {
      expectInside(scan.headers[i] as number, scan.headers[i + 1] as number, start, end);
    }
    if (fault !== null) return false;
    const headers = Array.from({ length: scan.headerCount }, (_, i) =>
      header.decode(frame.subarray(scan.headers[i * 2], scan.headers[i * 2 + 1])),
    );
    const subject = frame.subarray(scan.subjectStart, scan.subjectEnd);
    const body = frame.subarray(scan.bodyStart, scan.bodyEnd);
    const expirationSeconds = scan.expirationSeconds;
    const producer_id = frame.subarray(scan.producerStart, scan.producerEnd);
    const found = { headers, subject, body, expirationSeconds, producer_id, sequence: String(scan.sequence) };
    const theirs = publishRequest.decode(message);
    expect(isDeepStrictEqual(found, theirs), 'protobufjs reads another publish', () => ({ found, theirs }));
    const sent = messageResponse.decode(encodeBroadcastMessage(frame, scan));
    expect(
      isDeepStrictEqual([sent.subject, sent.body, sent.headers], [subject, body, headers]),
      'a broadcast sends something else',
      () => sent,
    );
    return true;
  },
};

const range = new SubjectRange();
const fetchScan = new FetchScan();

const fetch: FuzzTarget = {
  name: 'fetch-request',
  about: 'scanSubject and scanFetch against protobufjs',
  memoryBytes: MEMORY_BYTES,
  seeds: () => [
    encodeFetch('a.b', 1),
    encodeFetch('subject', Number.MAX_SAFE_INTEGER),
    fetchRequest.encode({ subject: Buffer.alloc(255, 0x61), id: '-1' }),
    encodeId(300),
  ],
  run: (message) => {
    const { frame, start, end } = framed(message);
    const fault = scanSubject(frame, start, end, range) ?? scanFetch(frame, start, end, fetchScan);
    expectInside(range.start, range.end, start, end);
    expect(decodeId(message) >= -1, 'an id below -1');
    if (fault !== null) return false;
    const found = { subject: frame.subarray(range.start, range.end), id: String(fetchScan.id) };
    const theirs = fetchRequest.decode(message);
    expect(isDeepStrictEqual(found, theirs), 'protobufjs reads another fetch', () => ({ found, theirs }));
    return true;
  },
};

const subscribeScan = new SubscribeScan();

const subscribe: FuzzTarget = {
  name: 'subscribe-request',
  about: 'scanSubject and scanSubscribe against protobufjs',
  memoryBytes: MEMORY_BYTES,
  seeds: () => [
    encodeSubscribe('a.*', 'new'),
    encodeSubscribe('a.>', 'earliest'),
    encodeSubscribe('a', { id: 7 }),
    encodeSubscribe('a', { time: 1_700_000_000_000 }),
  ],
  run: (message) => {
    const { frame, start, end } = framed(message);
    const fault = scanSubject(frame, start, end, range) ?? scanSubscribe(frame, start, end, subscribeScan);
    expectInside(range.start, range.end, start, end);
    if (fault !== null) return false;
    const theirs = subscribeRequest.decode(message);
    const { start: kind, value } = subscribeScan;
    const isSame =
      Buffer.compare(theirs.subject as Buffer, frame.subarray(range.start, range.end)) === 0 &&
      (kind !== Start.EARLIEST || theirs.earliest === true) &&
      (kind !== Start.ID || theirs.id === String(value)) &&
      (kind !== Start.TIME || theirs.time === String(value));
    expect(isSame, 'protobufjs reads another start', () => ({ kind, value, theirs }));
    return true;
  },
};

const response: FuzzTarget = {
  name: 'client-response',
  about: 'what the client reads of answers, against protobufjs',
  memoryBytes: MEMORY_BYTES,
  seeds: () => [
    encodeId(Number.MAX_SAFE_INTEGER),
    messageResponse.encode({
      body: Buffer.from('b'),
      id: '7',
      subject: Buffer.from('a.b'),
      published_at: '1700000000000',
    }),
    messageResponse.encode({
      subject: Buffer.from('s'),
      headers: [{ key: Buffer.from('k'), value: Buffer.from('v') }, { key: Buffer.from('k2') }],
      expirationSeconds: 60,
    }),
  ],
  run: (bytes) =>
    accepts(
      (error) => error instanceof ClientError,
      () => {
        decodeNumber(bytes);
        const { body, id, subject, headers } = decodeMessage(bytes);
        expect(id >= 0 && headers.length <= bytes.length, 'numbers that must not be', () => [id, headers.length]);
        expect(body.length <= bytes.length && Buffer.byteLength(subject) <= 3 * bytes.length, 'more than there is');
      },
    ),
};

export const UNARY_TARGETS: readonly FuzzTarget[] = [publish, fetch, subscribe, response];
