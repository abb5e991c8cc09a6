/** The public service of a real broker process, call by call. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { until } from '../support/until.ts';
import type { Message } from '../support/wire.ts';

const broker = await startBroker();
const client = new BrokerClient(broker.address);

after(async () => {
  client.close();
  await broker.dispose();
});

let counter = 0;
const newSubject = (): string => `test.subject-${++counter}`;
const body = (text: string): Buffer => Buffer.from(text);

async function refused(call: Promise<unknown>): Promise<CallError> {
  try {
    await call;
  } catch (error) {
    assert(error instanceof CallError, `not a CallError: ${error}`);
    return error;
  }
  assert.fail('the call was not refused');
}

/** Collects the messages of a subscription; `until(n)` resolves with the first n. */
function collect(subject: string, start: Parameters<BrokerClient['subscribe']>[1]) {
  const messages: Message[] = [];
  const waiters: { count: number; resolve(): void }[] = [];
  const live = Promise.withResolvers<void>();
  const end = Promise.withResolvers<CallError | null>();
  const subscription = client.subscribe(subject, start, {
    onMessage(message) {
      messages.push(message);
      for (const waiter of waiters) if (messages.length >= waiter.count) waiter.resolve();
    },
    onLive: () => live.resolve(),
    onEnd: (error) => {
      end.resolve(error);
      live.resolve();
      for (const waiter of waiters) waiter.resolve();
    },
  });
  return {
    messages,
    live: live.promise,
    ended: end.promise,
    cancel: () => subscription.cancel(),
    async until(count: number): Promise<Message[]> {
      if (messages.length < count) await new Promise<void>((resolve) => waiters.push({ count, resolve }));
      assert(messages.length >= count, `the stream ended after ${messages.length} of ${count} messages`);
      return messages.slice(0, count);
    },
  };
}

describe('Publish and Fetch', () => {
  it('gives ids 1, 2, 3 per subject and stores body, headers and time', async () => {
    const subject = newSubject();
    const sent = Date.now();
    const headers = [
      { key: 'content-type', value: body('text/plain') },
      { key: 'x', value: Buffer.from([0, 255]) },
    ];
    assert.equal(await client.publish({ subject, body: body('one'), headers }), 1);
    assert.equal(await client.publish({ subject, body: body('two') }), 2);
    const message = await client.fetch(subject, 1);
    assert.equal(message.id, 1);
    assert.equal(message.subject, subject);
    assert.equal(message.body.toString(), 'one');
    assert.deepEqual(
      message.headers.map(({ key, value }) => [key, [...value]]),
      headers.map(({ key, value }) => [key, [...value]]),
    );
    assert(message.publishedAt >= sent && message.publishedAt <= Date.now() + 1);
    assert.equal((await client.fetch(subject, 2)).body.toString(), 'two');
  });

  it('[P4] stores bodies of every byte value, of no bytes and of 1 MiB, under subjects with quotes and dollars', async () => {
    const subject = `o'brien."x".$1.${++counter}`;
    const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const large = Buffer.alloc(1 << 20, 'ab');
    for (const content of [every, Buffer.alloc(0), large]) {
      const id = await client.publish({ subject, body: content });
      assert(Buffer.from((await client.fetch(subject, id)).body).equals(content));
    }
    const error = await refused(client.publish({ subject: 'a\0b', body: every }));
    assert.equal(error.reason, 'SUBJECT_CONTROL_CHARACTER');
  });

  it('gives dense ids to many publishes at once', async () => {
    const subject = newSubject();
    const ids = await Promise.all(
      Array.from({ length: 500 }, (_, i) => client.publish({ subject, body: body(`m${i}`) })),
    );
    assert.deepEqual(
      [...ids].sort((a, b) => a - b),
      Array.from({ length: 500 }, (_, i) => i + 1),
    );
    const bodies = await Promise.all(ids.map((id) => client.fetch(subject, id)));
    bodies.forEach((message, i) => {
      assert.equal(message.body.toString(), `m${i}`);
    });
  });
});

