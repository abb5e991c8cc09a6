import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChunkPool } from '../../src/client/chunk-pool.ts';
import { decodeMessage, encodePublish } from '../../src/client/codec.ts';
import { DeliveryQueue } from '../../src/client/delivery-queue.ts';
import { Fifo } from '../../src/client/fifo.ts';
import { isLoopback } from '../../src/client/loopback.ts';
import { listHeaders, MessageBatch } from '../../src/client/message.ts';
import { bodyLengthOf, OutBatch, recordLengthOf, sectionBytesOf } from '../../src/client/out-batch.ts';
import { isPattern, Positions } from '../../src/client/positions.ts';
import { RetryBudget, retryDelayMs } from '../../src/client/retry.ts';
import { SendWindow } from '../../src/client/send-window.ts';
import { PublishStreamRequest } from '../../src/grpc/gen/broker/v1/producer.ts';
import { Records } from '../../src/grpc/gen/broker/v1/record.ts';
import { MessageResponse, PublishRequest } from '../../src/grpc/gen/broker.ts';

const message = fc.record({
  body: fc.oneof(fc.uint8Array({ maxLength: 400 }), fc.string({ unit: 'grapheme', maxLength: 100 })),
  headers: fc.array(
    fc.record({ key: fc.string({ minLength: 1, maxLength: 20 }), value: fc.uint8Array({ maxLength: 150 }) }),
    { maxLength: 3 },
  ),
  expirationSeconds: fc.oneof(fc.constant(0), fc.nat(2 ** 31 - 1)),
});

test('a batch is written as the protobuf codec reads it, whatever its messages, its sequence and its condition', () => {
  fc.assert(
    fc.property(
      fc.array(message, { minLength: 1, maxLength: 60 }),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }).map((text) => text.slice(0, 60)),
      fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      fc.integer({ min: -1, max: Number.MAX_SAFE_INTEGER }),
      (messages, subject, sequence, expectedLastId) => {
        const pool = new ChunkPool(1 << 20);
        const batch = new OutBatch({ subject, madeAt: 0, expectedLastId, pool, bytes: 1 });
        let bytes = 0;
        for (const { body, headers, expirationSeconds } of messages) {
          const extras = headers.length === 0 && expirationSeconds === 0 ? null : { headers, expirationSeconds };
          const length = recordLengthOf(bodyLengthOf(body), extras);
          batch.append(body, bodyLengthOf(body), length, extras);
          bytes += sectionBytesOf(length);
        }
        batch.sequence = sequence;
        const { batches } = PublishStreamRequest.decode(batch.encode());
        assert.equal(batches.length, 1);
        const [read] = batches;
        assert.equal(read?.subject, Buffer.from(subject).toString());
        assert.equal(read?.sequence, sequence);
        assert.equal(read?.expectedLastId, expectedLastId < 0 ? undefined : expectedLastId);
        assert.equal(batch.bytes, bytes);
        assert.deepEqual(
          read?.records?.records.map(({ body, headers, expirationSeconds }) => ({
            body: Buffer.from(body).toString('hex'),
            headers: headers.map(({ key, value }) => [key, Buffer.from(value).toString('hex')]),
            expirationSeconds,
          })),
          messages.map(({ body, headers, expirationSeconds }) => ({
            body: Buffer.from(body as string).toString('hex'),
            headers: headers.map(({ key, value }) => [Buffer.from(key).toString(), Buffer.from(value).toString('hex')]),
            expirationSeconds,
          })),
        );
      },
    ),
    { numRuns: 200 },
  );
});

test('a settled batch gives its buffer back, and those who wait learn their ids', () => {
  const pool = new ChunkPool(1 << 20);
  const batch = new OutBatch({ subject: 's', madeAt: 0, expectedLastId: -1, pool, bytes: 100 });
  const told: number[] = [];
  for (let i = 0; i < 5; i++) batch.append('x', 1, recordLengthOf(1, null), null);
  batch.track({ stored: (firstId) => told.push(firstId), failed: assert.fail }, 2);
  batch.append('x', 1, recordLengthOf(1, null), null);
  assert.equal(batch.untracked, 4);
  batch.stored(11);
  assert.deepEqual(told, [14]);
  assert.equal(pool.idleBytes, 4096);
});

