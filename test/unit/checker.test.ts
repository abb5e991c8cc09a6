/** The checker finds every kind of violation that is planted, and none where there is none. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { History, type ReadResult, RULES, type Rule, type Verdict } from '../support/checker.ts';

/** A log that answers reads: subject -> id -> result. */
class FakeLog {
  readonly #rows = new Map<string, ReadResult>();

  put(subject: string, id: number, payload: string, publishedAt = 1_000 + id): void {
    this.#rows.set(`${subject}/${id}`, { kind: 'message', payload: Buffer.from(payload), publishedAt });
  }

  set(subject: string, id: number, result: ReadResult): void {
    this.#rows.set(`${subject}/${id}`, result);
  }

  remove(subject: string, id: number): void {
    this.#rows.delete(`${subject}/${id}`);
  }

  read = async (subject: string, id: number): Promise<ReadResult> => {
    return this.#rows.get(`${subject}/${id}`) ?? { kind: 'absent' };
  };
}

interface Scene {
  readonly history: History;
  readonly log: FakeLog;
  /** Submits `payload`, answers it with `id` and puts it in the log. */
  publish(subject: string, id: number, payload: string, lane?: string): number;
}

function scene(): Scene {
  const history = new History();
  const log = new FakeLog();
  const publish = (subject: string, id: number, payload: string, lane?: string): number => {
    const message = { subject, payload: Buffer.from(payload) };
    const submission = history.submit(lane === undefined ? message : { ...message, lane });
    history.endAttempt(history.beginAttempt(submission), { outcome: 'ok', id });
    log.put(subject, id, payload);
    return submission;
  };
  return { history, log, publish };
}

async function verdict({ history, log }: Scene): Promise<Verdict> {
  await history.readBack(log.read, { from: 'start', concurrency: 3 });
  return history.judge();
}

async function rulesBroken(of: Scene): Promise<Rule[]> {
  const { violations } = await verdict(of);
  return [...new Set(violations.map((violation) => violation.rule))].sort();
}

function deliver(history: History, stream: number, id: number, payload: string): void {
  history.deliver(stream, { id, payload: Buffer.from(payload), publishedAt: 1_000 + id });
}

describe('checker: a clean history', () => {
  it('has no violation and counts what happened', async () => {
    const it = scene();
    it.publish('a', 1, 'one');
    it.publish('a', 2, 'two');
    it.log.set('a', 3, { kind: 'void' });
    it.publish('a', 4, 'four');
    it.publish('b', 1, 'other subject');
    const stream = it.history.openStream({ name: 's', subject: 'a', start: { at: 'earliest' } });
    for (const [id, payload] of [
      [1, 'one'],
      [2, 'two'],
      [4, 'four'],
    ] as const)
      deliver(it.history, stream, id, payload);
    it.history.completeStream(stream);
    const { violations, counts } = await verdict(it);
    assert.deepEqual(violations, []);
    assert.equal(counts.acked, 4);
    assert.equal(counts.messages, 4);
    assert.equal(counts.voids, 1);
    assert.equal(counts.deliveries, 3);
  });

  it('lets a message with an unknown outcome be there or not [R27]', async () => {
    for (const stored of [true, false]) {
      const it = scene();
      it.publish('a', 1, 'one');
      const submission = it.history.submit({ subject: 'a', payload: Buffer.from('maybe') });
      it.history.endAttempt(it.history.beginAttempt(submission), { outcome: 'unknown' });
      if (stored) it.log.put('a', 2, 'maybe');
      const { violations, counts } = await verdict(it);
      assert.deepEqual(violations, []);
      assert.equal(counts.unknown, 1);
      assert.equal(counts.unknownStored, stored ? 1 : 0);
    }
  });

  it('lets a retry without producer id be stored once an attempt', async () => {
    const it = scene();
    const submission = it.history.submit({ subject: 'a', payload: Buffer.from('twice') });
    it.history.endAttempt(it.history.beginAttempt(submission), { outcome: 'unknown' });
    it.history.endAttempt(it.history.beginAttempt(submission), { outcome: 'ok', id: 2 });
    it.log.put('a', 1, 'twice');
    it.log.put('a', 2, 'twice');
    assert.deepEqual(await rulesBroken(it), []);
  });

  it('goes on reading where the last read-back stopped', async () => {
    const it = scene();
    for (let id = 1; id <= 20; id++) it.publish('a', id, `m${id}`);
    await it.history.readBack(it.log.read, { from: 'last' });
    for (let id = 21; id <= 30; id++) it.publish('a', id, `m${id}`);
    const asked: number[] = [];
    await it.history.readBack(
      (subject, id) => {
        asked.push(id);
        return it.log.read(subject, id);
      },
      { from: 'last', concurrency: 1 },
    );
    assert.equal(Math.min(...asked), 21);
    assert.deepEqual(it.history.judge().violations, []);
  });
});