describe('refusals', () => {
  const rows: [string, () => Promise<unknown>, string, string][] = [
    ['an empty subject', () => client.publish({ subject: '', body: body('x') }), 'INVALID_ARGUMENT', 'SUBJECT_EMPTY'],
    [
      'a long subject',
      () => client.publish({ subject: 'a'.repeat(256), body: body('x') }),
      'INVALID_ARGUMENT',
      'SUBJECT_TOO_LONG',
    ],
    [
      'an empty token',
      () => client.publish({ subject: 'a..b', body: body('x') }),
      'INVALID_ARGUMENT',
      'SUBJECT_EMPTY_TOKEN',
    ],
    [
      'a wildcard token',
      () => client.publish({ subject: 'a.*', body: body('x') }),
      'INVALID_ARGUMENT',
      'SUBJECT_WILDCARD_TOKEN',
    ],
    [
      'white space at the end',
      () => client.publish({ subject: 'a ', body: body('x') }),
      'INVALID_ARGUMENT',
      'SUBJECT_WHITE_SPACE',
    ],
    [
      'bytes that are not UTF-8',
      () => client.publish({ subject: Buffer.from([0xc3, 0x28]), body: body('x') }),
      'INVALID_ARGUMENT',
      'SUBJECT_NOT_UTF8',
    ],
    [
      'a body over the limit',
      () => client.publish({ subject: 'a', body: Buffer.alloc((1 << 20) + 1) }),
      'INVALID_ARGUMENT',
      'BODY_TOO_LARGE',
    ],
    [
      'a negative expiry',
      () => client.publish({ subject: 'a', body: body('x'), expirationSeconds: -1 }),
      'INVALID_ARGUMENT',
      'EXPIRATION_NEGATIVE',
    ],
    [
      'a producer without a sequence',
      () => client.publish({ subject: 'a', body: body('x'), producerId: 'p' }),
      'INVALID_ARGUMENT',
      'PRODUCER_INVALID',
    ],
    [
      'an unknown producer at sequence 2',
      () => client.publish({ subject: 'a', body: body('x'), producerId: 'nobody', sequence: 2 }),
      'FAILED_PRECONDITION',
      'SEQUENCE_UNKNOWN',
    ],
    ['[R29] id 0', () => client.fetch('a', 0), 'INVALID_ARGUMENT', 'ID_INVALID'],
    ['[R29] a negative id', () => client.fetch('a', -1n), 'INVALID_ARGUMENT', 'ID_INVALID'],
    ['[R29] an id beyond 2^53-1', () => client.fetch('a', 2n ** 53n), 'INVALID_ARGUMENT', 'ID_INVALID'],
    ['[R29] an id near 2^63', () => client.fetch('a', 2n ** 63n - 10n), 'INVALID_ARGUMENT', 'ID_INVALID'],
    ['[P11] an absent id', () => client.fetch('never.published', 1), 'INVALID_ARGUMENT', 'ID_NOT_FOUND'],
    [
      'bytes that are no message',
      () => client.call('Publish', Buffer.from([0x0a, 0xff])),
      'INVALID_ARGUMENT',
      'MALFORMED_MESSAGE',
    ],
    ['an unknown method', () => client.call('Nothing', Buffer.alloc(0)), 'UNIMPLEMENTED', 'METHOD_UNKNOWN'],
  ];
  for (const [name, call, status, reason] of rows) {
    it(`answers ${status} ${reason} to ${name}`, async () => {
      const error = await refused(call());
      assert.equal(error.statusName, status);
      assert.equal(error.reason ?? '', reason);
      if (reason !== '') assert.equal(error.outcome, 'none');
    });
  }

  it('reading an unknown subject creates nothing', async () => {
    await refused(client.fetch('ghost.subject', 1));
    const watcher = collect('ghost.subject', { at: 'earliest' });
    await watcher.live;
    watcher.cancel();
    assert.equal(await client.publish({ subject: 'ghost.subject', body: body('x') }), 1);
  });
});

describe('IncIdx', () => {
  it('[P11] takes an id that is void for ever and that streams skip', async () => {
    const subject = newSubject();
    assert.equal(await client.publish({ subject, body: body('1') }), 1);
    assert.equal(await client.incIdx(subject), 2);
    assert.equal(await client.publish({ subject, body: body('3') }), 3);
    const error = await refused(client.fetch(subject, 2));
    assert.equal(error.reason, 'ID_VOID');
    const watcher = collect(subject, { at: 'earliest' });
    assert.deepEqual(
      (await watcher.until(2)).map(({ id }) => id),
      [1, 3],
    );
    watcher.cancel();
  });
});

describe('producers', () => {
  it('[R25] answers a repeated sequence with the first id and stores it once', async () => {
    const subject = newSubject();
    const first = { subject, body: body('once'), producerId: 'p-repeat', sequence: 1 };
    assert.equal(await client.publish(first), 1);
    assert.deepEqual(await Promise.all([client.publish(first), client.publish(first)]), [1, 1]);
    assert.equal(await client.publish({ subject, body: body('next'), producerId: 'p-repeat', sequence: 2 }), 2);
    const error = await refused(client.publish({ ...first, body: body('other') }));
    assert.equal(error.reason, 'SEQUENCE_REUSED');
  });

  it('[R25] stores one of many copies that arrive together', async () => {
    const subject = newSubject();
    const message = { subject, body: body('flood'), producerId: 'p-flood', sequence: 1 };
    const ids = await Promise.all(Array.from({ length: 50 }, () => client.publish(message)));
    assert.deepEqual(new Set(ids), new Set([1]));
    assert.equal(await client.publish({ subject, body: body('end') }), 2);
  });
});

