/** The load generator's own gRPC client against a real @grpc/grpc-js server: a yardstick must be straight before it measures anything. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { deliveryBytes, frameWriter } from '../../perf/lib/frames.ts';
import { GrpcConnection } from '../../perf/lib/grpc-client.ts';
import { Http2Connection } from '../../perf/lib/http2-client.ts';
import { ratios, spread } from '../../perf/lib/stats.ts';
import type { CallListener, Transport } from '../../perf/lib/transport.ts';
import { encodeFetch, encodePublish, Writer } from '../support/wire.ts';

const identity = (bytes: Buffer): Buffer => bytes;
const method = (name: string, responseStream: boolean) => ({
  path: `/test.Test/${name}`,
  requestStream: false,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
});

type Unary = grpc.ServerUnaryCall<Buffer, Buffer>;

/** Echo answers the request, Fail the status that is the request's first byte, Stream 5,000 messages of the request's bytes. */
function makeServer(): grpc.Server {
  const server = new grpc.Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  server.addService(
    {
      Echo: method('Echo', false),
      Fail: method('Fail', false),
      Stream: method('Stream', true),
      Chat: { ...method('Chat', true), requestStream: true },
    },
    {
      Echo: (call: Unary, callback: grpc.sendUnaryData<Buffer>) => callback(null, call.request),
      Fail: (call: Unary, callback: grpc.sendUnaryData<Buffer>) => callback({ code: call.request[0] as number }),
      Chat: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
        call.on('data', (bytes: Buffer) => call.write(bytes));
      },
      Stream: async (call: grpc.ServerWritableStream<Buffer, Buffer>) => {
        for (let count = 0; count < 5_000; count++) {
          if (!call.write(call.request)) await new Promise((resolve) => call.once('drain', resolve));
        }
        call.end();
      },
    },
  );
  return server;
}

interface Ended {
  readonly status: number;
  readonly messages: Buffer[];
}

class Listener implements CallListener {
  readonly #calls = new Map<number, { messages: Buffer[]; resolve: (ended: Ended) => void }>();

  expect(slot: number): Promise<Ended> {
    const { promise, resolve } = Promise.withResolvers<Ended>();
    this.#calls.set(slot, { messages: [], resolve });
    return promise;
  }

  onHeaders(): void {
    // Nothing to do: the end is what is waited for.
  }

  onMessage(slot: number, bytes: Buffer, start: number, end: number): void {
    this.#calls.get(slot)?.messages.push(Buffer.from(bytes.subarray(start, end)));
  }

  onEnd(slot: number, status: number): void {
    const call = this.#calls.get(slot);
    call?.resolve({ status, messages: call.messages });
  }

  onLost(why: string): void {
    throw new Error(why);
  }
}

