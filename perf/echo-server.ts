/**
 * The yardstick: a bare @grpc/grpc-js server with the broker's server options and nothing behind it, in a process of its own.
 *
 *   Echo    unary, answers the request's bytes
 *   Fixed   unary, answers --answer-bytes bytes
 *   Stream  server stream: once --streams of them are open, one loop writes messages of --answer-bytes bytes to all
 *
 * Prints `listening PORT` when ready.
 */
import { parseArgs } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import { SERVER_OPTIONS, widenWindows } from './lib/server-options.ts';

const { values } = parseArgs({
  options: {
    'answer-bytes': { type: 'string', default: '290' },
    streams: { type: 'string', default: '20' },
  },
});
const answer = Buffer.alloc(Number(values['answer-bytes']), 0x61);
const streamsExpected = Number(values.streams);
const identity = (bytes: Buffer): Buffer => bytes;

type Unary = grpc.ServerUnaryCall<Buffer, Buffer>;
type Stream = grpc.ServerWritableStream<Buffer, Buffer>;

const streams = new Set<Stream>();

/** Writes to every stream in turn and waits where one is full: what grpc-js can carry from one loop. */
async function feed(): Promise<void> {
  while (streams.size > 0) {
    const full: Promise<void>[] = [];
    for (const stream of streams) {
      if (!stream.write(answer)) full.push(drained(stream));
    }
    await Promise.all(full);
  }
}

function drained(stream: Stream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      stream.off('close', done);
      stream.off('cancelled', done);
      resolve();
    };
    stream.on('drain', done);
    stream.on('close', done);
    stream.on('cancelled', done);
  });
}

const server = new grpc.Server(SERVER_OPTIONS);
widenWindows(server);
const method = (path: string, responseStream: boolean) => ({
  path,
  requestStream: false,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
});
server.addService(
  {
    Echo: method('/bench.Bench/Echo', false),
    Fixed: method('/bench.Bench/Fixed', false),
    Stream: method('/bench.Bench/Stream', true),
  },
  {
    Echo: (call: Unary, callback: grpc.sendUnaryData<Buffer>) => callback(null, call.request),
    Fixed: (_: Unary, callback: grpc.sendUnaryData<Buffer>) => callback(null, answer),
    Stream: (stream: Stream) => {
      streams.add(stream);
      stream.on('cancelled', () => streams.delete(stream));
      stream.sendMetadata(new grpc.Metadata());
      if (streams.size === streamsExpected) void feed();
    },
  },
);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  process.stdout.write(`listening ${port}\n`);
});
// Whoever started us holds the other end of stdin: without them we are of no use.
process.stdin.on('end', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));
