/** The producer's memory against a model of the broker that refuses, loses and breaks as it likes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../src/base/prng.ts';
import { type ClientError, closedError } from '../../src/client/errors.ts';
import { ProducerSession, type Refusal, type SessionBatch } from '../../src/client/producer-session.ts';
import { BACKOFF, type BackoffOptions, RetryBudget } from '../../src/client/retry.ts';
import { PLENTY, refusal, unsentBatch } from './client-session-rig.ts';

interface TestBatch extends SessionBatch {
  readonly number: number;
  end: { firstId: number } | { error: ClientError } | null;
}

function newBatch(number: number, subject: string, bytes: number, madeAt: number): TestBatch {
  return { ...unsentBatch(subject, bytes, madeAt), number, end: null };
}

function newSession(
  options: { budget?: RetryBudget; backoff?: BackoffOptions; deliveryTimeoutMs?: number; isIdempotent?: boolean } = {},
): ProducerSession<TestBatch> {
  const end = (batch: TestBatch, what: NonNullable<TestBatch['end']>): void => {
    assert.equal(batch.end, null, `batch ${batch.number} came to an end twice`);
    batch.end = what;
  };
  return new ProducerSession<TestBatch>(
    {
      isIdempotent: options.isIdempotent ?? true,
      deliveryTimeoutMs: options.deliveryTimeoutMs ?? Number.POSITIVE_INFINITY,
      budget: options.budget ?? new RetryBudget(PLENTY),
      backoff: options.backoff ?? { firstMs: 10, maxMs: 100 },
      random: () => 0,
    },
    {
      stored: (batch, firstId) => end(batch, { firstId }),
      failed: (batch, error) => end(batch, { error }),
    },
  );
}

interface Sent {
  readonly subject: string;
  readonly sequence: number;
  readonly number: number;
}

/** What a broker may do with one stream, by the words of proto/broker/v1/producer.proto. */
class ModelBroker {
  /** Of the producer, over all streams. */
  readonly stored = new Map<number, { readonly number: number; readonly id: number }>();
  readonly heads = new Map<string, number>();
  /** Numbers of batches by subject, as they were stored. */
  readonly logs = new Map<string, number[]>();
  #failed = new Map<string, number>();
  #last = 0;
  #refusedOnStream = new Set<number>();
  #expectsFirst = 1;
  readonly inFlight: Sent[] = [];

  open(firstSequence: number): void {
    this.#failed.clear();
    this.#refusedOnStream.clear();
    this.#last = firstSequence - 1;
    this.#expectsFirst = firstSequence;
    this.inFlight.length = 0;
  }

