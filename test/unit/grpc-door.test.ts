/** Publish is answered by the door in front of grpc-js, IncIdx by grpc-js: what a client sends must not come out differently. */
import assert from 'node:assert/strict';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { END_STREAM, Frame, frame, headersFrame, RawConnection } from '../support/http2-frames.ts';
import { DOOR, startServer, TestEngine } from './grpc-rig.ts';

const LIMIT = 100_000;

/** A gRPC message of `bytes` bytes; its head may say something else. */
function message(bytes: number, announced = bytes): Buffer {
  const framed = Buffer.alloc(5 + bytes, 7);
  framed.writeUInt8(0, 0);
  framed.writeUInt32BE(announced, 1);
  return framed;
}

interface Request {
  readonly what: string;
  /** One DATA frame each, unless they are larger than such a frame may be. */
  readonly pieces: readonly Buffer[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly hasTrailers?: true;
  /** grpc-status */
  readonly status: string;
}

interface Answer {
  readonly status: string;
  readonly httpStatus: string;
  readonly contentType: string;
  readonly details: string;
  readonly body: string;
}

async function ask(session: ClientHttp2Session, method: string, request: Request): Promise<Answer> {
  const { pieces, headers, hasTrailers } = request;
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': `/broker.Broker/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    },
    { waitForTrailers: hasTrailers === true },
  );
  let fields: IncomingHttpHeaders = {};
  const read = (more: IncomingHttpHeaders): void => {
    fields = { ...fields, ...more };
  };
  const body: Buffer[] = [];
  stream.on('response', read);
  stream.on('trailers', read);
  stream.on('data', (chunk: Buffer) => body.push(chunk));
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-client': 'done' }));
  const closed = new Promise((resolve) => stream.on('close', resolve));
  for (const piece of pieces) await new Promise((resolve) => stream.write(piece, resolve));
  stream.end();
  await closed;
  return {
    status: String(fields['grpc-status']),
    httpStatus: String(fields[':status']),
    contentType: String(fields['content-type']),
    details: String(fields['grpc-status-details-bin'] ?? '') === '' ? 'none' : 'ErrorInfo',
    body: Buffer.concat(body).toString('hex'),
  };
}

const REQUESTS: readonly Request[] = [
  { what: 'one message', pieces: [message(10)], status: '0' },
  { what: 'an empty message', pieces: [message(0)], status: '0' },
  { what: 'a message byte by byte', pieces: [...message(20)].map((byte) => Buffer.from([byte])), status: '0' },
  { what: 'a head and a body', pieces: [message(300).subarray(0, 5), message(300).subarray(5)], status: '0' },
  { what: 'a message at the limit in many frames', pieces: [message(LIMIT)], status: '0' },
  { what: 'a message and trailers', pieces: [message(10)], hasTrailers: true, status: '0' },
  { what: 'a message with a long deadline', pieces: [message(10)], headers: { 'grpc-timeout': '1H' }, status: '0' },
  {
    what: 'another type of message',
    pieces: [message(1)],
    headers: { 'content-type': 'application/grpc+json' },
    status: '0',
  },
  { what: 'no message', pieces: [], status: '12' },
  { what: 'two messages', pieces: [message(3), message(4)], status: '12' },
  { what: 'a part of a head', pieces: [message(3).subarray(0, 3)], status: '12' },
  { what: 'a part of a message', pieces: [message(30).subarray(0, 20)], status: '12' },
  { what: 'a byte too many', pieces: [message(LIMIT + 1)], status: '8' },
  { what: 'a message that says it is too large', pieces: [message(0, LIMIT + 1)], status: '8' },
  { what: 'a message that says it has 4 GiB', pieces: [message(0, 0xffff_ffff)], status: '8' },
  { what: 'a deadline that is none', pieces: [message(1)], headers: { 'grpc-timeout': 'soon' }, status: '13' },
];

async function openSession(t: TestContext, engine: TestEngine): Promise<ClientHttp2Session> {
  const server = await startServer(t, { engine, limits: { ...DOOR, messageBytes: LIMIT } });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  return session;
}

for (const request of REQUESTS) {
  test(`${request.what}: status ${request.status}, from the door as from grpc-js`, { timeout: 10_000 }, async (t) => {
    const session = await openSession(t, new TestEngine());
    const answer = await ask(session, 'Publish', request);
    assert.equal(answer.status, request.status);
    assert.deepEqual(answer, await ask(session, 'IncIdx', request));
  });
}

test('DATA frames that are padded, empty or a byte long make one message', { timeout: 10_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  const raw = await RawConnection.open(t, server.address);
  const sent = message(40);
  const PADDED = 8;
  const padded = (bytes: Buffer, padding: number): Buffer =>
    Buffer.concat([Buffer.from([padding]), bytes, Buffer.alloc(padding)]);
  raw.socket.write(
    Buffer.concat([
      headersFrame(1, '/broker.Broker/Publish'),
      frame(Frame.DATA, PADDED, 1, padded(sent.subarray(0, 3), 200)),
      frame(Frame.DATA, 0, 1, Buffer.alloc(0)),
      ...[...sent.subarray(3, 20)].map((byte) => frame(Frame.DATA, 0, 1, Buffer.from([byte]))),
      // Ends exactly where the message does; the stream's end comes by itself.
      frame(Frame.DATA, PADDED, 1, padded(sent.subarray(20), 0)),
      frame(Frame.DATA, END_STREAM, 1, Buffer.alloc(0)),
    ]),
  );
  await raw.until(() => raw.frames.some(({ type, payload }) => type === Frame.DATA && payload.length > 0));
  const answer = Buffer.concat(raw.frames.filter(({ type }) => type === Frame.DATA).map(({ payload }) => payload));
  assert.deepEqual(answer, sent);
  assert.equal(engine.calls, 1);
});

test('a call that is reset while the engine works on it is not answered, and the connection lives', {
  timeout: 10_000,
}, async (t) => {
  const engine = new TestEngine();
  const working: (() => void)[] = [];
  engine.unary = (request, _deadline, done) => working.push(() => done(null, request));
  const server = await startServer(t, { engine });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const headers = { ':method': 'POST', ':path': '/broker.Broker/Publish', 'content-type': 'application/grpc' };
  const first = session.request(headers);
  first.end(message(1));
  while (working.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const closed = new Promise((resolve) => first.on('close', resolve));
  first.close();
  await closed;
  const ponged = new Promise((resolve) => session.ping(Buffer.alloc(8), resolve));
  await ponged;
  working.shift()?.();
  engine.unary = (request, _deadline, done) => done(null, request);
  assert.equal((await ask(session, 'Publish', { what: '', pieces: [message(1)], status: '0' })).status, '0');
});
