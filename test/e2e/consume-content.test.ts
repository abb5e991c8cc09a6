/** Every record of every consumer is what was published, while the memory of frames goes round and some of the consumers are slow or leave. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { crc32 } from 'node:zlib';
import type { Delivery } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { startBroker } from '../support/broker.ts';
import { ConsumeStream, clientOf } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { range } from './flow-rig.ts';

const SUBJECTS = range(0, 3).map((n) => `content.${n}`);
const BATCHES = 240;
const RECORDS = 100;
const HEAD_BYTES = 10;
/** Bodies of 300 to 1,099 bytes: batches of some 70 KiB, whose frames come from the pool. */
const sizeOf = (id: number): number => 300 + ((id * 37) % 800);

/** crc32 of the rest, number of the subject, id, and bytes that follow from both. */
function bodyOf(subject: number, id: number): Buffer {
  const body = Buffer.alloc(sizeOf(id), (subject * 31 + id) & 0xff);
  body.writeUInt16LE(subject, 4);
  body.writeUInt32LE(id, 6);
  body.writeUInt32LE(crc32(body.subarray(4)), 0);
  return body;
}

/** What is wrong with a delivery, for the list of violations. */
function faultsOf({ subject, firstId, records }: Delivery): string[] {
  return (records?.records ?? []).flatMap(({ body }, i) => {
    const id = firstId + i;
    const isWhole =
      body.length === sizeOf(id) &&
      body.readUInt32LE(0) === crc32(body.subarray(4)) &&
      SUBJECTS[body.readUInt16LE(4)] === subject &&
      body.readUInt32LE(6) === id;
    return isWhole ? [] : [`${subject} ${id}: ${body.subarray(0, HEAD_BYTES).toString('hex')}`];
  });
}

function check(stream: ConsumeStream): ConsumeStream {
  stream.keepsBodies = false;
  stream.onDelivery = (delivery) => stream.violations.push(...faultsOf(delivery));
  return stream;
}

/** Reads for a moment and pauses for a moment, until it is told to read on. */
function dawdle(stream: ConsumeStream): () => void {
  let isPaused = false;
  const timer = setInterval(() => {
    isPaused = !isPaused;
    if (isPaused) stream.pause();
    else stream.resume();
  }, 15);
  return () => {
    clearInterval(timer);
    stream.resume();
  };
}

describe('frames whose memory is used again', () => {
  it('reach quick and slow consumers whole, at the tail and from the store, while others leave with data unsent', {
    timeout: 440_000,
  }, async () => {
    await using broker = await startBroker({
      // Little cache, so that slow ones read the disk; little credit of the store's readers, so that they come back often.
      flags: ['--shards', '2', '--store-cache-bytes', '1MiB', '--subscribe-buffer-bytes', '1MiB'],
    });
    const subjects = SUBJECTS.map((subject) => ({ subject, earliest: true }));
    const shared = clientOf(broker.address);
    // Whatever happens: open streams would keep the process of the test alive.
    using streams = new DisposableStack();
    streams.defer(() => shared.close());
    const open = async (isShared: boolean) =>
      check(streams.use(await ConsumeStream.open(broker.address, subjects, isShared ? { shared } : {})));
    const quick = await Promise.all([open(false), open(true)]);
    // Three share a connection: a socket that is full for one is full for all.
    const slow = await Promise.all([open(false), open(true), open(true)]);
    const hurry = slow.map(dawdle);
    for (const stop of hurry) streams.defer(stop);
    let isOver = false;
    streams.defer(() => {
      isOver = true;
    });
    let left = 0;
    // Each on a connection of its own: Node counts what a cancelled stream had unsent against the memory of its session for ever, and resets new
    // streams of a session that has used it up (maxSessionMemory, ENHANCE_YOUR_CALM).
    const leavers = range(1, 3).map(async () => {
      // While messages are published, and on until enough of them have left.
      while (!isOver || left <= 10) {
        const stream = await open(false);
        const enough = stream.messages + 500;
        const isOverFor = (): boolean =>
          stream.status !== undefined ||
          stream.messages >= enough ||
          stream.messages === SUBJECTS.length * BATCHES * RECORDS;
        await stream.until(isOverFor);
        assert.deepEqual([stream.status, stream.violations], [undefined, []]);
        // What was sent and not read goes with it.
        stream.pause();
        await new Promise((resolve) => setTimeout(resolve, 5));
        assert.deepEqual(stream.violations, []);
        stream.cancel();
        left += 1;
      }
    });
    using publisher = await PublishStream.open(broker.address, '');
    for (let batch = 0; batch < BATCHES; batch++) {
      for (const [n, subject] of SUBJECTS.entries()) {
        const sequence = batch * SUBJECTS.length + n + 1;
        const bodies = range(1, RECORDS).map((record) => bodyOf(n, batch * RECORDS + record));
        // One batch in flight is within any window.
        publisher.send({ subject, sequence, bodies });
        const outcomes = await publisher.outcomes(sequence);
        assert.deepEqual(outcomes, [`${batch * RECORDS + 1}..${(batch + 1) * RECORDS}`], publisher.status?.message);
      }
    }
    isOver = true;
    await Promise.all(leavers);
    for (const stop of hurry) stop();
    for (const stream of [...quick, ...slow]) {
      await stream.until(() => stream.status !== undefined || stream.messages === SUBJECTS.length * BATCHES * RECORDS);
      assert.deepEqual(stream.violations, []);
      assert.equal(stream.status, undefined);
      for (const subject of SUBJECTS) assert.deepEqual(stream.idsOf(subject), range(1, BATCHES * RECORDS));
      stream.cancel();
    }
  });
});
