/**
 * Clients of the broker that came before this one work unchanged: they know fewer fields, and int32 where ours are int64. Its service is
 * written down here from the interface it published: names, numbers and types.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import protobuf from 'protobufjs';
import { subjectHash } from '../../src/base/subject.ts';
import { BatchBuilder, stampBatch } from '../../src/batch/batch-builder.ts';
import { BatchView } from '../../src/batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../src/batch/delivery.ts';
import {
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
import type { Done, Engine } from '../../src/grpc/engine.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { loadOracle } from '../unit/grpc-oracle.ts';
import { startServer } from '../unit/grpc-rig.ts';

type Fields = Record<string, unknown>;
type FieldRow = readonly [name: string, type: string, id: number];

const message = (...fields: readonly FieldRow[]) => ({
  fields: Object.fromEntries(fields.map(([name, type, id]) => [name, { type, id }])),
});

const OLD = protobuf.Root.fromJSON({
  nested: {
    broker: {
      nested: {
        PublishRequest: message(['subject', 'string', 1], ['body', 'bytes', 2], ['expirationSeconds', 'int32', 3]),
        PublishResponse: message(['id', 'int32', 1]),
        SubscribeRequest: message(['subject', 'string', 1]),
        MessageResponse: message(['body', 'bytes', 1]),
        FetchRequest: message(['subject', 'string', 1], ['id', 'int32', 2]),
        BroadcastResponse: message(['ack', 'bool', 1]),
        IncIdxRequest: message(['subject', 'string', 1]),
        IncIdxResponse: message(['newIdx', 'int32', 1]),
      },
    },
  },
});

const LIMITS = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64 };
const PUBLISHED_AT = 1_700_000_000_000;
const INT32_MAX = 0x7fff_ffff;

function oldEncode(name: string, fields: Fields): Buffer {
  const type = OLD.lookupType(`broker.${name}`);
  return Buffer.from(type.encode(type.fromObject(fields)).finish());
}

function oldDecode(name: string, bytes: Uint8Array): Fields {
  const type = OLD.lookupType(`broker.${name}`);
  return type.toObject(type.decode(bytes), { defaults: true, bytes: Buffer });
}

/** As the broker stores and delivers the message of a publish request. */
function deliveryOf(request: Buffer, scan: PublishScan, id: number): Buffer {
  const subject = request.subarray(scan.subjectStart, scan.subjectEnd);
  const builder = new BatchBuilder();
  builder.reset(subject, 0, subject.length, subjectHash(subject, 0, subject.length));
  builder.appendRecord(request, scan.bodyStart, scan.bodyEnd, scan.headers, scan.headerCount, scan.expirationSeconds);
  const batch = builder.seal();
  stampBatch(batch, id, PUBLISHED_AT);
  const view = new BatchView();
  assert.equal(view.wrap(batch, 0), null);
  assert.equal(view.recordAt(id), true);
  const delivery = Buffer.alloc(encodedDeliveryBytes(view, id, subject.length));
  encodeDelivery(view, id, subject, delivery, 0);
  return delivery;
}

test('requests of old clients are read in full: PublishRequest, FetchRequest, SubscribeRequest, IncIdxRequest', () => {
  const body = Buffer.from([0, 1, 255]);
  for (const expirationSeconds of [0, 1, INT32_MAX]) {
    const request = oldEncode('PublishRequest', { subject: 'a.ü', body, expirationSeconds });
    const scan = new PublishScan();
    assert.equal(scanPublish(request, 0, request.length, scan, LIMITS), null);
    assert.equal(request.toString('utf8', scan.subjectStart, scan.subjectEnd), 'a.ü');
    assert.deepEqual(request.subarray(scan.bodyStart, scan.bodyEnd), body);
    assert.equal(scan.expirationSeconds, expirationSeconds);
    assert.deepEqual([scan.headerCount, scan.sequence], [0, 0]);
  }
  const negative = oldEncode('PublishRequest', { subject: 'a', expirationSeconds: -1 });
  assert.equal(scanPublish(negative, 0, negative.length, new PublishScan(), LIMITS), 'EXPIRATION_NEGATIVE');
  const fetch = new FetchScan();
  for (const id of [1, 127, 128, INT32_MAX]) {
    const request = oldEncode('FetchRequest', { subject: 'a', id });
    assert.equal(scanFetch(request, 0, request.length, fetch), null);
    assert.equal(fetch.id, id);
  }
  for (const id of [0, -1, -INT32_MAX]) {
    const request = oldEncode('FetchRequest', { subject: 'a', id });
    assert.equal(scanFetch(request, 0, request.length, fetch), 'ID_INVALID', `${id}`);
  }
  const subscribe = new SubscribeScan();
  const request = oldEncode('SubscribeRequest', { subject: 'a' });
  assert.equal(scanSubscribe(request, 0, request.length, subscribe), null);
  assert.equal(subscribe.start, Start.NEW);
  const range = new SubjectRange();
  const increment = oldEncode('IncIdxRequest', { subject: 'a.b' });
  assert.equal(scanSubject(increment, 0, increment.length, range), null);
  assert.equal(increment.toString('utf8', range.start, range.end), 'a.b');
});