test('a delivered batch is walked record by record, and what was delivered before is left out', () => {
  const records = [1, 2, 3].map((n) => ({
    body: Buffer.from(`body ${n}`),
    headers: [{ key: 'n', value: Buffer.from([n]) }],
    expirationSeconds: n,
  }));
  const section = Buffer.from(Records.encode({ records }).finish());
  const frame = Buffer.concat([Buffer.from('xx'), section, Buffer.from('yy')]);
  const fields = { subject: 's', firstId: 7, count: 3, publishedAt: 5, frame, start: 2, end: frame.length - 2 };
  const batch = new MessageBatch({ ...fields, skip: 1 });
  assert.deepEqual([batch.firstId, batch.lastId, batch.count], [8, 9, 2]);
  assert.deepEqual(
    [...batch].map(({ id, text, headers, expirationSeconds, publishedAt }) => ({
      id,
      text,
      header: headers[0]?.value[0],
      expirationSeconds,
      publishedAt,
    })),
    [
      { id: 8, text: 'body 2', header: 2, expirationSeconds: 2, publishedAt: 5 },
      { id: 9, text: 'body 3', header: 3, expirationSeconds: 3, publishedAt: 5 },
    ],
  );
});

test('a plain delivery is read field by field', () => {
  const response = { body: Buffer.from('b'), id: 3, subject: 's', publishedAt: 9, headers: [], expirationSeconds: 4 };
  const read = decodeMessage(Buffer.from(MessageResponse.encode(response).finish()));
  assert.deepEqual({ ...read, text: read.text }, { ...response, text: 'b' });
});

test('headers may be a list or an object, with text or bytes', () => {
  const expected = [{ key: 'k', value: Buffer.from('v') }];
  assert.deepEqual(listHeaders({ k: 'v' }), expected);
  assert.deepEqual(listHeaders([{ key: 'k', value: Buffer.from('v') }]), expected);
  assert.deepEqual(listHeaders(undefined), []);
});

test('a publish request has every field', () => {
  const request = PublishRequest.decode(
    encodePublish({
      subject: 'ä',
      body: Buffer.from('b'),
      headers: [{ key: 'k', value: Buffer.from('v') }],
      expirationSeconds: 3,
      producer: { id: 'p', sequence: 2 ** 52 },
    }),
  );
  assert.equal(request.sequence, 2 ** 52);
  assert.equal(request.producerId, 'p');
  assert.equal(request.expirationSeconds, 3);
  assert.equal(request.headers[0]?.key, 'k');
});

test('the window counts from the start of the stream, never moves back, and always lets a lone batch through', () => {
  const window = new SendWindow();
  assert.ok(window.allows(1_000, 10, 0));
  assert.ok(!window.allows(1, 1, 1));
  window.widen(100, 10);
  window.widen(50, 5);
  assert.ok(window.allows(100, 10, 1));
  window.noteSent(60, 3);
  assert.ok(window.allows(40, 7, 1));
  assert.ok(!window.allows(41, 1, 1));
  assert.ok(!window.allows(1, 8, 1));
  window.reset();
  assert.ok(!window.allows(1, 1, 1));
});

test('[F11] a budget of retries adds at most half to the calls, but for its reserve', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2_000 }), fc.integer({ min: 1, max: 20 }), (calls, triesWanted) => {
      const budget = new RetryBudget();
      let attempts = 0;
      for (let call = 0; call < calls; call++) {
        budget.noteCall();
        attempts += 1;
        for (let tries = 1; tries < triesWanted && budget.tryRetry(); tries++) attempts += 1;
      }
      assert.ok(attempts <= calls * 1.5 + 10, `${attempts} attempts of ${calls} calls`);
    }),
  );
});

test('[F11] a retry waits at least as long as the broker asked for, with a random part that grows', () => {
  const options = { firstMs: 50, maxMs: 5_000 };
  assert.equal(retryDelayMs(1, 200, 0, options), 225);
  assert.equal(retryDelayMs(1, null, 0.5, options), 37.5);
  assert.equal(retryDelayMs(3, null, 0, options), 100);
  assert.equal(retryDelayMs(1_000, 0, 0.999, options) < 5_000, true);
  assert.notEqual(retryDelayMs(4, 0, 0.1, options), retryDelayMs(4, 0, 0.2, options));
});

test('positions take every id once, in order, whatever comes again', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 10 })), { maxLength: 60 }), (jumps) => {
      const positions = new Positions(['s'], 'earliest');
      let next = 1;
      for (const [back, count] of jumps) {
        const firstId = Math.max(1, next - back);
        const skip = positions.take('s', firstId, count);
        for (let id = firstId + skip; id < firstId + count; id++) assert.equal(id, next++);
        assert.equal(positions.nextId('s') ?? 1, next);
      }
      assert.equal(positions.taken, next - 1);
    }),
  );
});