  receive(batch: TestBatch): void {
    const { sequence, subject, number } = batch;
    assert.ok(sequence >= this.#expectsFirst, 'a sequence below the first of the stream');
    assert.ok(
      sequence > this.#last || this.#refusedOnStream.has(sequence),
      `sequence ${sequence} came after ${this.#last} without having been refused`,
    );
    assert.ok(sequence > this.#last - 1_024, 'a sequence that the broker has forgotten');
    this.#last = Math.max(this.#last, sequence);
    this.inFlight.push({ subject, sequence, number });
  }

  /** Handles the oldest batch; `fault`: what is wrong with it, or null. At the door nobody looks whether it was stored before. */
  handle(fault: Refusal | null, isAtDoor = false): { sent: Sent; firstId: number } | { sent: Sent; refusal: Refusal } {
    const sent = this.inFlight.shift() as Sent;
    const failed = this.#failed.get(sent.subject);
    if (failed !== undefined && sent.sequence > failed) {
      this.#refusedOnStream.add(sent.sequence);
      return { sent, refusal: refusal('PREDECESSOR_FAILED', 0) };
    }
    this.#failed.delete(sent.subject);
    const known = this.stored.get(sent.sequence);
    if (known !== undefined && (fault === null || !isAtDoor)) {
      assert.equal(known.number, sent.number, `sequence ${sent.sequence} was used for another batch`);
      return { sent, firstId: known.id };
    }
    if (fault !== null) {
      if (fault.retryAfterMs > 0) this.#failed.set(sent.subject, sent.sequence);
      this.#refusedOnStream.add(sent.sequence);
      return { sent, refusal: fault };
    }
    const id = (this.heads.get(sent.subject) ?? 0) + 1;
    this.heads.set(sent.subject, id);
    this.logs.set(sent.subject, [...(this.logs.get(sent.subject) ?? []), sent.number]);
    this.stored.set(sent.sequence, { number: sent.number, id });
    return { sent, firstId: id };
  }
}

const SUBJECTS = ['a', 'b', 'c'];

test('[R25] every batch is stored once and each subject in order, over refusals, lost answers and broken streams', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.integer({ min: 20, max: 300 }), (seed, steps) => {
      const random = new Prng(seed);
      const broker = new ModelBroker();
      const session = newSession();
      const batches: TestBatch[] = [];
      const answers: ReturnType<ModelBroker['handle']>[] = [];
      let isOpen = false;
      let now = 0;
      let sentBytes = 0;
      let limit = 0;
      const step = (isQuiet: boolean): void => {
        now += random.nextBelow(20);
        const dice = random.nextBelow(100);
        if (!isOpen) {
          broker.open(session.firstSequence);
          session.opened(16, 0);
          isOpen = true;
          sentBytes = 0;
          limit = 500;
          session.widen(limit, 1_000_000);
        }
        if (!isQuiet && dice < 30) {
          const subject = SUBJECTS[random.nextBelow(SUBJECTS.length)] as string;
          const batch = newBatch(batches.length, subject, 1 + random.nextBelow(100), now);
          batches.push(batch);
          session.add(batch);
        }
        for (let batch = session.next(now); batch !== null; batch = session.next(now)) {
          assert.ok(broker.inFlight.length + answers.length < 16, 'too many in flight');
          sentBytes += batch.bytes;
          assert.ok(sentBytes <= limit || broker.inFlight.length + answers.length === 0, 'the window was exceeded');
          broker.receive(batch);
        }
        if (broker.inFlight.length > 0 && random.chance(1, 2)) {
          const isBad = !isQuiet && random.chance(1, 4);
          const fault = random.chance(1, 2) ? refusal('QUEUE_FULL', 50) : refusal('OVERLOADED', 200);
          answers.push(broker.handle(isBad ? fault : null, random.chance(1, 2)));
        }
        if (answers.length > 0 && random.chance(1, 2)) {
          const answer = answers.shift() as (typeof answers)[number];
          if ('firstId' in answer) assert.ok(session.stored(answer.sent.sequence, answer.firstId));
          else assert.ok(session.refused(answer.sent.sequence, answer.refusal, now));
          limit = Math.max(limit, sentBytes + random.nextBelow(400));
          session.widen(limit, 1_000_000);
        }
        if (!isQuiet && dice >= 97) {
          // What the broker has taken it may still store, and its answers are lost.
          while (broker.inFlight.length > 0 && random.chance(2, 3)) broker.handle(null);
          answers.length = 0;
          session.broken();
          isOpen = false;
        }
      };
      for (let i = 0; i < steps; i++) step(false);
      for (let i = 0; i < 20_000 && session.size > 0; i++) step(true);
      assert.equal(session.size, 0, 'something never came to an end');
      for (const batch of batches) assert.ok(batch.end !== null && 'firstId' in batch.end, 'all are stored');
      for (const subject of SUBJECTS) {
        const published = batches.filter((batch) => batch.subject === subject).map((batch) => batch.number);
        assert.deepEqual(broker.logs.get(subject) ?? [], published);
      }
    }),
    { numRuns: 300 },
  );
});