describe('Subscribe', () => {
  it('[P6] [P7] delivers each message once, in order, with its id, to a live subscriber', async () => {
    const subject = newSubject();
    await client.publish({ subject, body: body('before') });
    const watcher = collect(subject, { at: 'new' });
    await watcher.live;
    for (let i = 0; i < 100; i++) await client.publish({ subject, body: body(`m${i}`) });
    const messages = await watcher.until(100);
    assert.deepEqual(
      messages.map(({ id }) => id),
      Array.from({ length: 100 }, (_, i) => i + 2),
    );
    assert.deepEqual(
      messages.map((message) => message.body.toString()),
      Array.from({ length: 100 }, (_, i) => `m${i}`),
    );
    watcher.cancel();
    await watcher.ended;
    assert.equal(watcher.messages.length, 100);
  });

  it('starts at the earliest message, at an id, at a time, and in the future', async () => {
    const subject = newSubject();
    for (let i = 1; i <= 5; i++) await client.publish({ subject, body: body(`m${i}`) });
    const { publishedAt } = await client.fetch(subject, 5);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const later = Date.now();
    await client.publish({ subject, body: body('m6') });
    assert(publishedAt < later);
    const starts = [
      [{ at: 'earliest' }, 1],
      [{ at: 'id', id: 4 }, 4],
      [{ at: 'time', ms: later }, 6],
      [{ at: 'time', ms: 0 }, 1],
    ] as const;
    for (const [start, first] of starts) {
      const watcher = collect(subject, start);
      const count = 6 - first + 1;
      assert.deepEqual(
        (await watcher.until(count)).map(({ id }) => id),
        Array.from({ length: count }, (_, i) => first + i),
      );
      watcher.cancel();
    }
    const future = collect(subject, { at: 'id', id: 8 });
    await future.live;
    await client.publish({ subject, body: body('m7') });
    await client.publish({ subject, body: body('m8') });
    assert.equal((await future.until(1))[0]?.id, 8);
    future.cancel();
  });

  it('catches up from the store and goes on live without a hole, for many subscribers', async () => {
    const subject = newSubject();
    const total = 600;
    const publishing = (async () => {
      for (let i = 0; i < total; i += 20) {
        await Promise.all(
          Array.from({ length: 20 }, (_, j) => client.publish({ subject, body: body(`${i + j}`.repeat(50)) })),
        );
      }
    })();
    const watchers = [];
    for (let i = 0; i < 10; i++) {
      watchers.push(collect(subject, { at: 'earliest' }));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await publishing;
    for (const watcher of watchers) {
      const ids = (await watcher.until(total)).map(({ id }) => id);
      assert.deepEqual(
        ids,
        Array.from({ length: total }, (_, i) => i + 1),
      );
      watcher.cancel();
    }
  });

  it('[P8] never delivers or fetches an expired message, also after a restart', async () => {
    const subject = newSubject();
    await client.publish({ subject, body: body('short'), expirationSeconds: 5 });
    await client.publish({ subject, body: body('long') });
    assert.equal((await client.fetch(subject, 1)).body.toString(), 'short');
    const reason = (): Promise<string | null> =>
      client.fetch(subject, 1).then(
        () => null,
        (error: CallError) => error.reason,
      );
    await until(
      async () => (await reason()) !== null,
      () => 'it does not expire',
    );
    assert.equal(await reason(), 'ID_EXPIRED');
    const check = async (): Promise<void> => {
      const watcher = collect(subject, { at: 'earliest' });
      assert.deepEqual(
        (await watcher.until(1)).map(({ id }) => id),
        [2],
      );
      watcher.cancel();
    };
    await check();
    await broker.restart();
    await client.ready();
    assert.equal((await refused(client.fetch(subject, 1))).reason, 'ID_EXPIRED');
    await check();
  });
});

describe('Broadcast', () => {
  it('reaches live subscribers once each, without an id, and stores nothing', async () => {
    const subject = newSubject();
    const watchers = [collect(subject, { at: 'new' }), collect(subject, { at: 'new' })];
    await Promise.all(watchers.map(({ live }) => live));
    assert.equal(
      await client.broadcast({ subject, body: body('hello'), headers: [{ key: 'k', value: body('v') }] }),
      true,
    );
    for (const watcher of watchers) {
      const [message] = await watcher.until(1);
      assert.equal(message?.body.toString(), 'hello');
      assert.equal(message?.id, 0);
      assert.equal(message?.headers[0]?.key, 'k');
      watcher.cancel();
    }
    assert.equal((await refused(client.fetch(subject, 1))).reason, 'ID_NOT_FOUND');
  });
});
