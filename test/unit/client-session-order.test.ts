/** What a publisher's session sends when, with batches of many subjects that come again, and what it gives up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProducerSession, type SessionBatch } from '../../src/client/producer-session.ts';
import { RetryBudget } from '../../src/client/retry.ts';
import { PLENTY, refusal, unsentBatch } from './client-session-rig.ts';

interface TestBatch extends SessionBatch {
  readonly name: string;
  end: unknown;
}
function newBatch(name: string, subject: string, madeAt = 0, bytes = 1): TestBatch {
  return { ...unsentBatch(subject, bytes, madeAt), name, end: null };
}

function newSession(isIdempotent = true, deliveryTimeoutMs = 120_000): ProducerSession<TestBatch> {
  return new ProducerSession<TestBatch>(
    {
      isIdempotent,
      deliveryTimeoutMs,
      budget: new RetryBudget(PLENTY),
      backoff: { firstMs: 10, maxMs: 100 },
      random: () => 0,
    },
    {
      stored: (b, id) => {
        b.end = id;
      },
      failed: (b, error) => {
        b.end = error;
      },
    },
  );
}
test('a refused batch is tried again although batches of other subjects, unsent, have to wait for it', () => {
  const session = newSession();
  session.opened(1_024, 0);
  session.widen(1e9, 1e9);
  // 1,024 subjects with a batch on its way each, when the store goes away for a moment.
  for (let i = 0; i < 1_024; i++) session.add(newBatch(`s${i}-1`, `s${i}`));
  for (let i = 0; i < 1_024; i++) assert.notEqual(session.next(0), null);
  for (let i = 0; i < 1_024; i++) session.add(newBatch(`s${i}-2`, `s${i}`));
  // The first one is told to come a little later than the second.
  session.refused(2, refusal('STORE_UNAVAILABLE', 500), 0);
  session.refused(1, refusal('STORE_UNAVAILABLE', 500), 1);
  for (let seq = 3; seq <= 1_024; seq++) session.refused(seq, refusal('STORE_UNAVAILABLE', 500), 1);
  assert.equal(session.next(2), null);
  // The store is back and takes everything.
  let stored = 0;
  for (let now = 400; now < 100_000; now += 0.5) {
    for (let batch = session.next(now); batch !== null; batch = session.next(now)) {
      stored += 1;
      session.stored(batch.sequence, stored);
    }
  }
  assert.equal(session.size, 0, `${session.size} batches wait for ever, in flight ${session.inFlight}`);
});

test('order over two broken streams without a producer id', () => {
  const session = newSession(false);
  session.opened(1_024, 0);
  session.widen(1e9, 1e9);
  for (const name of ['x1', 'y1', 'x2', 'y2', 'x3']) session.add(newBatch(name, name[0] as string));
  while (session.next(0) !== null);
  session.refused(1, refusal('STORE_UNAVAILABLE', 500), 0);
  session.refused(2, refusal('STORE_UNAVAILABLE', 500), 0);
  for (const seq of [3, 4, 5]) session.refused(seq, refusal('PREDECESSOR_FAILED', 0), 0);
  session.broken();
  session.opened(2, 0);
  session.widen(2, 2);
  const second = [session.next(10), session.next(10)];
  assert.equal(second[0]?.name, 'x1');
  session.refused(1, refusal('STORE_UNAVAILABLE', 500), 10);
  while (session.next(10) !== null);
  session.broken();
  session.opened(1_024, 0);
  session.widen(1e9, 1e9);
  const sent: string[] = [];
  for (let batch = session.next(20); batch !== null; batch = session.next(20)) sent.push(batch.name);
  const ofX = sent.filter((name) => name.startsWith('x'));
  assert.deepEqual(ofX, [...ofX].sort());
});

for (const isIdempotent of [false, true]) {
  test(`an unknown outcome that is not tried again (idempotent ${isIdempotent}) frees its subject`, () => {
    const session = newSession(isIdempotent, 1_000);
    session.opened(1_024, 0);
    session.widen(1e9, 1e9);
    const [x1, x2] = [newBatch('x1', 'x', 0), newBatch('x2', 'x', 900)];
    session.add(x1);
    session.add(x2);
    session.next(0);
    session.next(0);
    // As StreamFailures has it: behind an unknown outcome nothing of the subject is taken until that comes again, or the stream ends.
    session.refused(1, refusal('OUTCOME_UNKNOWN', 0, true), 995);
    session.refused(2, refusal('PREDECESSOR_FAILED', 0), 995);
    assert.notEqual(x1.end, null, 'x1 was given up');
    let tries = 0;
    for (let now = 996; now < 1_800; now += 1) {
      if (session.needsNewStream) {
        session.broken();
        session.opened(1_024, 2);
        session.widen(1e9, 1e9);
        tries = -1e9;
      }
      session.expire(now);
      for (let b = session.next(now); b !== null; b = null) {
        if (tries < 0) {
          session.stored(b.sequence, 7);
          continue;
        }
        tries += 1;
        session.refused(b.sequence, refusal('PREDECESSOR_FAILED', 0), now);
      }
    }
    assert.equal(x2.end, 7, `tried ${tries} times in vain`);
  });
}

test('without a producer id an unknown outcome cuts nothing off that is in flight, and a stream that says nothing more is not waited for beyond its time', () => {
  for (const answers of [true, false]) {
    const session = newSession(false, 1_000);
    session.opened(1_024, 0);
    session.widen(1e9, 1e9);
    const [x, y, z] = [newBatch('x', 'x', 0), newBatch('y', 'y', 0), newBatch('z', 'z', 900)];
    session.add(x);
    session.add(y);
    session.next(0);
    session.next(0);
    session.refused(1, refusal('OUTCOME_UNKNOWN', 0, true), 10);
    session.add(z);
    assert.deepEqual([session.needsNewStream, session.next(20), session.retryAt], [false, null, Infinity]);
    if (answers) session.stored(2, 7);
    else session.expire(1_001);
    assert.equal(session.needsNewStream, true);
    session.broken();
    // Or whatever comes while the next one opens would be taken for the end of this one.
    assert.equal(session.needsNewStream, false);
    session.expire(1_001);
    assert.equal(session.needsNewStream, false);
    session.opened(1_024, 0);
    session.widen(1e9, 1e9);
    assert.equal(session.next(1_002), z);
    if (answers) assert.equal(y.end, 7);
    else assert.notEqual(y.end, null);
  }
});
