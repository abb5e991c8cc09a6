/** Finding messages by time, and what is shown of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, asyncProperty, assert as check, constantFrom, integer, record } from 'fast-check';
import { BrokerError, type Reason } from '../../src/base/errors.ts';
import { MessageReader } from '../../src/console/message-reader.ts';
import type { FetchPort } from '../../src/console/ports.ts';
import { FetchRequest, type Header, MessageResponse } from '../../src/grpc/gen/broker.ts';
import { statusOf } from '../../src/grpc/status.ts';

interface Stored {
  readonly publishedAt: number;
  readonly body?: Buffer;
  readonly headers?: Header[];
}

/** A subject whose ids from 1 have these messages, or reasons why they have none. */
class Subject implements FetchPort {
  fetches = 0;
  readonly #ids: readonly (Stored | Reason)[];

  constructor(ids: readonly (Stored | Reason)[]) {
    this.#ids = ids;
  }

  fetch(request: Buffer, deadlineMs: number, done: (error: object | null, response?: Buffer) => void): void {
    assert.equal(deadlineMs, 5_000);
    this.fetches += 1;
    const { subject, id } = FetchRequest.decode(request);
    const found = this.#ids[id - 1] ?? 'ID_NOT_FOUND';
    if (typeof found === 'string') done(statusOf(new BrokerError(found)));
    else {
      const { publishedAt, body = Buffer.alloc(0), headers = [] } = found;
      const message = { id, subject, body, headers, publishedAt, expirationSeconds: 0 };
      done(null, Buffer.from(MessageResponse.encode(message).finish()));
    }
  }
}

const reader = (subject: Subject): MessageReader => new MessageReader(subject, '', () => 0);

test('by time: the first message at the time or later, whatever ids are void or expired between them', async () => {
  const gap = constantFrom<Reason>('ID_VOID', 'ID_EXPIRED', 'DATA_LOSS');
  const step = record({ later: integer({ min: 0, max: 3 }), gap, gaps: integer({ min: 0, max: 4 }) });
  await check(
    asyncProperty(array(step, { maxLength: 40 }), integer({ min: 0, max: 130 }), async (steps, time) => {
      const ids: (Stored | Reason)[] = [];
      let at = 0;
      for (const { later, gap: reason, gaps } of steps) {
        for (let i = 0; i < gaps; i += 1) ids.push(reason);
        at += later;
        ids.push({ publishedAt: at });
      }
      const expected = ids.findIndex((one) => typeof one !== 'string' && one.publishedAt >= time) + 1 || ids.length + 1;
      const found = await reader(new Subject(ids)).firstAt('s', time, { first: 1, settled: ids.length });
      assert.equal(found, expected);
    }),
    { numRuns: 300 },
  );
});

test('by time: a long run of expired ids costs a number of reads that grows with its logarithm, and what follows is found', async () => {
  const expired = 100_000;
  const ids: (Stored | Reason)[] = Array.from({ length: expired }, () => 'ID_EXPIRED');
  for (let i = 0; i < 1_000; i += 1) ids.push({ publishedAt: 5_000 + i });
  const subject = new Subject(ids);
  const range = { first: 1, settled: ids.length };
  assert.equal(await reader(subject).firstAt('s', 0, range), expired + 1);
  assert.ok(subject.fetches < 2_000, `${subject.fetches} reads`);
  assert.equal(await reader(subject).firstAt('s', 5_500, range), expired + 501);
  assert.equal(await reader(subject).firstAt('s', 9_000, range), ids.length + 1);
});

test('a page shows verdicts beside messages, cuts bodies and headers, and ends where it is large enough', async () => {
  const large = { publishedAt: 2, body: Buffer.alloc(400_000, 'x') };
  const header = { key: 'k', value: Buffer.alloc(5_000, 'v') };
  const subject = new Subject([{ publishedAt: 1, body: Buffer.from([0, 255]), headers: [header] }, 'ID_VOID', large]);
  const [first, second, third, ...others] = await reader(subject).read('s', { from: 1, to: 4 }, 1_000);
  assert.deepEqual([first?.absent, first?.bodyBytes, first?.body], [null, 2, 'AP8=']);
  assert.deepEqual([first?.headers[0]?.valueBytes, first?.headers[0]?.value.length], [5_000, Math.ceil(4_096 / 3) * 4]);
  assert.equal(second?.absent?.reason, 'ID_VOID');
  assert.match(second?.absent?.next ?? '', /skip it/);
  assert.deepEqual([third?.bodyBytes, Buffer.from(third?.body ?? '', 'base64').length], [400_000, 1_000]);
  assert.deepEqual(
    others.map(({ id, absent }) => [id, absent?.reason]),
    [[4, 'ID_NOT_FOUND']],
  );
  const many = new Subject(Array.from({ length: 50 }, () => large));
  const page = await reader(many).read('s', { from: 1, to: 50 }, 256 * 1_024);
  assert.ok(page.length < 5, `${page.length} messages of 350 kB in base64`);
});

test('a refusal that is not of one id is one of the whole page', async () => {
  const refusing: FetchPort = {
    fetch: (_, __, done) => done(statusOf(new BrokerError('STORE_UNAVAILABLE'))),
  };
  await assert.rejects(new MessageReader(refusing, '', () => 0).read('s', { from: 1, to: 2 }, 10), {
    code: 14,
  });
});