test('old clients read the answers: ids to 2^31-1, and of a delivery the body, whatever fields come with it', () => {
  for (const id of [1, 127, 128, 16_384, INT32_MAX]) {
    assert.deepEqual(oldDecode('PublishResponse', encodeId(id)), { id });
    assert.deepEqual(oldDecode('IncIdxResponse', encodeId(id)), { newIdx: id });
  }
  assert.deepEqual(oldDecode('BroadcastResponse', encodeBroadcastResponse(true)), { ack: true });
  const request = loadOracle('broker.PublishRequest').encode({
    subject: 'a.b',
    body: Buffer.from('hi'),
    expirationSeconds: 60,
    headers: [{ key: 'k', value: Buffer.from('v') }],
  });
  const scan = new PublishScan();
  assert.equal(scanPublish(request, 0, request.length, scan, LIMITS), null);
  assert.deepEqual(oldDecode('MessageResponse', deliveryOf(request, scan, Number.MAX_SAFE_INTEGER)), {
    body: Buffer.from('hi'),
  });
});

test('requests of today, read by the old types, keep what these know', () => {
  const request = loadOracle('broker.PublishRequest').encode({
    subject: 'a',
    body: Buffer.from('b'),
    expirationSeconds: 3,
    headers: [{ key: 'k' }],
    producer_id: 'p',
    sequence: '9',
  });
  assert.deepEqual(oldDecode('PublishRequest', request), {
    subject: 'a',
    body: Buffer.from('b'),
    expirationSeconds: 3,
  });
  const subscribe = loadOracle('broker.SubscribeRequest').encode({ subject: 'a', time: '5' });
  assert.deepEqual(oldDecode('SubscribeRequest', subscribe), { subject: 'a' });
});

/** Keeps messages in memory: enough of a broker for a client to talk to. */
class MemoryEngine implements Engine {
  readonly #messages: Buffer[] = [];
  readonly #scan = new PublishScan();

  publish(request: Buffer, _deadlineMs: number, done: Done): void {
    const fault = scanPublish(request, 0, request.length, this.#scan, LIMITS);
    if (fault !== null) {
      done(makeStatus(fault, ''));
      return;
    }
    const id = this.#messages.length + 1;
    this.#messages.push(deliveryOf(request, this.#scan, id));
    done(null, encodeId(id));
  }

  refusePublish(): null {
    return null;
  }

  fetch(request: Buffer, _deadlineMs: number, done: Done): void {
    const scan = new FetchScan();
    const fault = scanFetch(request, 0, request.length, scan);
    const found = this.#messages[scan.id - 1];
    if (fault !== null || found === undefined) done(makeStatus(fault ?? 'ID_NOT_FOUND', ''));
    else done(null, found);
  }

  incIdx(_request: Buffer, _deadlineMs: number, done: Done): void {
    done(null, encodeId(this.#messages.length + 1));
  }

  broadcast(_request: Buffer, _deadlineMs: number, done: Done): void {
    done(null, encodeBroadcastResponse(true));
  }

  publishStream(stream: grpc.ServerDuplexStream<Buffer, Buffer>): void {
    stream.end();
  }

  consume(stream: grpc.ServerDuplexStream<Buffer, Buffer>): void {
    stream.end();
  }

  subscribe(_request: Buffer, stream: grpc.ServerWritableStream<Buffer, Buffer>): void {
    for (const message of this.#messages) stream.write(message);
    stream.end();
  }
}

class OldClient {
  readonly #client: grpc.Client;

  constructor(t: TestContext, address: string) {
    this.#client = new grpc.Client(address, grpc.credentials.createInsecure());
    t.after(() => this.#client.close());
  }

  call(method: string, types: readonly [request: string, response: string], fields: Fields): Promise<Fields> {
    const [request, response] = types;
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/broker.Broker/${method}`,
        (value: Fields) => oldEncode(request, value),
        (bytes: Buffer) => oldDecode(response, bytes),
        fields,
        (error, answer) => (error === null ? resolve(answer as Fields) : reject(error)),
      );
    });
  }

  subscribe(fields: Fields): Promise<Fields[]> {
    const stream = this.#client.makeServerStreamRequest(
      '/broker.Broker/Subscribe',
      (value: Fields) => oldEncode('SubscribeRequest', value),
      (bytes: Buffer) => oldDecode('MessageResponse', bytes),
      fields,
    );
    return stream.toArray() as Promise<Fields[]>;
  }
}

test('an old client talks to a server of today: all five methods, and an absent id is INVALID_ARGUMENT', async (t) => {
  const server = await startServer(t, { engine: new MemoryEngine() });
  const client = new OldClient(t, server.address);
  const bodies = ['one', 'two', ''].map((text) => Buffer.from(text));
  for (const [i, body] of bodies.entries()) {
    const answer = await client.call('Publish', ['PublishRequest', 'PublishResponse'], {
      subject: 's',
      body,
      expirationSeconds: i,
    });
    assert.deepEqual(answer, { id: i + 1 });
  }
  assert.deepEqual(await client.call('Fetch', ['FetchRequest', 'MessageResponse'], { subject: 's', id: 2 }), {
    body: bodies[1],
  });
  assert.deepEqual(
    await client.subscribe({ subject: 's' }),
    bodies.map((body) => ({ body })),
  );
  assert.deepEqual(
    await client.call('Broadcast', ['PublishRequest', 'BroadcastResponse'], { subject: 's', body: bodies[0] }),
    { ack: true },
  );
  assert.deepEqual(await client.call('IncIdx', ['IncIdxRequest', 'IncIdxResponse'], { subject: 's' }), { newIdx: 4 });
  for (const id of [4, 0, -1]) {
    await assert.rejects(client.call('Fetch', ['FetchRequest', 'MessageResponse'], { subject: 's', id }), {
      code: grpc.status.INVALID_ARGUMENT,
    });
  }
  await assert.rejects(
    client.call('Publish', ['PublishRequest', 'PublishResponse'], {
      subject: 's',
      body: bodies[0],
      expirationSeconds: -1,
    }),
    { code: grpc.status.INVALID_ARGUMENT },
  );
});