test('[R25] results that come in any order, twice, or never: each batch ends once, with its own ids, and nothing is lost', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.integer({ min: 20, max: 300 }), (seed, steps) => {
      const random = new Prng(seed);
      const broker = new ModelBroker();
      const session = newSession();
      const batches: TestBatch[] = [];
      let now = 0;
      let isOpen = false;
      /** Of this stream: on their way to the session, and what it has had. */
      let answers: ReturnType<ModelBroker['handle']>[] = [];
      const stored: { readonly sequence: number; readonly firstId: number }[] = [];
      const tell = (answer: (typeof answers)[number]): void => {
        if ('firstId' in answer) {
          assert.ok(session.stored(answer.sent.sequence, answer.firstId));
          stored.push({ sequence: answer.sent.sequence, firstId: answer.firstId });
        } else {
          assert.ok(session.refused(answer.sent.sequence, answer.refusal, now));
        }
      };
      const repeat = (): void => {
        const old = stored[random.nextBelow(stored.length)];
        if (old === undefined) return;
        const before = [session.size, session.inFlight, session.firstSequence];
        assert.equal(session.stored(old.sequence, old.firstId + 1), false, 'a second result is not believed');
        assert.equal(session.refused(old.sequence, refusal('OVERLOADED', 10), now), false);
        assert.deepEqual([session.size, session.inFlight, session.firstSequence], before);
      };
      for (let i = 0; i < 40_000 && (i < steps || session.size > 0); i++) {
        const isQuiet = i >= steps;
        now += random.nextBelow(20);
        if (!isOpen) {
          broker.open(session.firstSequence);
          session.opened(32, 0);
          session.widen(1e9, 1e9);
          isOpen = true;
        }
        if (!isQuiet && random.chance(1, 2)) {
          const batch = newBatch(batches.length, SUBJECTS[random.nextBelow(SUBJECTS.length)] as string, 10, now);
          batches.push(batch);
          session.add(batch);
        }
        for (let batch = session.next(now); batch !== null; batch = session.next(now)) broker.receive(batch);
        if (broker.inFlight.length > 0 && random.chance(2, 3)) {
          answers.push(broker.handle(!isQuiet && random.chance(1, 5) ? refusal('QUEUE_FULL', 30) : null));
        }
        if (answers.length > 0 && random.chance(1, 2)) {
          // Any of them: that of a later batch before that of an earlier one, of the same subject or not.
          tell(...(answers.splice(random.nextBelow(answers.length), 1) as [(typeof answers)[number]]));
        }
        if (random.chance(1, 8)) repeat();
        if (!isQuiet && random.chance(1, 40)) {
          while (broker.inFlight.length > 0 && random.chance(3, 4)) broker.handle(null);
          answers = [];
          session.broken();
          isOpen = false;
        }
      }
      assert.equal(session.size, 0, 'something never came to an end');
      for (const batch of batches) {
        assert.ok(batch.end !== null && 'firstId' in batch.end);
        assert.equal(broker.logs.get(batch.subject)?.[batch.end.firstId - 1], batch.number, 'ids of another batch');
      }
      for (const subject of SUBJECTS) {
        const published = batches.filter((batch) => batch.subject === subject).map((batch) => batch.number);
        assert.deepEqual(broker.logs.get(subject) ?? [], published);
      }
    }),
    { numRuns: 300 },
  );
});

/** A session with an open stream, whose first batches of subject `s` are sent. */
function sent(count: number, options: Parameters<typeof newSession>[0] = {}) {
  const session = newSession(options);
  const batches = Array.from({ length: count }, (_, index) => newBatch(index, 's', 10, 0));
  for (const batch of batches) session.add(batch);
  session.opened(1_024, 0);
  session.widen(1e9, 1e9);
  while (session.next(0) !== null);
  return { session, batches };
}

test('after a refusal the refused batch goes alone, when it may, and the others follow once it is stored', () => {
  const { session, batches } = sent(3);
  session.refused(1, refusal('QUEUE_FULL', 50), 0);
  assert.equal(session.next(1_000), null, 'two are still on their way');
  session.refused(2, refusal('PREDECESSOR_FAILED', 0), 0);
  session.refused(3, refusal('PREDECESSOR_FAILED', 0), 0);
  session.add(newBatch(3, 's', 10, 0));
  assert.equal(session.retryAt, 55);
  assert.equal(session.next(54), null);
  assert.equal(session.next(55), batches[0]);
  assert.equal(session.next(55), null);
  session.stored(1, 1);
  assert.deepEqual(
    [session.next(55)?.sequence, session.next(55)?.sequence, session.next(55)?.sequence, session.next(55)],
    [2, 3, 4, null],
  );
});

test('another subject is not held up by a refusal', () => {
  const { session } = sent(1);
  session.refused(1, refusal('QUEUE_FULL', 50), 0);
  session.add(newBatch(1, 's', 10, 0));
  const other = newBatch(2, 'other', 10, 0);
  session.add(other);
  assert.equal(session.next(0), other);
});

test('what can never be stored fails alone', () => {
  const { session, batches } = sent(2);
  session.refused(1, refusal('BATCH_TOO_LARGE', 0), 0);
  session.stored(2, 1);
  assert.ok(batches[0]?.end !== null && 'error' in (batches[0]?.end ?? {}));
  assert.deepEqual(batches[1]?.end, { firstId: 1 });
  assert.equal(session.needsNewStream, false);
});

