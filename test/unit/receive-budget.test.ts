/** Requests that never come to their end, at the door and through grpc-js: what is kept of them is bounded, and they are ended. */
import assert from 'node:assert/strict';
import { type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import { describe, type TestContext, test } from 'node:test';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { decodeErrorDetails } from '../support/wire.ts';
import { DOOR, eventually, startServer, TestEngine } from './grpc-rig.ts';

const KIB = 1 << 10;
const BUDGET = 1 << 20;
const MESSAGE = 256 * KIB;
const STALL_MS = 30_000;
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

async function rig(t: TestContext) {
  const budget = new ReceiveBudget(BUDGET, STALL_MS);
  const engine = new TestEngine();
  const server = await startServer(t, { engine, receiving: budget, limits: { ...DOOR, messageBytes: BUDGET } });
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
      assert.equal(budget.bytes, 0);
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
      await eventually(t, () => budget.bytes > 0);
      budget.sweep(0, 0);
      budget.sweep(STALL_MS - 1, 0);
      answer.stream.write(framed(MESSAGE).subarray(1_000, 2_000));
      await eventually(t, () => budget.bytes > 1_000);
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

test('a message that is complete, and whose call is not, counts too', { timeout: 20_000 }, async (t) => {
  const { budget, begin } = await rig(t);
  for (const method of METHODS) begin(method).stream.write(framed(KIB));
  await eventually(t, () => budget.bytes >= 3 * KIB);
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
