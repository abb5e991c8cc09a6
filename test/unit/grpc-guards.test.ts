/** Bounds of the server that hold against one client, each of which would be missed only under attack. */
import assert from 'node:assert/strict';
import http2, { constants } from 'node:http2';
import { test } from 'node:test';
import { AnswerBudget } from '../../src/grpc/answer-budget.ts';
import { HTTP2_OPTIONS } from '../../src/grpc/http2-options.ts';
import { messageFrame } from '../support/http2-frames.ts';
import { decodeErrorDetails } from '../support/wire.ts';
import { eventually, startServer, TestEngine } from './grpc-rig.ts';

const FRAME_HEAD_BYTES = 9;
const STALL_MS = 60_000;

test('[F1] what one connection may hold inside nghttp2 is bounded; left alone, grpc-js sets no bound', async (t) => {
  const created = t.mock.method(http2, 'createServer');
  await startServer(t);
  const limits = created.mock.calls.map((call) => (call.arguments as unknown[])[0] as Record<string, unknown>);
  assert.ok(limits.length > 0);
  for (const given of limits) {
    // In MiB: 32, and 4 KiB for each of 1,000 streams.
    assert.equal(given.maxSessionMemory, 36);
    for (const [name, value] of Object.entries(HTTP2_OPTIONS)) assert.equal(given[name], value, name);
  }
});

test('[W6] an answer that nobody takes is given up after the time of a stall, and only then', {
  timeout: 20_000,
}, async (t) => {
  const answers = new AnswerBudget(64 << 20, STALL_MS);
  const engine = new TestEngine((_request, _deadline, done) => done(null, Buffer.alloc(100_000)));
  const server = await startServer(t, { engine, answers });
  const session = http2.connect(`http://${server.address}`, { settings: { initialWindowSize: 0 } });
  t.after(() => session.destroy());
  const stream = session.request({
    ':method': 'POST',
    ':path': '/broker.Broker/Fetch',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => undefined);
  let isClosed = false;
  stream.on('close', () => {
    isClosed = true;
  });
  stream.end(messageFrame(1, Buffer.from('x')).subarray(FRAME_HEAD_BYTES));
  await eventually(t, () => answers.bytes === 100_000);
  answers.sweep(performance.now());
  await new Promise((resolve) => session.ping(Buffer.alloc(8), resolve));
  assert.equal(isClosed, false);
  answers.sweep(performance.now() + STALL_MS + 1);
  await eventually(t, () => isClosed && answers.bytes === 0);
  assert.equal(stream.rstCode, constants.NGHTTP2_ENHANCE_YOUR_CALM);
});

test('every UNIMPLEMENTED carries its reason: methods that are not there, and another number of messages than one', {
  timeout: 20_000,
}, async (t) => {
  const server = await startServer(t);
  const session = http2.connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const reasonOf = async (path: string, ...messages: readonly Buffer[]): Promise<string | null> => {
    const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request(headers);
    const response = new Promise<http2.IncomingHttpHeaders>((resolve) => stream.on('response', resolve));
    for (const message of messages) stream.write(message);
    stream.end();
    stream.resume();
    const fields = await response;
    assert.equal(fields['grpc-status'], '12');
    return decodeErrorDetails(Buffer.from(String(fields['grpc-status-details-bin']), 'base64')).reason;
  };
  const message = messageFrame(1, Buffer.from('x')).subarray(FRAME_HEAD_BYTES);
  for (const path of ['/broker.Broker/Nope', '/nope.Nope/Publish', '/']) {
    assert.equal(await reasonOf(path, message), 'METHOD_UNKNOWN');
  }
  for (const method of ['Publish', 'Fetch']) {
    const path = `/broker.Broker/${method}`;
    assert.equal(await reasonOf(path), 'REQUEST_UNSUPPORTED');
    assert.equal(await reasonOf(path, message, message), 'REQUEST_UNSUPPORTED');
    assert.equal(await reasonOf(path, message.subarray(0, -1)), 'REQUEST_UNSUPPORTED');
  }
});
