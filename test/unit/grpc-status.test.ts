import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { BrokerError, REASON_NAMES, REASONS, type Reason, type ReasonRow } from '../../src/base/errors.ts';
import { makeStatus, StatusBook, statusOf } from '../../src/grpc/status.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { startServer, TestEngine } from './grpc-rig.ts';

const HEADER_LIST_BYTES_MAX = 8 << 10;
/** HTTP/2 counts 32 bytes for every header beside its name and value (RFC 9113, section 6.5.2). */
const HEADER_BYTES = 32;

/** Refuses every call with the reason that is its request. */
function refusingEngine(): TestEngine {
  const book = new StatusBook();
  const engine = new TestEngine((request, _deadline, done) => done(book.of(request.toString() as Reason)));
  engine.stream = (request, stream) => void stream.emit('error', book.of(request.toString() as Reason));
  return engine;
}

function assertExplained(error: CallError, reason: Reason): void {
  const row: ReasonRow = REASONS[reason];
  assert.equal(error.statusName, row.status);
  assert.equal(error.reason, reason);
  assert.deepEqual(error.metadata, { outcome: row.outcome });
  assert.equal(error.retryAfterMs, row.retryAfterMs ?? null);
  assert.ok(error.message.includes(row.when) && error.message.includes(row.next), error.message);
}

test(`[P11] each of the ${REASON_NAMES.length} reasons reaches a caller with its status, ErrorInfo and RetryInfo, on every method`, async (t) => {
  const server = await startServer(t, { engine: refusingEngine() });
  const client = new BrokerClient(server.address);
  t.after(() => client.close());
  for (const reason of REASON_NAMES) {
    for (const method of ['Publish', 'Fetch', 'Broadcast', 'IncIdx']) {
      const error = await client.call(method, Buffer.from(reason)).catch((failure: unknown) => failure);
      assert.ok(error instanceof CallError, `${method} ${reason}: ${error}`);
      assertExplained(error, reason);
    }
    const { promise, resolve } = Promise.withResolvers<CallError | null>();
    client.subscribeRaw(Buffer.from(reason), { onMessage: () => undefined, onEnd: resolve });
    const error = await promise;
    assert.ok(error !== null, reason);
    assertExplained(error, reason);
  }
});

test('[P11] closed is UNAVAILABLE, an id that is absent, void, expired or trimmed is INVALID_ARGUMENT', () => {
  for (const reason of ['NOT_READY', 'SHUTTING_DOWN'] as const) assert.equal(REASONS[reason].status, 'UNAVAILABLE');
  for (const reason of ['ID_NOT_FOUND', 'ID_VOID', 'ID_EXPIRED', 'ID_TRIMMED'] as const) {
    assert.equal(REASONS[reason].status, 'INVALID_ARGUMENT');
  }
});

test('[P11] UNAVAILABLE and RESOURCE_EXHAUSTED always say outcome none; an unknown outcome is UNKNOWN or INTERNAL', () => {
  for (const reason of REASON_NAMES) {
    const { status, outcome } = REASONS[reason];
    assert.equal(outcome === 'unknown', status === 'UNKNOWN' || status === 'INTERNAL', reason);
  }
  assert.equal(REASONS.OUTCOME_UNKNOWN.status, 'UNKNOWN');
});

test('a refusal without details is made once and shared', () => {
  const book = new StatusBook();
  for (const reason of REASON_NAMES) assert.equal(book.of(reason), book.of(reason));
  assert.notEqual(book.of('QUEUE_FULL', 'shard 1'), book.of('QUEUE_FULL'));
  assert.match(book.of('QUEUE_FULL', 'shard 1').details, /\(shard 1\)/);
});

test('trailers stay under 8 KiB and can be sent, whatever the details: long, multi-byte, control characters, half a surrogate pair', () => {
  const details = ['x', 'ü', '€', '🚀', '\ud800', '\n', '%'].flatMap((text) => [
    text.repeat(10_000),
    `y${text.repeat(10_000)}`,
  ]);
  for (const reason of REASON_NAMES) {
    for (const text of details) {
      for (const status of [makeStatus(reason, text), statusOf(new BrokerError(reason, text))]) {
        const trailers = {
          ...status.metadata.toHttp2Headers(),
          'grpc-status': '8',
          'grpc-message': encodeURI(status.details),
        };
        let size = 0;
        for (const [name, value] of Object.entries(trailers)) {
          size += name.length + String(value).length + HEADER_BYTES;
        }
        assert.ok(size < HEADER_LIST_BYTES_MAX, `${reason}: ${size} bytes`);
      }
    }
  }
});

test('the status of a thrown error has its own words', () => {
  const status = statusOf(new BrokerError('ID_INVALID', 'first = 0'));
  assert.match(status.details, /first = 0/);
  assert.ok(!(new AssertionError('x') instanceof BrokerError));
});
