/** Frames of the stream generators against the generated code of the same .proto files. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { joinFrames, splitFrames } from '../../perf/lib/frame-file.ts';
import {
  BatchFrameWriter,
  ConsumeResponseScan,
  consumeFrame,
  creditFrame,
  openFrame,
  PublishResponseScan,
} from '../../perf/lib/stream-frames.ts';
import { ConsumeRequest, ConsumeResponse } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { PublishStreamRequest, PublishStreamResponse } from '../../src/grpc/gen/broker/v1/producer.ts';
import { Records } from '../../src/grpc/gen/broker/v1/record.ts';

describe('perf: frames of streams', () => {
  for (const [frameBytes, batches, firstSequence] of [
    [16 << 10, 16, 1],
    [64 << 10, 16, 120],
    [64 << 10, 1, 2_000_000],
    [100, 2, 16_383],
  ] as const) {
    it(`${batches} batches in ${frameBytes} bytes from sequence ${firstSequence} on`, () => {
      const writer = new BatchFrameWriter({ prefix: 'p', subjects: 16, bodyBytes: 256, frameBytes, batches });
      const length = writer.write(firstSequence);
      if (frameBytes > 1_000) assert.ok(length <= frameBytes && length > frameBytes * 0.7, `${length} bytes`);
      const { open, batches: decoded } = PublishStreamRequest.decode(writer.scratch.subarray(0, length));
      assert.equal(open, undefined);
      assert.deepEqual(
        decoded.map(({ subject, sequence }) => [subject, sequence]),
        Array.from({ length: batches }, (_, batch) => [`p.${(firstSequence + batch - 1) % 16}`, firstSequence + batch]),
      );
      for (const { records } of decoded) {
        assert.ok(records);
        assert.equal(records.records.length, writer.messagesPerBatch);
        assert.ok(records.records.every((record) => record.body.length === 256));
        assert.equal(Records.encode(records).finish().length, writer.sectionBytes);
      }
    });
  }

  it('open, start and credit are those of the contract', () => {
    assert.equal(PublishStreamRequest.decode(openFrame('perf-1')).open?.producerId, 'perf-1');
    const subjects = Array.from({ length: 40 }, (_, index) => `a.${index}`);
    const start = consumeFrame({ subjects, start: 'earliest', creditBytes: 8 << 20, creditMessages: 1e12 });
    const { open, credit } = ConsumeRequest.decode(start);
    assert.deepEqual(
      open?.subjects.map(({ subject, earliest }) => [subject, earliest]),
      subjects.map((one) => [one, true]),
    );
    assert.deepEqual([credit?.bytes, credit?.messages], [8 << 20, 1e12]);
    assert.deepEqual(ConsumeRequest.decode(creditFrame(300, 0)).credit, { bytes: 300, messages: 0 });
  });

  it('responses are read as they were encoded, inside a larger buffer', () => {
    const response = PublishStreamResponse.encode({
      opened: { lastSequence: 9, durability: 1, batchesInFlightMax: 1_024, batchBytesMax: 1, batchMessagesMax: 1 },
      acknowledged: 300,
      results: [
        { sequence: 1, firstId: 1, lastId: 2, error: undefined },
        {
          sequence: 2,
          firstId: 0,
          lastId: 0,
          error: { code: 9, reason: 'R', message: 'm', outcome: 1, retryAfterMs: 0 },
        },
      ],
      window: { bytesLimit: 5_000_000, messagesLimit: 70_000 },
    }).finish();
    const bytes = Buffer.concat([Buffer.from([1, 2, 3]), response, Buffer.from([0xff])]);
    const scan = new PublishResponseScan();
    scan.read(bytes, 3, 3 + response.length);
    assert.deepEqual(
      [scan.isOpened, scan.acknowledged, scan.failedBatches, scan.failedCode, scan.bytesLimit, scan.messagesLimit],
      [true, 300, 1, 9, 5_000_000, 70_000],
    );
    scan.read(bytes, 3, 3);
    assert.deepEqual([scan.acknowledged, scan.failedBatches], [300, 0]);
    assert.throws(() => scan.read(bytes, 3, 3 + response.length - 1), /breaks off/);
  });

  it('deliveries are counted without being decoded', () => {
    const delivery = (count: number) => ({
      subject: 's',
      firstId: 1,
      count,
      publishedAt: 1_700_000_000_000,
      records: {
        records: Array.from({ length: count }, () => ({ body: Buffer.alloc(100), headers: [], expirationSeconds: 0 })),
      },
    });
    const deliveries = [delivery(3), delivery(200)];
    const bytes = Buffer.from(
      ConsumeResponse.encode({ deliveries, started: undefined, heartbeat: undefined }).finish(),
    );
    const scan = new ConsumeResponseScan();
    scan.read(bytes, 0, bytes.length);
    const sections = deliveries.reduce((sum, { records }) => sum + Records.encode(records).finish().length, 0);
    assert.deepEqual([scan.messages, scan.sectionBytes, scan.isStarted], [203, sections, false]);
  });

  it('a file of frames gives the frames back', () => {
    const frames = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(70_000, 3)];
    assert.deepEqual(splitFrames(joinFrames(frames)), frames);
  });
});
