/** Calls that end, or do not, whatever their clients do. */
import assert from 'node:assert/strict';
import { connect } from 'node:http2';
import { test } from 'node:test';
import { Anonymous } from '../../src/access/caller.ts';
import { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import { HeldBytes, UnsentBudget } from '../../src/grpc/unsent-budget.ts';
import { ConsumerStream } from '../../src/workers/front/consumer-stream.ts';
import { Frame, headersFrame, RawConnection } from '../support/http2-frames.ts';
import { eventually, startServer, TestEngine } from './grpc-rig.ts';

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('a call of a method that is not there does not stay open', { timeout: 30_000 }, async (t) => {
  const server = await startServer(t, {});
  await eventually(t, () => server.connections.open === 0);
  const foe = await RawConnection.open(t, server.address);
  foe.socket.write(headersFrame(1, '/no/Method'));
  await foe.until(() => foe.frames.some(({ type, stream }) => type === Frame.HEADERS && stream === 1));
  const [note] = server.connectionNotes();
  await eventually(t, () => note?.callsOpen === 0);
});

test('a subscription whose deadline is in 30 days lives', { timeout: 30_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  const session = connect(`http://${server.address}`).on('error', () => undefined);
  t.after(() => session.destroy());
  const stream = session.request({
    ':method': 'POST',
    ':path': '/broker.Broker/Subscribe',
    te: 'trailers',
    'content-type': 'application/grpc',
    'grpc-timeout': '2592000S',
  });
  let status: unknown = null;
  stream
    .on('response', (h) => (status = h['grpc-status'] ?? status))
    .on('trailers', (h) => (status = h['grpc-status'] ?? status))
    .on('error', () => undefined)
    .resume();
  stream.end(Buffer.from([0, 0, 0, 0, 1, 0x73]));
  await pause(1_000);
  assert.equal(status, null);
});

test('a consumer that half-closes and reads nothing is given up, and what waits for it', {
  timeout: 30_000,
}, async (t) => {
  const engine = new TestEngine();
  const unsent = new UnsentBudget(1 << 20);
  let stream: ConsumerStream | null = null;
  engine.consume = (call) => {
    const nothing = (): void => undefined;
    const port = {
      ...{ stallTimeoutMs: 500, bufferBytes: 1 << 20, onFrame: nothing, permissionsChanged: nothing },
      ...{ askPositions: nothing, delivered: nothing, closed: nothing },
    };
    stream = new ConsumerStream(call, new Anonymous('default'), port as never);
    stream.open(60_000);
    const held = new HeldBytes(unsent, 200_000);
    held.hold();
    stream.out.write(Buffer.alloc(200_000), held.release);
  };
  const server = await startServer(t, { engine });
  await eventually(t, () => server.connections.open === 0);
  const session = connect(`http://${server.address}`, { settings: { initialWindowSize: 0 } });
  session.on('error', () => undefined);
  t.after(() => session.destroy());
  const head = { ':method': 'POST', te: 'trailers', 'content-type': 'application/grpc' };
  const consume = session.request({ ...head, ':path': '/broker.v1.Consumer/Consume' });
  consume.on('error', () => undefined).resume();
  await eventually(t, () => stream !== null);
  assert.equal(unsent.bytes, 200_000);
  consume.end();
  await eventually(t, () => unsent.bytes === 0);
  const [note] = server.connectionNotes();
  await eventually(t, () => note?.callsOpen === 0);
});

test('a stream that is to end is cut when its client takes nothing, and not before it has been still for the time given', {
  timeout: 60_000,
}, async (t) => {
  const engine = new TestEngine();
  const out: DeliveryStream[] = [];
  engine.publishStream = (call) => {
    out.push(new DeliveryStream(call as never));
    out[0]?.write(Buffer.alloc(20_005));
    out[0]?.resetWhenStill(500);
  };
  const server = await startServer(t, { engine });
  const session = connect(`http://${server.address}`, { settings: { initialWindowSize: 0 } });
  session.on('error', () => undefined);
  t.after(() => session.destroy());
  const head = { ':method': 'POST', te: 'trailers', 'content-type': 'application/grpc' };
  const stream = session.request({ ...head, ':path': '/broker.v1.Producer/PublishStream' });
  stream.on('error', () => undefined).pause();
  await eventually(t, () => out.length === 1);
  const began = performance.now();
  // Something has gone just before the time is over.
  await pause(300);
  session.settings({ initialWindowSize: 32 << 10 });
  await eventually(t, () => out[0]?.unsentBytes === 0);
  await eventually(t, () => stream.closed);
  assert.equal(stream.rstCode, 11);
  assert.ok(performance.now() - began >= 900, 'it was cut although something had gone meanwhile');
});
