/** Frames of a stream reach their reader whole and in order, however the connection cuts them, past grpc-js or through it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import fc from 'fast-check';
import type { Reason } from '../../src/base/errors.ts';
import { FrameIntake } from '../../src/grpc/frame-intake.ts';
import { FrameMemory } from '../../src/grpc/frame-memory.ts';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { ReceivedGarbage } from '../../src/grpc/received-garbage.ts';

const LIMIT = 1 << 20;
const identity = (bytes: Buffer): Buffer => bytes;
const METHOD = {
  requestStream: true,
  responseStream: true,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
} as const;

/** gRPC's framing of one message. */
function framed(message: Buffer, compressed = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed, 0);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Every byte tells of its message and its place. */
function numbered(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + 1) & 0xff));
}

async function untilTrue(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setImmediate(resolve));
}

describe('the intake of a stream', () => {
  const server = new Server({ 'grpc.max_receive_message_length': LIMIT });
  const shared = {
    memory: new FrameMemory(),
    garbage: new ReceivedGarbage(),
    budget: new ReceiveBudget(64 << 20, 30_000, 300_000),
  };
  const unexpected = (reason: Reason): void => assert.fail(reason);
  let session: ClientHttp2Session;
  let onCall: (call: ServerDuplexStream<Buffer, Buffer>) => void = () => undefined;

  before(async () => {
    server.addService(
      { stream: { path: '/t.T/Stream', ...METHOD } },
      { stream: (call: ServerDuplexStream<Buffer, Buffer>) => onCall(call) },
    );
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    session = connect(`http://127.0.0.1:${port}`);
    await once(session, 'connect');
  });

  after(() => {
    session.destroy();
    server.forceShutdown();
  });

  function begin(headers: Record<string, string> = {}): ClientHttp2Stream {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/t.T/Stream',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    stream.resume();
    return stream;
  }

  /** Sends the pieces one by one, each in a DATA frame of its own; returns what the server got, copied as it came. */
  async function send(pieces: readonly Buffer[], headers: Record<string, string> = {}): Promise<Buffer[]> {
    const got: Buffer[] = [];
    const ended = new Promise<void>((resolve) => {
      onCall = (call) => {
        const onFrame = (frame: Buffer): void => {
          got.push(Buffer.from(frame));
        };
        new FrameIntake(call, shared, onFrame, unexpected);
        call.on('end', () => {
          call.end();
          resolve();
        });
      };
    });
    const stream = begin(headers);
    const closed = once(stream, 'close');
    for (const piece of pieces) await new Promise((resolve) => stream.write(piece, resolve));
    stream.end();
    await ended;
    await closed;
    return got;
  }

  it('hands on messages of any size that are cut anywhere', async () => {
    const size = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 300_000 }));
    await fc.assert(
      fc.asyncProperty(
        fc.array(size, { minLength: 1, maxLength: 8 }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 }),
        async (sizes, cuts) => {
          const messages = sizes.map((length, i) => numbered(length, i));
          const bytes = Buffer.concat(messages.map((message) => framed(message)));
          const at = [...cuts.map((cut) => Math.floor(cut * bytes.length)), 0, bytes.length].sort((a, b) => a - b);
          const pieces = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
          const got = await send(pieces.filter((piece) => piece.length > 0));
          assert.deepEqual(
            got.map((frame) => frame.length),
            sizes,
          );
          for (const [i, message] of messages.entries()) assert.ok(message.equals(got[i] as Buffer), `message ${i}`);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes messages byte by byte', async () => {
    const messages = [numbered(3, 1), numbered(0, 2), numbered(1, 3), numbered(9, 4)];
    const bytes = Buffer.concat(messages.map((message) => framed(message)));
    assert.deepEqual(await send([...bytes].map((byte) => Buffer.from([byte]))), messages);
  });

  it('keeps the order around a compressed message, and what comes with it in one piece', async () => {
    const messages = Array.from({ length: 6 }, (_, i) => numbered(20_000, i));
    const all = messages.map((message, i) => (i === 2 || i === 4 ? framed(gzipSync(message), 1) : framed(message)));
    assert.deepEqual(await send([Buffer.concat(all)], { 'grpc-encoding': 'gzip' }), messages);
    assert.deepEqual(await send(all, { 'grpc-encoding': 'gzip' }), messages);
  });

  it('leaves the refusal of a message over the limit to grpc-js', { timeout: 20_000 }, async () => {
    const got: Buffer[] = [];
    onCall = (call) => {
      new FrameIntake(call, shared, (frame) => got.push(Buffer.from(frame)), unexpected);
    };
    const stream = begin();
    // Without metadata before it, a status comes as the only headers.
    const trailers = Promise.race([once(stream, 'trailers'), once(stream, 'response')]);
    const head = framed(Buffer.alloc(0));
    head.writeUInt32BE(LIMIT + 1, 1);
    stream.write(Buffer.concat([framed(numbered(5, 1)), head]));
    const [fields] = (await trailers) as [Record<string, string>];
    assert.equal(fields['grpc-status'], '8');
    assert.deepEqual(got, [numbered(5, 1)]);
    stream.destroy();
  });

  it('paused, it lets no more in than HTTP/2 has room for, and resumed all of it', async () => {
    let bytes = 0;
    let intake: FrameIntake | undefined;
    const ended = new Promise<void>((resolve) => {
      onCall = (call) => {
        const onFrame = (frame: Buffer): void => {
          if (bytes === 0) intake?.pause();
          bytes += frame.length;
        };
        intake = new FrameIntake(call, shared, onFrame, unexpected);
        call.on('end', () => {
          call.end();
          resolve();
        });
      };
    });
    const stream = begin();
    const message = framed(numbered(64 << 10, 1));
    const count = 400;
    for (let i = 0; i < count; i++) stream.write(message);
    stream.end();
    // Nothing moves any more once a whole round trip on the same connection has brought nothing.
    for (let before = -1; before !== bytes || bytes === 0; ) {
      before = bytes;
      await new Promise<void>((resolve) => session.ping(() => resolve()));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(bytes > 0 && bytes < (count / 2) * (64 << 10), `${bytes} bytes`);
    intake?.resume();
    await ended;
    assert.equal(bytes, count * (64 << 10));
  });

  it('[W6] what has come of large messages counts together: beyond the budget a stream is refused, and one that stands still is ended', {
    timeout: 20_000,
  }, async () => {
    const budget = new ReceiveBudget(LIMIT, 30_000, 300_000);
    const got: Buffer[] = [];
    const refused: Reason[] = [];
    onCall = (call) => {
      new FrameIntake(
        call,
        { ...shared, budget },
        (frame) => got.push(Buffer.from(frame)),
        (reason) => {
          refused.push(reason);
          call.end();
        },
      );
    };
    const message = framed(numbered(LIMIT, 1));
    const first = begin();
    first.write(message.subarray(0, -1));
    await untilTrue(() => budget.bytes === LIMIT);
    const second = begin();
    second.write(message.subarray(0, -1));
    await untilTrue(() => refused.length > 0);
    assert.deepEqual(refused, ['IN_FLIGHT_FULL']);
    assert.equal(budget.bytes, LIMIT);
    // What was complete is counted no more.
    first.write(message.subarray(-1));
    await untilTrue(() => got.length > 0);
    assert.equal(budget.bytes, 0);
    first.write(message.subarray(0, -1));
    await untilTrue(() => budget.bytes === LIMIT);
    budget.sweep(0, 0);
    budget.sweep(29_999, 0);
    assert.equal(refused.length, 1);
    budget.sweep(30_000, 0);
    assert.deepEqual(refused, ['IN_FLIGHT_FULL', 'REQUEST_STALLED']);
    assert.equal(budget.bytes, 0);
    for (const stream of [first, second]) stream.destroy();
  });

  it('a reader that throws ends no stream with a status about sizes: the defect is told to the process', async () => {
    const defect = new Error('defect of the reader');
    onCall = (call) => {
      const broken = (): void => {
        throw defect;
      };
      new FrameIntake(call, shared, broken, unexpected);
    };
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    try {
      const told = once(process, 'uncaughtException');
      const stream = begin();
      stream.write(framed(numbered(5, 1)));
      assert.equal((await told)[0], defect);
      stream.destroy();
    } finally {
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });
});

describe('memory of frames', () => {
  it('is used again, and grows no larger than its bound', () => {
    const memory = new FrameMemory();
    const first = memory.take(1_000);
    memory.give(first);
    assert.equal(memory.take(100_000), first);
    assert.notEqual(memory.take(100_000), first, 'given out twice');
    const large = memory.take(3 << 20);
    assert.ok(large.length >= 3 << 20);
    memory.give(large);
    assert.equal(memory.take(2 << 20), large);
    const pieces = Array.from({ length: 100 }, () => memory.take(1 << 20));
    for (const piece of pieces) memory.give(piece);
    const again = new Set(Array.from({ length: 100 }, () => memory.take(1 << 20)));
    assert.ok(pieces.filter((piece) => again.has(piece)).length <= 8, 'keeps more than 8 MiB');
  });
});