test('[F11] a broker that refuses everything for a minute gets at most twice the batches', () => {
  const session = newSession({ budget: new RetryBudget(), backoff: BACKOFF });
  session.opened(1_024, 0);
  session.widen(1e9, 1e9);
  let attempts = 0;
  const calls = 400;
  for (let number = 0; number < calls; number++) session.add(newBatch(number, `s${number % 7}`, 10, 0));
  for (let now = 0; now < 60_000; now += 100) {
    const flight: TestBatch[] = [];
    for (let batch = session.next(now); batch !== null; batch = session.next(now)) flight.push(batch);
    attempts += flight.length;
    const seen = new Set<string>();
    for (const { sequence, subject } of flight) {
      session.refused(sequence, seen.has(subject) ? refusal('PREDECESSOR_FAILED', 0) : refusal('OVERLOADED', 200), now);
      seen.add(subject);
    }
  }
  assert.equal(session.size, calls);
  assert.ok(attempts > calls + 7 && attempts <= 2 * calls, `${attempts} attempts of ${calls}`);
});

test('[R27] a stream without a producer id: what was on its way fails as unknown, what was refused goes again', () => {
  const { session, batches } = sent(2, { isIdempotent: false });
  session.refused(1, refusal('QUEUE_FULL', 50), 0);
  session.broken();
  const end = batches[1]?.end;
  assert.ok(end !== null && end !== undefined && 'error' in end);
  assert.equal(end.error.outcome, 'unknown');
  session.opened(16, 0);
  const again = session.next(0);
  assert.equal(again, batches[0]);
  assert.equal(again?.sequence, 1);
});

test('an unknown outcome is sent again with the same sequence', () => {
  const { session, batches } = sent(1);
  session.refused(1, refusal('OUTCOME_UNKNOWN', 0, true), 0);
  assert.equal(session.next(1_000), batches[0]);
  assert.equal(batches[0]?.sequence, 1);
});

test('what is older than the delivery timeout is given up, with what is known of it', () => {
  const { session, batches } = sent(3, { deliveryTimeoutMs: 100 });
  session.refused(1, refusal('QUEUE_FULL', 50), 0);
  const late = newBatch(3, 's', 10, 50);
  session.add(late);
  session.expire(100);
  const outcomes = batches.map(({ end }) => (end !== null && 'error' in end ? end.error.outcome : null));
  assert.deepEqual(outcomes, ['none', 'unknown', 'unknown']);
  assert.equal(late.end, null);
  assert.equal(session.needsNewStream, true);
  session.broken();
  assert.equal(session.firstSequence, 4);
  session.opened(16, 0);
  assert.equal(session.next(100), late);
  session.expire(10_000);
  assert.ok(late.end !== null && 'error' in late.end);
});

test('the delivery timeout holds for what stood behind a refused batch, and for what is numbered anew', () => {
  const { session } = sent(1, { deliveryTimeoutMs: 1_000 });
  session.refused(1, refusal('QUEUE_FULL', 1), 0);
  const behind = [newBatch(1, 's', 10, 2), newBatch(2, 's', 10, 900)];
  for (const batch of behind) session.add(batch);
  assert.equal(session.next(2), null, 'they stand behind the refused one');
  session.next(10);
  session.stored(1, 1);
  session.broken();
  session.expire(1_100);
  const [old, young] = behind as [TestBatch, TestBatch];
  assert.ok(old.end !== null && 'error' in old.end);
  assert.deepEqual([old.end.error.name, old.end.error.outcome], ['TimeoutError', 'none']);
  assert.deepEqual([young.end, session.size], [null, 1]);
  session.opened(1_024, 1);
  assert.equal(session.next(1_100), young);
  session.refused(young.sequence, refusal('QUEUE_FULL', 1), 1_100);
  session.broken();
  session.restart(closedError('broker'));
  session.expire(1_900);
  assert.ok(young.end !== null && 'error' in young.end);
  assert.equal((young.end as { error: ClientError }).error.outcome, 'none');
  assert.equal(session.size, 0);
});

test('a batch that is larger than the broker takes fails alone, unsent; one that was sent already says what is known of it', () => {
  const session = newSession();
  const batches = [10, 101, 10, 100].map((bytes, number) => newBatch(number, 's', bytes, 0));
  for (const batch of batches) session.add(batch);
  session.opened(1_024, 0, { bytesMax: 100, countMax: 1 });
  session.widen(1e9, 1e9);
  assert.deepEqual([session.next(0), session.next(0), session.next(0)], [batches[0], batches[2], batches[3]]);
  assert.deepEqual(refusalOf(batches[1]), ['BATCH_TOO_LARGE', 'none', false]);
  assert.equal(session.size, 3);
  session.stored(1, 1);
  session.broken();
  session.opened(1_024, 1, { bytesMax: 99, countMax: 1 });
  assert.deepEqual(refusalOf(batches[3]), ['BATCH_TOO_LARGE', 'unknown', false]);
  assert.deepEqual([session.next(0), session.next(0), session.size], [batches[2], null, 1]);
});

