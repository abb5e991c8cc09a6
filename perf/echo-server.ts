/**
 * The yardstick: a bare @grpc/grpc-js server with the broker's server options and nothing behind it, in a process of its own.
 *
 *   Echo    unary, answers the request's bytes
 *   Fixed   unary, answers --answer-bytes bytes
 *   Stream  server stream: once --streams of them are open, one loop writes messages of --answer-bytes bytes, or the
 *           frames of the file, to all
 *   Ingest  bidirectional: answers 16 bytes to each frame
 *   Replay  bidirectional: writes the frames of the file --frames in turn, as long as the client's credits (8 bytes a message, a number of
 *           bytes) last
 *
 * Prints `listening PORT` when ready.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import { splitFrames } from './lib/frame-file.ts';
import { SERVER_OPTIONS, widenConnections, widenWindows } from './lib/server-options.ts';

const { values } = parseArgs({
  options: {
    'answer-bytes': { type: 'string', default: '290' },
    streams: { type: 'string', default: '20' },
    frames: { type: 'string' },
  },
});
const answer = Buffer.alloc(Number(values['answer-bytes']), 0x61);
const streamsExpected = Number(values.streams);
const identity = (bytes: Buffer): Buffer => bytes;

const ACK = Buffer.alloc(16, 0x61);
/** Each with its length in front, as lib/frame-file.ts writes them. */
const frames: Buffer[] = values.frames === undefined ? [] : splitFrames(readFileSync(values.frames));

type Bidi = grpc.ServerDuplexStream<Buffer, Buffer>;

async function replay(stream: Bidi): Promise<void> {
  let credit = 0;
  let isOpen = true;
  let wake: (() => void) | null = null;
  stream.on('data', (request: Buffer) => {
    credit += request.readDoubleLE(0);
    wake?.();
  });
  const over = (): void => {
    isOpen = false;
    wake?.();
  };
  stream.on('cancelled', over).on('end', over);
  stream.sendMetadata(new grpc.Metadata());
  for (let next = 0; isOpen; next = (next + 1) % frames.length) {
    const frame = frames[next] as Buffer;
    while (isOpen && credit <= 0) await new Promise<void>((resolve) => (wake = resolve));
    credit -= frame.length;
    if (!stream.write(frame)) await drained(stream);
  }
  stream.end();
}

type Unary = grpc.ServerUnaryCall<Buffer, Buffer>;
type Stream = grpc.ServerWritableStream<Buffer, Buffer>;

const streams = new Set<Stream>();

/** Writes to every stream in turn and waits where one is full: what grpc-js can carry from one loop. */
async function feed(): Promise<void> {
  for (let next = 0; streams.size > 0; next++) {
    const message = frames.length === 0 ? answer : (frames[next % frames.length] as Buffer);
    const full: Promise<void>[] = [];
    for (const stream of streams) {
      if (!stream.write(message)) full.push(drained(stream));
    }
    await Promise.all(full);
  }
}

function drained(stream: Stream | Bidi): Promise<void> {
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
const method = (path: string, responseStream: boolean, requestStream = false) => ({
  path,
  requestStream,
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
    Ingest: method('/bench.Bench/Ingest', true, true),
    Replay: method('/bench.Bench/Replay', true, true),
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
    Ingest: (stream: Bidi) => {
      stream.sendMetadata(new grpc.Metadata());
      stream.on('data', () => stream.write(ACK));
      stream.on('end', () => stream.end());
    },
    Replay: (stream: Bidi) => void replay(stream),
  },
);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  widenConnections(server);
  process.stdout.write(`listening ${port}\n`);
});
// Whoever started us holds the other end of stdin: without them we are of no use.
process.stdin.on('end', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));