/** Each plants one violation in a history that is clean without it, and names the rule that must find it. */
const PLANTED: readonly { readonly rule: Rule; readonly name: string; plant(it: Scene): void }[] = [
  {
    rule: 'acked-readable',
    name: 'the last acknowledged message is lost',
    plant: ({ log }) => log.remove('a', 6),
  },
  {
    rule: 'dense',
    name: 'an acknowledged message in the middle is lost',
    plant: ({ log }) => log.remove('a', 3),
  },
  {
    rule: 'acked-readable',
    name: 'an acknowledged message became void',
    plant: ({ log }) => log.set('a', 2, { kind: 'void' }),
  },
  {
    rule: 'acked-readable',
    name: 'an acknowledged message that never expires has expired',
    plant: ({ log }) => log.set('a', 2, { kind: 'expired' }),
  },
  {
    rule: 'foreign',
    name: 'one byte of a message changed',
    plant: ({ log }) => log.put('a', 2, 'm2!'),
  },
  {
    rule: 'foreign',
    name: 'a message appears under another subject',
    plant: ({ log, publish }) => {
      publish('b', 1, 'b1');
      log.put('b', 2, 'm1');
    },
  },
  {
    rule: 'one-payload',
    name: 'two messages were acknowledged with one id',
    plant: ({ publish }) => void publish('a', 6, 'another six'),
  },
  {
    rule: 'one-payload',
    name: 'a stream saw another content than the log has',
    plant: ({ history, publish }) => {
      publish('a', 7, 'm7');
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'id', id: 7 } });
      deliver(history, stream, 7, 'm1');
    },
  },
  {
    rule: 'one-payload',
    name: 'the time of a message changed between two reads',
    plant: ({ log }) => log.put('a', 6, 'm6', 9_999),
  },
  {
    rule: 'dense',
    name: 'an id was skipped',
    plant: ({ publish }) => void publish('a', 8, 'm8'),
  },
  {
    rule: 'order',
    name: 'a later message got a lower id than one acknowledged before',
    plant: ({ publish }) => {
      publish('c', 2, 'c first');
      publish('c', 1, 'c second');
    },
  },
  {
    rule: 'lane-order',
    name: 'overlapping messages of one lane are stored in the wrong order',
    plant: ({ history, log }) => {
      const submissions = ['x', 'y'].map((payload) =>
        history.submit({ subject: 'c', payload: Buffer.from(payload), lane: 'p' }),
      );
      const attempts = submissions.map((submission) => history.beginAttempt(submission));
      history.endAttempt(attempts[0] as number, { outcome: 'ok', id: 2 });
      history.endAttempt(attempts[1] as number, { outcome: 'ok', id: 1 });
      log.put('c', 1, 'y');
      log.put('c', 2, 'x');
    },
  },
  {
    rule: 'log-time',
    name: 'published_at falls',
    plant: ({ log, publish }) => {
      publish('a', 7, 'm7');
      log.put('a', 7, 'm7', 5);
    },
  },
  {
    rule: 'never-none',
    name: 'a refused message appears [R27]',
    plant: ({ history, log }) => {
      const submission = history.submit({ subject: 'a', payload: Buffer.from('refused') });
      history.endAttempt(history.beginAttempt(submission), { outcome: 'none' });
      log.put('a', 7, 'refused');
    },
  },
  {
    rule: 'once',
    name: 'a retry with its sequence is stored twice [R25]',
    plant: ({ history, log }) => {
      const fields = { subject: 'a', payload: Buffer.from('again'), producer: 'p', sequence: 1 };
      const submission = history.submit(fields);
      history.endAttempt(history.beginAttempt(submission), { outcome: 'unknown' });
      history.endAttempt(history.beginAttempt(submission), { outcome: 'ok', id: 8 });
      log.put('a', 7, 'again');
      log.put('a', 8, 'again');
    },
  },
  {
    rule: 'once',
    name: 'a retry with its sequence is answered with another id [R25]',
    plant: ({ history, log }) => {
      const fields = { subject: 'a', payload: Buffer.from('again'), producer: 'p', sequence: 1 };
      const submission = history.submit(fields);
      history.endAttempt(history.beginAttempt(submission), { outcome: 'ok', id: 7 });
      history.endAttempt(history.beginAttempt(submission), { outcome: 'ok', id: 8 });
      log.put('a', 7, 'again');
      log.set('a', 8, { kind: 'void' });
    },
  },
  {
    rule: 'once',
    name: 'a single attempt is stored twice',
    plant: ({ log }) => log.put('a', 7, 'm6'),
  },
  {
    rule: 'stream-order',
    name: 'a stream delivers an id twice',
    plant: ({ history }) => deliver(history, 0, 6, 'm6'),
  },
  {
    rule: 'stream-order',
    name: 'a stream goes back',
    plant: ({ history }) => deliver(history, 0, 2, 'm2'),
  },
  {
    rule: 'stream-gap',
    name: 'a stream skips a stored message',
    plant: ({ history }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'earliest' } });
      for (const id of [1, 2, 4]) deliver(history, stream, id, `m${id}`);
    },
  },
  {
    rule: 'stream-gap',
    name: 'a stream from an id leaves out its first message',
    plant: ({ history }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'id', id: 2 } });
      deliver(history, stream, 3, 'm3');
    },
  },
  {
    rule: 'stream-gap',
    name: 'a complete stream lacks the last message',
    plant: ({ history }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'earliest' } });
      for (const id of [1, 2, 3, 4, 5]) deliver(history, stream, id, `m${id}`);
      history.completeStream(stream);
    },
  },
  {
    rule: 'stream-gap',
    name: 'a live stream misses the first message sent after it was live',
    plant: ({ history, publish }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'new' } });
      history.streamLive(stream);
      publish('a', 7, 'm7');
      publish('a', 8, 'm8');
      deliver(history, stream, 8, 'm8');
    },
  },
  {
    rule: 'stream-start',
    name: 'a stream from an id delivers an earlier one',
    plant: ({ history }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'id', id: 4 } });
      for (const id of [3, 4]) deliver(history, stream, id, `m${id}`);
    },
  },
  {
    rule: 'stream-start',
    name: 'a stream of new messages delivers an old one',
    plant: ({ history }) => {
      const stream = history.openStream({ name: 's2', subject: 'a', start: { at: 'new' } });
      deliver(history, stream, 6, 'm6');
    },
  },
  {
    rule: 'stale-read',
    name: 'a fetch after the acknowledgement finds nothing',
    plant: ({ history }) => history.observeFetch('a', 6, history.beginFetch(), { kind: 'absent' }),
  },
  {
    rule: 'unreadable',
    name: 'a read is answered with an error',
    plant: ({ log }) => log.set('a', 3, { kind: 'failed', detail: 'DATA_LOSS' }),
  },
];

