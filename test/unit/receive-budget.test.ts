/** Requests that never come to their end, at the door and through grpc-js: what is kept of them is bounded, and they are ended. */
import assert from 'node:assert/strict';
import { type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import { describe, type TestContext, test } from 'node:test';
import { TRACE_CONTEXT_BYTES } from '../../src/base/trace-context.ts';
import type { ConnectionNote } from '../../src/grpc/connection-note.ts';
import type { CallTracing } from '../../src/grpc/engine.ts';
import { CALL_BYTES, ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { decodeErrorDetails } from '../support/wire.ts';
import { DOOR, eventually, startServer, TestEngine } from './grpc-rig.ts';

const KIB = 1 << 10;
const BUDGET = 1 << 20;
const MESSAGE = 256 * KIB;
const STALL_MS = 30_000;
const WHOLE_MS = 300_000;
/** One method of each way that requests come in. */
const METHODS = ['Publish', 'Fetch', 'Subscribe'];

interface Answer {
  readonly stream: ClientHttp2Stream;
  /** Null until there is one. */
  fields: IncomingHttpHeaders | null;
  isClosed: boolean;
}

function reasonOf({ fields }: Answer): string | null {
  const details = fields?.['grpc-status-details-bin'];
  return details === undefined ? null : decodeErrorDetails(Buffer.from(String(details), 'base64')).reason;
}

async function rig(t: TestContext, tracing: CallTracing | null = null) {
  const budget = new ReceiveBudget(BUDGET, STALL_MS, WHOLE_MS);
  const engine = new TestEngine();
  const server = await startServer(t, {
    engine,
    receiving: budget,
    limits: { ...DOOR, messageBytes: BUDGET },
    tracing,
  });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const begin = (method: string, headers: Readonly<Record<string, string>> = {}): Answer => {
    const stream = session.request({
      ':method': 'POST',
      ':path': `/broker.Broker/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    const answer: Answer = { stream, fields: null, isClosed: false };
    stream.on('error', () => undefined);
    stream.on('response', (fields) => {
      answer.fields = fields;
    });
    stream.on('close', () => {
      answer.isClosed = true;
    });
    stream.resume();
    return answer;
  };
  return { budget, engine, session, begin };
}

function framed(bytes: number): Buffer {
  const frame = Buffer.alloc(5 + bytes, 7);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(bytes, 1);
  return frame;
}

for (const method of METHODS) {
  describe(`requests of ${method} that lack their last byte`, () => {
    test('[W6] are kept up to the budget, all together, and refused beyond it with the time to wait', {
      timeout: 20_000,
    }, async (t) => {
      const { budget, engine, session, begin } = await rig(t);
      const answers = Array.from({ length: 20 }, () => begin(method));
      let most = 0;
      for (const { stream } of answers) stream.write(framed(MESSAGE).subarray(0, -1));
      const refused = (): Answer[] => answers.filter(({ fields }) => fields !== null);
      await eventually(t, () => {
        most = Math.max(most, budget.bytes);
        return refused().length >= 16;
      });
      assert.ok(most <= BUDGET, `${most} bytes were kept`);
      for (const answer of refused()) {
        assert.equal(reasonOf(answer), 'IN_FLIGHT_FULL');
        const details = decodeErrorDetails(Buffer.from(String(answer.fields?.['grpc-status-details-bin']), 'base64'));
        assert.ok((details.retryAfterMs ?? 0) > 0);
      }
      // Those that were kept are served when they come to their end, and there is room again.
      const kept = answers.filter(({ fields }) => fields === null);
      assert.ok(kept.length >= 1);
      for (const { stream } of kept) stream.end(Buffer.alloc(1));
      await eventually(t, () => engine.calls + engine.streams.length === kept.length);
      assert.deepEqual([budget.bytes, budget.refused], [0, answers.length - kept.length]);
      session.destroy();
    });

    test('are forgotten when their connection goes', { timeout: 20_000 }, async (t) => {
      const { budget, session, begin } = await rig(t);
      begin(method).stream.write(framed(MESSAGE).subarray(0, -1));
      await eventually(t, () => budget.bytes >= MESSAGE);
      session.destroy();
      await eventually(t, () => {
        budget.sweep(0, 0);
        return budget.bytes === 0;
      });
    });

    test('are ended when nothing came of them for limits.receive_timeout, and cut off', {
      timeout: 20_000,
    }, async (t) => {
      const { budget, engine, begin } = await rig(t);
      const answer = begin(method);
      answer.stream.write(framed(MESSAGE).subarray(0, 1_000));
      await eventually(t, () => budget.bytes > CALL_BYTES);
      budget.sweep(0, 0);
      budget.sweep(STALL_MS - 1, 0);
      answer.stream.write(framed(MESSAGE).subarray(1_000, 2_000));
      await eventually(t, () => budget.bytes > CALL_BYTES + 1_000);
      // It has moved since.
      budget.sweep(STALL_MS, 0);
      assert.equal(answer.fields, null);
      assert.ok(budget.bytes > 0);
      budget.sweep(2 * STALL_MS, 0);
      assert.equal(budget.bytes, 0);
      await eventually(t, () => answer.isClosed);
      assert.equal(reasonOf(answer), 'REQUEST_STALLED');
      assert.equal(engine.calls + engine.streams.length, 0);
    });
  });
}

test('a full broker refuses a publish in pieces before it makes room for the second, and one in a piece by its own ways', {
  timeout: 20_000,
}, async (t) => {
  const traced: (readonly [string, string | undefined])[] = [];
  const { budget, engine, begin } = await rig(t, {
    begin: () => ({ context: new Uint8Array(TRACE_CONTEXT_BYTES), receivedAt: 0 }),
    ended: (method, _subject, _trace, error) => void traced.push([method, error?.details]),
  });
  const asked: number[] = [];
  engine.refuse = (bytes) => {
    asked.push(bytes);
    return makeStatus('OVERLOADED', '');
  };
  const inPieces = begin('Publish');
  inPieces.stream.write(framed(MESSAGE).subarray(0, 1_000));
  await eventually(t, () => budget.bytes === CALL_BYTES + 1_000);
  assert.deepEqual(asked, []);
  let most = 0;
  const tryHold = budget.tryHold.bind(budget);
  budget.tryHold = (receiving, bytes) => {
    most = Math.max(most, bytes);
    return tryHold(receiving, bytes);
  };
  inPieces.stream.write(framed(MESSAGE).subarray(1_000, 2_000));
  // Its client has not ended it, and need not.
  await eventually(t, () => inPieces.fields !== null);
  assert.equal(reasonOf(inPieces), 'OVERLOADED');
  assert.deepEqual([asked, most, budget.bytes], [[MESSAGE], 0, 0]);
  assert.deepEqual(traced, [['Publish', makeStatus('OVERLOADED', '').details]]);
  const inOne = begin('Publish');
  inOne.stream.end(framed(1_000));
  await eventually(t, () => engine.calls === 1);
  assert.equal(asked.length, 1);
});

test('a message that is complete, and whose call is not, counts too', { timeout: 20_000 }, async (t) => {
  const { budget, begin } = await rig(t);
  for (const method of METHODS) begin(method).stream.write(framed(KIB));
  await eventually(t, () => budget.bytes >= 3 * (CALL_BYTES + KIB));
  budget.sweep(0, 0);
  budget.sweep(STALL_MS, 0);
  assert.equal(budget.bytes, 0);
});

test('a publish whose deadline passes before its end has come is DEADLINE_PASSED', { timeout: 20_000 }, async (t) => {
  const { budget, begin } = await rig(t);
  const answer = begin('Publish', { 'grpc-timeout': '10S' });
  answer.stream.write(framed(KIB).subarray(0, -1));
  await eventually(t, () => budget.bytes > 0);
  budget.sweep(0, Date.now());
  assert.equal(answer.fields, null);
  budget.sweep(0, Date.now() + 10_000);
  await eventually(t, () => answer.fields !== null);
  assert.equal(reasonOf(answer), 'DEADLINE_PASSED');
});

test('[F5] a call of which nothing but its head comes takes room, and is ended like any other that stands still', {
  timeout: 20_000,
}, async (t) => {
  const { budget, begin, engine } = await rig(t);
  const answers = ['Publish', 'Fetch', 'Subscribe'].map((method) => {
    const answer = begin(method);
    // Sends the head.
    answer.stream.write(Buffer.alloc(0));
    return answer;
  });
  await eventually(t, () => budget.bytes === 3 * CALL_BYTES);
  budget.sweep(1, 0);
  budget.sweep(1 + STALL_MS, 0);
  await eventually(t, () => answers.every(({ isClosed }) => isClosed));
  assert.deepEqual(answers.map(reasonOf), ['REQUEST_STALLED', 'REQUEST_STALLED', 'REQUEST_STALLED']);
  assert.deepEqual([budget.bytes, engine.calls], [0, 0]);
});

test('[F5] heads alone are refused when there is no room for them', { timeout: 20_000 }, async (t) => {
  const { budget, begin } = await rig(t);
  const answers = Array.from({ length: BUDGET / CALL_BYTES + 10 }, (_, i) => {
    const answer = begin(METHODS[i % METHODS.length] as string);
    answer.stream.write(Buffer.alloc(0));
    return answer;
  });
  const refused = () => answers.filter(({ fields }) => fields !== null);
  await eventually(t, () => refused().length === 10);
  assert.deepEqual(new Set(refused().map(reasonOf)), new Set(['IN_FLIGHT_FULL']));
  assert.ok(budget.bytes <= BUDGET);
});

test('[F5] a request that comes a little at a time is ended after limits.request_timeout, however steadily it comes', {
  timeout: 20_000,
}, async (t) => {
  const { budget, begin } = await rig(t);
  budget.sweep(1, 0);
  const answer = begin('Publish');
  const bytes = framed(MESSAGE);
  let sent = 0;
  for (let now = 1 + STALL_MS - 1; now < WHOLE_MS; now += STALL_MS - 1) {
    // Each time more than there is room for, so that what is held shows that it came.
    const held = budget.bytes;
    const next = sent * 3 + 1;
    answer.stream.write(bytes.subarray(sent, next));
    sent = next;
    await eventually(t, () => budget.bytes > held);
    budget.sweep(now, 0);
    assert.equal(answer.fields, null);
  }
  budget.sweep(1 + WHOLE_MS, 0);
  await eventually(t, () => answer.isClosed);
  assert.equal(reasonOf(answer), 'REQUEST_STALLED');
});

/** A request by itself, without a stream. */
function piece(connection: ConnectionNote | null, receivedBytes: number) {
  const ended: boolean[] = [];
  const receiving = {
    ...{ heldBytes: 0, seenBytes: -1, movedAt: 0, beganAt: 0, connection, receivedBytes },
    ...{ deadlineMs: Number.POSITIVE_INFINITY, isPaused: false, isGone: false, ended },
    stalled: (isLate: boolean) => void ended.push(isLate),
  };
  return receiving;
}

const connectionOf = (heldBytes: number): ConnectionNote => ({ heldBytes }) as ConnectionNote;

describe('without room', () => {
  test('[F5] what comes slowly gives way, the oldest first, and only to what needs its room', () => {
    const budget = new ReceiveBudget(100 * KIB, STALL_MS, WHOLE_MS);
    budget.sweep(1_000, 0);
    const quick = piece(null, 60 * KIB);
    const slow = [piece(null, 10), piece(null, 10)];
    assert.ok(budget.tryHold(quick, 40 * KIB));
    for (const one of slow) assert.ok(budget.tryHold(one, 30 * KIB));
    const other = piece(null, 0);
    assert.equal(budget.tryHold(other, 4 * KIB), false, 'nobody is slow yet');
    budget.sweep(2_000, 0);
    assert.ok(budget.tryHold(other, 4 * KIB));
    assert.deepEqual(
      [quick, ...slow].map(({ ended }) => ended.length),
      [0, 1, 0],
    );
    assert.equal(budget.bytes, 74 * KIB);
  });

  test('[F5] a connection with much of it gives way to one with little, and not to its own or to its like', () => {
    const budget = new ReceiveBudget(100 * KIB, STALL_MS, WHOLE_MS);
    budget.sweep(1_000, 0);
    const [hog, like, small] = [connectionOf(0), connectionOf(0), connectionOf(0)];
    const hogs = Array.from({ length: 5 }, () => piece(hog, 0));
    for (const one of hogs) assert.ok(budget.tryHold(one, 10 * KIB));
    const likes = Array.from({ length: 5 }, () => piece(like, 0));
    for (const one of likes) assert.ok(budget.tryHold(one, 10 * KIB));
    assert.equal(budget.tryHold(piece(hog, 0), 4 * KIB), false);
    assert.equal(budget.tryHold(piece(like, 0), 4 * KIB), false);
    assert.ok(budget.tryHold(piece(small, 0), 4 * KIB));
    assert.deepEqual(
      [...hogs, ...likes].map(({ ended }) => ended.length),
      [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    assert.deepEqual([hog.heldBytes, like.heldBytes, small.heldBytes], [40 * KIB, 50 * KIB, 4 * KIB]);
  });
});