function refusalOf(batch: TestBatch | undefined): [string | null, string, boolean] {
  assert.ok(batch !== undefined && batch.end !== null && 'error' in batch.end, 'it failed');
  const { reason, outcome, retryable } = batch.end.error;
  return [reason, outcome, retryable];
}

test('a producer that the broker has forgotten begins again; what may have been stored is not sent again', () => {
  const { session, batches } = sent(3);
  session.stored(1, 1);
  session.refused(2, refusal('QUEUE_FULL', 50), 0);
  session.broken();
  session.restart(closedError('producer'));
  assert.equal(session.firstSequence, 1);
  const end = batches[2]?.end;
  assert.equal(end && 'error' in end ? end.error.outcome : '', 'unknown');
  session.opened(16, 0);
  assert.equal(session.next(0), batches[1]);
  assert.equal(batches[1]?.sequence, 1);
});

for (const [title, end] of [
  ['given up for its age', (session) => session.expire(1_000)],
  ['refused for ever', (session) => session.refused(1, refusal('SUBJECT_INVALID', 0), 100)],
  [
    'numbered anew',
    (session) => {
      session.broken();
      session.restart(closedError('producer'));
    },
  ],
  ['failed with all others', (session) => session.failAll(closedError('publisher'))],
] as readonly [string, (session: ProducerSession<TestBatch>) => void][]) {
  test(`[R27] a batch that may have been stored by an earlier stream and was refused since is told as unknown when it is ${title}`, () => {
    const { session, batches } = sent(1, { deliveryTimeoutMs: 1_000 });
    session.broken();
    session.opened(16, 0);
    assert.equal(session.next(0), batches[0]);
    session.refused(1, refusal('QUEUE_FULL', 50), 0);
    assert.equal(session.next(100), batches[0], 'it is tried again');
    if (title !== 'refused for ever') session.refused(1, refusal('QUEUE_FULL', 50), 100);
    end(session);
    assert.deepEqual([refusalOf(batches[0])[1], session.size], ['unknown', 0]);
  });
}

test('a batch whose last id is not the one that it insists on is none that was stored before: the log has looked for it first', () => {
  const { session, batches } = sent(1);
  session.broken();
  session.opened(16, 0);
  session.next(0);
  session.refused(1, refusal('HEAD_MISMATCH', 0), 0);
  assert.deepEqual(refusalOf(batches[0]), ['HEAD_MISMATCH', 'none', false]);
});

test('a producer that resumes begins behind what the broker knows', () => {
  const session = newSession();
  session.add(newBatch(0, 's', 10, 0));
  session.opened(16, 41);
  assert.equal(session.next(0)?.sequence, 42);
});

test('a batch that waits for its retry does not fall out of what the broker remembers', () => {
  const { session } = sent(1);
  session.refused(1, refusal('STORE_FULL', 5_000), 0);
  let count = 0;
  for (let number = 1; number <= 2_000; number++) {
    session.add(newBatch(number, `t${number}`, 10, 0));
    for (let batch = session.next(0); batch !== null; batch = session.next(0)) {
      session.stored(batch.sequence, 1);
      count += 1;
    }
  }
  assert.equal(count, 1_023);
});

test('an answer to a batch that is not on its way is told, not believed', () => {
  const { session } = sent(1);
  assert.equal(session.stored(2, 1), false);
  assert.equal(session.stored(1, 1), true);
  assert.equal(session.stored(1, 1), false);
  assert.equal(session.refused(1, refusal('QUEUE_FULL', 50), 0), false);
});

test('failing as a whole tells of each batch whether it was sent', () => {
  const { session, batches } = sent(2);
  session.stored(1, 1);
  const waiting = newBatch(2, 's', 10, 0);
  session.add(waiting);
  session.failAll(closedError('publisher'));
  const outcomes = [batches[1], waiting].map((batch) =>
    batch?.end && 'error' in batch.end ? batch.end.error.outcome : '',
  );
  assert.deepEqual(outcomes, ['unknown', 'none']);
  assert.equal(session.size, 0);
});