describe('checker: planted violations', () => {
  for (const { rule, name, plant } of PLANTED) {
    it(`${rule}: ${name}`, async () => {
      const it = scene();
      for (let id = 1; id <= 6; id++) it.publish('a', id, `m${id}`);
      const stream = it.history.openStream({ name: 's1', subject: 'a', start: { at: 'earliest' } });
      for (let id = 1; id <= 6; id++) deliver(it.history, stream, id, `m${id}`);
      plant(it);
      const broken = await rulesBroken(it);
      assert.ok(broken.includes(rule), `found only: ${broken.join(', ') || 'nothing'}`);
    });
  }

  it('covers every rule', () => {
    const planted = new Set(PLANTED.map(({ rule }) => rule));
    assert.deepEqual(
      Object.keys(RULES).filter((rule) => !planted.has(rule as Rule)),
      [],
    );
  });
});

describe('checker: misuse', () => {
  it('refuses two messages with one payload', () => {
    const { history } = scene();
    history.submit({ subject: 'a', payload: Buffer.from('same') });
    assert.throws(() => history.submit({ subject: 'b', payload: Buffer.from('same') }), /payloads must differ/);
  });

  it('refuses to end an attempt twice', () => {
    const { history } = scene();
    const attempt = history.beginAttempt(history.submit({ subject: 'a', payload: Buffer.from('x') }));
    history.endAttempt(attempt, { outcome: 'none' });
    assert.throws(() => history.endAttempt(attempt, { outcome: 'ok', id: 1 }), /ended twice/);
  });
});