describe('load generator', () => {
  const server = makeServer();
  let address = '';
  before(async () => {
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) => {
        if (error === null) resolve(bound);
        else reject(error);
      });
    });
    address = `127.0.0.1:${port}`;
  });
  after(() => server.forceShutdown());

  for (const [name, client] of [
    ['raw', Http2Connection],
    ['grpc-js', GrpcConnection],
  ] as const) {
    const withClient = async (use: (transport: Transport, listener: Listener) => Promise<void>): Promise<void> => {
      const listener = new Listener();
      const transport = await client.connect(address, listener);
      await use(transport, listener);
      transport.close();
    };

    it(`${name}: bodies of 0 to 65,530 bytes come back as they were sent, 300 calls at one time`, () =>
      withClient(async (transport, listener) => {
        const sizes = [0, 1, 255, 16_379, 16_380, 16_384, 40_000, 65_530];
        const calls = Array.from({ length: 300 }, (_, slot) => {
          const body = Buffer.alloc(sizes[slot % sizes.length] as number, slot);
          const ended = listener.expect(slot);
          transport.call(slot, '/test.Test/Echo', body, body.length);
          return ended.then(({ status, messages }) => {
            assert.equal(status, 0);
            assert.equal(messages.length, 1);
            assert.ok(messages[0]?.equals(body), `slot ${slot}`);
          });
        });
        transport.flush();
        await Promise.all(calls);
      }));

    it(`${name}: every gRPC status is read`, () =>
      withClient(async (transport, listener) => {
        for (let status = 1; status <= 16; status++) {
          const ended = listener.expect(0);
          transport.call(0, '/test.Test/Fail', Buffer.from([status]), 1);
          transport.flush();
          assert.equal((await ended).status, status);
        }
      }));

    it(`${name}: a stream of 5,000 messages and 20 MB passes every window`, () =>
      withClient(async (transport, listener) => {
        const body = Buffer.alloc(4_000, 7);
        const ended = listener.expect(3);
        transport.call(3, '/test.Test/Stream', body, body.length);
        transport.flush();
        const { status, messages } = await ended;
        assert.equal(status, 0);
        assert.equal(messages.length, 5_000);
        assert.ok(messages.every((message) => message.equals(body)));
      }));
  }

  for (const [name, client] of [
    ['raw', Http2Connection],
    ['grpc-js', GrpcConnection],
  ] as const) {
    it(`${name}: 60 messages of 100 KB on each of three bidirectional streams pass every window, in order`, async () => {
      const count = 60;
      const received = [[], [], []] as number[][];
      const done = Promise.withResolvers<void>();
      const transport = await client.connect(address, {
        onHeaders: () => undefined,
        onMessage(slot, bytes, start, end) {
          assert.equal(end - start, 100_000);
          received[slot]?.push(bytes.readUInt32LE(start));
          if (received.every((list) => list.length === count)) done.resolve();
        },
        onEnd: (slot, status) => done.reject(new Error(`stream ${slot} ended with ${status}`)),
        onLost: (why) => done.reject(new Error(why)),
      });
      const message = Buffer.alloc(100_000, 1);
      for (let slot = 0; slot < 3; slot++) transport.open(slot, '/test.Test/Chat');
      for (let number = 0; number < count; number++) {
        message.writeUInt32LE(number);
        for (let slot = 0; slot < 3; slot++) transport.send(slot, message, message.length);
      }
      transport.flush();
      await done.promise;
      transport.close();
      const all = Array.from({ length: count }, (_, number) => number);
      assert.deepEqual(received, [all, all, all]);
    });
  }

  it('its publish and fetch requests are those of the wire format', () => {
    const publish = frameWriter({ kind: 'publish', subjects: 3, prefix: 'a.b', bodyBytes: 300 });
    const publishLength = publish.write(4);
    const body = publish.scratch.subarray(publishLength - 300, publishLength);
    assert.deepEqual(publish.scratch.subarray(0, publishLength), encodePublish({ subject: 'a.b.1', body }));
    const fetch = frameWriter({ kind: 'fetch', subjects: 1, prefix: 'a', idsPerSubject: 1, seed: 5 });
    assert.deepEqual(fetch.scratch.subarray(0, fetch.write(0)), encodeFetch('a.0', 1));
  });

  it('fetch requests stay within the ids and reach both ends', () => {
    const fetch = frameWriter({ kind: 'fetch', subjects: 1, prefix: 'a', idsPerSubject: 7, seed: 5 });
    const seen = new Set<number>();
    for (let number = 0; number < 500; number++) seen.add(fetch.scratch[fetch.write(number) - 1] as number);
    assert.deepEqual([...seen].sort(), [1, 2, 3, 4, 5, 6, 7]);
  });

  it('the answers of the baseline are as long as deliveries', () => {
    const message = new Writer()
      .bytes(1, Buffer.alloc(256))
      .varint(2, 62_500)
      .bytes(3, 'a.10')
      .varint(4, Date.now())
      .finish();
    assert.equal(deliveryBytes(256, 'a.10', 62_500), message.length);
  });

  it('of an even number of runs the median is between the middle two, and ratios are of pairs of runs', () => {
    assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3 });
    assert.deepEqual(spread([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 });
    assert.deepEqual(ratios([2, 9], [4, 3]), [0.5, 3]);
  });
});
