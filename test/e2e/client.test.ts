/** The TypeScript client against a real broker process that is killed and restarted under it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { type ClientError, connect, type Message } from '../../src/client/index.ts';
import { LAUNCHER, startBroker } from '../support/broker.ts';

const broker = await startBroker();
const client = connect(broker.address);

after(async () => {
  await client.close();
  await broker.dispose();
});

let counter = 0;
const newSubject = (): string => `client.subject-${++counter}`;

async function take(subject: string, count: number): Promise<Message[]> {
  const messages: Message[] = [];
  for await (const message of client.subscribe(subject, { start: 'earliest' })) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

describe('single calls', () => {
  it('publish, fetch, increment, look at and trim a subject', async () => {
    const subject = newSubject();
    assert.equal(await client.publish(subject, 'one', { headers: { k: 'v' }, expirationSeconds: 600 }), 1);
    assert.equal(await client.incrementId(subject), 2);
    assert.equal(await client.publish(subject, Buffer.from('three')), 3);
    const message = await client.fetch(subject, 1);
    assert.equal(message.text, 'one');
    assert.equal(message.expirationSeconds, 600);
    assert.deepEqual(
      message.headers.map(({ key, value }) => [key, String(value)]),
      [['k', 'v']],
    );
    await assert.rejects(client.fetch(subject, 2), (error: ClientError) => error.reason === 'ID_VOID');
    assert.equal((await client.subject(subject)).head, 3);
    assert.equal(await client.trim(subject, 3), 3);
    const names: string[] = [];
    for await (const { subject: name } of client.subjects('client.')) names.push(name);
    assert.ok(names.includes(subject));
    assert.equal((await client.status()).durability, 'durable');
  });

  it('a repeated sequence is answered with the first id', async () => {
    const subject = newSubject();
    const producer = { id: `p-${subject}`, sequence: 1 };
    assert.equal(await client.publish(subject, 'x', { producer }), 1);
    assert.equal(await client.publish(subject, 'x', { producer }), 1);
    assert.equal((await client.subject(subject)).head, 1);
  });
});

describe('a proxy in http_proxy', () => {
  it('is not asked for a broker on this machine', async () => {
    // Nobody listens on port 1: whoever asks the proxy gets nowhere.
    const env = { ...process.env, http_proxy: 'http://127.0.0.1:1', https_proxy: '', grpc_proxy: '', no_proxy: '' };
    const args = [LAUNCHER, 'status', '--address', broker.address, '-o', 'json'];
    const command = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    const [said, [code]] = await Promise.all([text(command.stdout), once(command, 'exit')]);
    assert.equal(code, 0, said);
  });
});

describe('publisher', () => {
  it('gives ids in the order of the calls, with headers and expiry, one promise each', async () => {
    await using publisher = client.publisher();
    const subject = newSubject();
    const ids = await Promise.all(
      Array.from({ length: 500 }, (_, i) => publisher.publish(subject, `m${i}`, { headers: { i: String(i) } })),
    );
    assert.deepEqual(
      ids,
      ids.map((_, i) => i + 1),
    );
    const messages = await take(subject, 500);
    assert.deepEqual(
      messages.map(({ text, headers }) => [text, String(headers[0]?.value)]),
      ids.map((_, i) => [`m${i}`, String(i)]),
    );
  });

  it('publishMany answers a range that fits the ids, also over several batches', async () => {
    await using publisher = client.publisher({ batchBytes: 1024 });
    const subject = newSubject();
    const bodies = Array.from({ length: 300 }, (_, i) => `body ${i}`);
    const range = await publisher.publishMany(subject, bodies);
    assert.deepEqual([range.firstId, range.lastId], [1, 300]);
    assert.deepEqual(range.ranges, [{ firstId: 1, lastId: 300 }]);
    assert.ok(publisher.stats.batches > 2);
    await assert.rejects(publisher.publishMany(subject, []), RangeError);
  });

  it('holds back when its buffer is full, and loses nothing', async () => {
    await using publisher = client.publisher({ bufferBytes: 64 * 1024, channels: 2 });
    const subjects = Array.from({ length: 8 }, newSubject);
    const body = Buffer.alloc(1_000);
    let refused = 0;
    for (let i = 0; i < 4_000; i++) {
      while (!publisher.tryPublish(subjects[i % 8] as string, body)) {
        refused += 1;
        // One message more, and the batch that was begun for it.
        assert.ok(publisher.stats.bufferedBytes <= 70 * 1024);
        await publisher.ready();
      }
    }
    await publisher.flush();
    assert.ok(refused > 0);
    const { messages, stored, failed, bufferedBytes, streams } = publisher.stats;
    assert.deepEqual(
      { messages, stored, failed, bufferedBytes, streams },
      { messages: 4_000, stored: 4_000, failed: 0, bufferedBytes: 0, streams: 2 },
    );
    for (const subject of subjects) assert.equal((await client.subject(subject)).head, 500);
  });

  it('an expected last id that is not the last one refuses its batch only', async () => {
    await using publisher = client.publisher();
    const subject = newSubject();
    assert.equal(await publisher.publish(subject, 'a', { expectedLastId: 0 }), 1);
    const results = await Promise.allSettled([
      publisher.publish(subject, 'b', { expectedLastId: 7 }),
      publisher.publish(subject, 'c', { expectedLastId: 1 }),
    ]);
    assert.equal(results[0]?.status === 'rejected' && (results[0].reason as ClientError).reason, 'HEAD_MISMATCH');
    assert.equal(results[1]?.status === 'fulfilled' && results[1].value, 2);
  });

  it('what nobody waits for is told by flush', async () => {
    await using publisher = client.publisher();
    assert.ok(publisher.tryPublish('not.*', 'x'));
    await assert.rejects(publisher.flush(), (error: ClientError) => error.reason === 'SUBJECT_WILDCARD_TOKEN');
    await publisher.flush();
  });

  it('a publisher with the id of an earlier one goes on with its sequences', async () => {
    const subject = newSubject();
    const producerId = `resumed-${subject}`;
    for (let round = 1; round <= 3; round++) {
      await using publisher = client.publisher({ producerId });
      assert.equal(await publisher.publish(subject, `round ${round}`), round);
    }
    assert.equal((await client.subject(subject)).head, 3);
  });

  it('a closed publisher takes nothing, and closing waits for what it took', async () => {
    const publisher = client.publisher();
    const subject = newSubject();
    const published = publisher.publish(subject, 'x');
    await publisher.close();
    assert.equal(await published, 1);
    await assert.rejects(publisher.publish(subject, 'y'), (error: ClientError) => error.outcome === 'none');
    assert.throws(() => publisher.tryPublish(subject, 'y'), /closed/);
  });

  it('a signal ends the wait, not the message', async () => {
    await using publisher = client.publisher();
    const subject = newSubject();
    const abort = new AbortController();
    const published = publisher.publish(subject, 'x', { signal: abort.signal });
    abort.abort(new Error('enough'));
    await assert.rejects(published, /enough/);
    await publisher.flush();
    assert.equal((await client.subject(subject)).head, 1);
  });
});

describe('a broker that is killed and restarted', () => {
  it('[R25, W8] a publisher and a subscription go on: each message once, in the order it was published', async (t) => {
    const own = await startBroker();
    const near = connect(own.address);
    t.after(async () => {
      await near.close();
      await own.dispose();
    });
    const subjects = ['a', 'b', 'c'];
    const COUNT = 6_000;
    const publisher = near.publisher({ channels: 2, linger: 1, batchBytes: 4_096 });
    const received = new Map<string, { id: number; text: string }[]>(subjects.map((subject) => [subject, []]));
    const readers = subjects.map(async (subject) => {
      const messages = received.get(subject) as { id: number; text: string }[];
      for await (const { id, text } of near.subscribe(subject, { start: 'earliest' })) {
        messages.push({ id, text });
        if (messages.length === COUNT / subjects.length) return;
      }
    });
    const published: Promise<number>[] = [];
    for (let i = 0; i < COUNT; i++) {
      published.push(publisher.publish(subjects[i % 3] as string, String(i)));
      if (i % 50 === 0) await publisher.ready();
      if (i % 1_500 === 1_499) {
        // Some of it is on its way when the broker dies.
        await published[i - 700];
        await own.restart();
      }
    }
    const ids = await Promise.all(published);
    await publisher.close();
    await Promise.all(readers);
    for (const [index, subject] of subjects.entries()) {
      const stored = ids.flatMap((id, i) => (i % 3 === index ? [{ id, text: String(i) }] : []));
      assert.deepEqual(received.get(subject), stored);
      // What died between its ids and the disk left them void, and got others when it came again.
      let next = 1;
      for (const { id } of stored) {
        assert.ok(id >= next, `${subject}: ${id} behind ${next - 1}`);
        for (; next < id; next++) await assert.rejects(near.fetch(subject, next), /ID_VOID/);
        next = id + 1;
      }
    }
    assert.ok(publisher.stats.streams > 4, 'the streams were opened again');
  });

  it('[R27] without sequences what was on its way is told as unknown', async (t) => {
    const own = await startBroker();
    const near = connect(own.address);
    t.after(async () => {
      await near.close();
      await own.dispose();
    });
    const publisher = near.publisher({ idempotent: false, linger: 0 });
    let isKilled = false;
    const outcomes = new Set<string>();
    const publish = async (i: number): Promise<void> => {
      await publisher.publish(`s${i % 10}`, Buffer.alloc(1_000)).then(
        () => outcomes.add('stored'),
        (error: ClientError) => outcomes.add(error.outcome),
      );
    };
    const work = Promise.all(
      Array.from({ length: 20 }, async (_, worker) => {
        for (let i = worker; !isKilled || i < worker + 200; i += 20) {
          await publish(i);
          if (i > 3_000 && !isKilled) {
            isKilled = true;
            await own.restart();
          }
        }
      }),
    );
    await work;
    assert.ok(outcomes.has('stored') && outcomes.has('unknown') && !outcomes.has('none'), [...outcomes].join());
    await publisher.close();
  });
});