test('a stream that follows goes on by ids; patterns by the token, or by what they have found until there is one', () => {
  const exact = new Positions(['a', 'b'], 'new');
  exact.began('a', 5);
  exact.take('a', 5, 3);
  exact.noteToken(Buffer.from('t'));
  assert.deepEqual(exact.open(), {
    starts: [
      { subject: 'a', start: { id: 8 } },
      { subject: 'b', start: 'new' },
    ],
    token: null,
  });
  const pattern = new Positions(['x.*'], 'new');
  pattern.began('x.1', 4);
  assert.deepEqual(pattern.open(), {
    starts: [
      { subject: 'x.*', start: 'new' },
      { subject: 'x.1', start: { id: 4 } },
    ],
    token: null,
  });
  pattern.noteToken(Buffer.from('t'));
  assert.deepEqual(pattern.open(), { starts: [{ subject: 'x.*', start: 'new' }], token: Buffer.from('t') });
  assert.equal(pattern.dropToken(), true);
  assert.equal(pattern.dropToken(), false);
  const timed = new Positions(['t'], { time: 5 });
  timed.began('t', 9);
  assert.deepEqual(timed.open().starts, [{ subject: 't', start: { time: 5 } }]);
  timed.take('t', 12, 1);
  assert.deepEqual(timed.open().starts, [{ subject: 't', start: { id: 13 } }]);
  assert.equal(new Positions(['x.>'], 'earliest').open().starts.length, 1);
});

test('an address of this machine is told from others in all its spellings', () => {
  const loopback = [
    '127.0.0.1:8081',
    '127.8.9.10:1',
    'localhost:8081',
    'LocalHost',
    'broker.localhost:1',
    '[::1]:8081',
    '::1',
  ];
  const spelled = [
    'dns:localhost:1',
    'dns:///localhost:1',
    'dns://8.8.8.8/localhost:1',
    'ipv4:127.0.0.1:1',
    'ipv6:[::1]:1',
  ];
  const mapped = ['[0:0:0:0:0:0:0:1]:1', '[::ffff:127.0.0.1]:1'];
  const others = [
    '10.0.0.1:8081',
    '128.0.0.1:1',
    'localhost.example.com:1',
    '127.example.com:1',
    'broker:8081',
    '[::2]:1',
  ];
  const more = ['[::]:1', '[2001:db8::1]:1', '[1::1]:1', 'dns:///broker:1', '0.0.0.0:1', ''];
  for (const address of [...loopback, ...spelled, ...mapped]) assert.equal(isLoopback(address), true, address);
  for (const address of [...others, ...more]) assert.equal(isLoopback(address), false, address);
});

test('a token that is * or > makes a pattern', () => {
  assert.deepEqual(['a.*', 'a.>', '*', 'a*', 'a.b>'].map(isPattern), [true, true, true, false, false]);
});

test('a queue of deliveries gives them in order, then its error, then its end, and counts what is taken', async () => {
  const taken: number[] = [];
  const queue = new DeliveryQueue((bytes) => taken.push(bytes));
  const batch = (firstId: number): MessageBatch => {
    const fields = { subject: 's', firstId, count: 1, publishedAt: 0, frame: Buffer.alloc(0), start: 0, end: 0 };
    return new MessageBatch({ ...fields, skip: 0 });
  };
  const early = queue.next();
  queue.push(batch(1), 10, 1);
  queue.push(batch(2), 20, 1);
  assert.equal(queue.bytes, 20);
  assert.equal((await early)?.firstId, 1);
  queue.end(new Error('lost'));
  assert.equal((await queue.next())?.firstId, 2);
  await assert.rejects(queue.next(), /lost/);
  assert.equal(await queue.next(), null);
  assert.deepEqual(taken, [10, 20]);
});

test('a fifo gives back what it was given, in order, over any mixture of pushes and shifts', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 500 }), (pushes) => {
      const fifo = new Fifo<number>();
      const model: number[] = [];
      pushes.forEach((isPush, index) => {
        if (isPush) {
          fifo.push(index);
          model.push(index);
        } else {
          assert.equal(fifo.peek(), model[0]);
          assert.equal(fifo.shift(), model.shift());
        }
        assert.equal(fifo.size, model.length);
      });
      assert.deepEqual(fifo.drain(), model);
    }),
  );
});
