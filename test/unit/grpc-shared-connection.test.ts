/** What one call does to the connection that it shares with others, as far as it is no fault of anybody; and what foes would make of that. */
import assert from 'node:assert/strict';
import { connect } from 'node:http2';
import { type TestContext, test } from 'node:test';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { Frame, frame, headersFrame, messageFrame, RawConnection, resetFrame } from '../support/http2-frames.ts';
import { PUBLISH_STREAM_PATH, RawStream } from '../support/raw-stream.ts';
import { DOOR, eventually, startServer, TestEngine } from './grpc-rig.ts';

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const cutsOf = (server: { connections: { cuts: object } }) =>
  Object.entries(server.connections.cuts).filter(([, n]) => n > 0);

/** Three looks. */
const LOOKS_MS = 3_200;

/** Of one connection: a call that is left alone, and 3 MiB for another whose server `takes` it as it likes, while looks come. */
async function sharedWith(t: TestContext, takes: (stream: ServerDuplexStream<Buffer, Buffer>) => void) {
  const engine = new TestEngine();
  const opened: ServerDuplexStream<Buffer, Buffer>[] = [];
  engine.publishStream = (stream) => {
    opened.push(stream);
    if (opened.length === 2) takes(stream);
    else stream.on('data', (frame: Buffer) => stream.write(frame));
  };
  const server = await startServer(t, { engine, limits: { ...DOOR, emptyBytes: 16 << 10 } });
  const session = connect(`http://${server.address}`).on('error', () => undefined);
  t.after(() => session.destroy());
  const good = new RawStream(session, PUBLISH_STREAM_PATH);
  let echoes = 0;
  good.onMessage = () => (echoes += 1);
  await good.send(Buffer.from('a'));
  await eventually(t, () => opened.length === 1);
  const other = new RawStream(session, PUBLISH_STREAM_PATH);
  for (let i = 0; i < 300; i++) void other.send(Buffer.alloc(10 << 10));
  await pause(LOOKS_MS);
  const assertUnharmed = async (): Promise<void> => {
    const before = echoes;
    await good.send(Buffer.from('b'));
    await eventually(t, () => echoes > before || good.end !== null);
    assert.equal(good.end, null);
    assert.deepEqual(cutsOf(server), []);
  };
  return { other, assertUnharmed };
}

test('[F5] a stream that the server does not read for a while is no flood of its client', {
  timeout: 30_000,
}, async (t) => {
  let held: ServerDuplexStream<Buffer, Buffer> | null = null;
  let bytes = 0;
  const { assertUnharmed } = await sharedWith(t, (stream) => {
    held = stream;
    stream.on('data', (frame: Buffer) => (bytes += frame.length)).pause();
  });
  await assertUnharmed();
  (held as unknown as ServerDuplexStream<Buffer, Buffer>).resume();
  await eventually(t, () => bytes === 300 * (10 << 10));
  await assertUnharmed();
});

test('[F9] a stream that is ended while its client sends does not end the others of its connection', {
  timeout: 30_000,
}, async (t) => {
  const { other, assertUnharmed } = await sharedWith(t, (stream) => {
    new DeliveryStream(stream as never).end(makeStatus('WINDOW_EXCEEDED', ''), 100);
  });
  assert.equal((await other.ended).reason, 'WINDOW_EXCEEDED');
  await assertUnharmed();
});

test('[F9] a stream that is broken off while the server does not read it is no flood of its client', {
  timeout: 30_000,
}, async (t) => {
  const { other, assertUnharmed } = await sharedWith(t, (stream) => {
    stream.on('data', () => undefined).pause();
  });
  other[Symbol.dispose]();
  await pause(LOOKS_MS);
  await assertUnharmed();
});

test('[F5] calls that are refused and reset give no right to flood', { timeout: 60_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine, limits: DOOR });
  const foe = await RawConnection.open(t, server.address);
  const tooLarge = Buffer.from([0, 0xff, 0xff, 0xff, 0xff]);
  let id = 1;
  const flood = Buffer.concat(
    Array.from({ length: 4_000 }, () => frame(Frame.WINDOW_UPDATE, 0, 0, Buffer.from([0, 0, 0, 1]))),
  );
  let sent = 0;
  const until = performance.now() + 40_000;
  while (!foe.closed && performance.now() < until) {
    const ids = Array.from({ length: 4 }, () => {
      const one = id;
      id += 2;
      return one;
    });
    foe.socket.write(
      Buffer.concat(
        ids.map((one) =>
          Buffer.concat([headersFrame(one, '/broker.Broker/Publish'), frame(Frame.DATA, 0, one, tooLarge)]),
        ),
      ),
    );
    await pause(20);
    foe.socket.write(Buffer.concat(ids.map(resetFrame)));
    for (let i = 0; i < 20; i++) foe.socket.write(flood);
    sent += 20 * flood.length;
    await pause(50);
  }
  t.diagnostic(
    `${(sent / 2 ** 20).toFixed(1)} MiB of WINDOW_UPDATE in 5 s, ${id / 2} calls, cuts ${JSON.stringify(cutsOf(server))}`,
  );
  assert.ok(foe.closed);
});

test('answers whose calls were reset do not count as unread any more', { timeout: 60_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  await eventually(t, () => server.connections.open === 0);
  const raw = await RawConnection.open(t, server.address);
  let id = 1;
  // The client has no room for a moment; its callers lose patience.
  raw.socket.write(frame(Frame.SETTINGS, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])));
  for (let i = 0; i < 80; i++, id += 2) {
    raw.socket.write(Buffer.concat([headersFrame(id, '/broker.Broker/Publish'), messageFrame(id, Buffer.from('x'))]));
  }
  await eventually(t, () => engine.calls === 80);
  await pause(50);
  for (let one = 1; one < id; one += 2) raw.socket.write(resetFrame(one));
  raw.socket.write(frame(Frame.SETTINGS, 0, 0, Buffer.from([0, 4, 0, 0, 255, 255])));
  const [note] = server.connectionNotes();
  await eventually(t, () => note?.callsOpen === 0);
  assert.equal(note?.unread, 0);
});

test('[F9] a client at its cap that swaps one call for another is no flood', { timeout: 60_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine, limits: { ...DOOR, streamsPerConnection: 20 } });
  await eventually(t, () => server.connections.open === 0);
  const session = connect(`http://${server.address}`).on('error', () => undefined);
  t.after(() => session.destroy());
  const head = { ':method': 'POST', te: 'trailers', 'content-type': 'application/grpc' };
  const subscribe = () => {
    const s = session.request({ ...head, ':path': '/broker.Broker/Subscribe' });
    s.on('error', () => undefined).resume();
    s.end(Buffer.from([0, 0, 0, 0, 1, 0x73]));
    return s;
  };
  const subs = Array.from({ length: 20 }, subscribe);
  await eventually(t, () => engine.streams.length === 20);
  const body = Buffer.alloc(300_005);
  body.writeUInt32BE(300_000, 1);
  let refused = 0;
  let ok = 0;
  for (let round = 0; round < 30 && !session.destroyed; round++) {
    subs.pop()?.close(8);
    const p = session.request({ ...head, ':path': '/broker.Broker/Publish' });
    p.on('error', () => undefined).resume();
    p.end(body);
    await new Promise((resolve) => p.once('close', resolve));
    if (p.rstCode === 0) ok += 1;
    else refused += 1;
    if (session.destroyed) break;
    subs.push(subscribe());
    await pause(100);
  }
  t.diagnostic(`refused ${refused}, ok ${ok}, cuts ${JSON.stringify(cutsOf(server))}`);
  assert.deepEqual(cutsOf(server), []);
});
test('[F5] numbers of calls that are left out give no right to flood', { timeout: 60_000 }, async (t) => {
  const server = await startServer(t, { limits: DOOR });
  const foe = await RawConnection.open(t, server.address);
  const flood = Buffer.concat(
    Array.from({ length: 4_000 }, () => frame(Frame.WINDOW_UPDATE, 0, 0, Buffer.from([0, 0, 0, 1]))),
  );
  let sent = 0;
  let calls = 0;
  const until = performance.now() + 40_000;
  while (!foe.closed && performance.now() < until) {
    const one = 1 + 20_000 * calls++;
    foe.socket.write(Buffer.concat([headersFrame(one, '/broker.Broker/Publish'), messageFrame(one, Buffer.from('x'))]));
    for (let i = 0; i < 50; i++) foe.socket.write(flood);
    sent += 50 * flood.length;
    await pause(200);
  }
  t.diagnostic(
    `${(sent / 2 ** 20).toFixed(1)} MiB of WINDOW_UPDATE in 5 s with ${calls} calls, cuts ${JSON.stringify(cutsOf(server))}`,
  );
  assert.ok(foe.closed);
});

test('[F5] calls that are reset with code 0 are broken off too', { timeout: 60_000 }, async (t) => {
  const server = await startServer(t, { limits: DOOR });
  const foe = await RawConnection.open(t, server.address);
  let calls = 0;
  while (!foe.closed && calls < 5_900) {
    foe.socket.write(
      Buffer.concat(
        Array.from({ length: 100 }, () => {
          const id = calls++ * 2 + 1;
          return Buffer.concat([
            headersFrame(id, '/broker.Broker/Subscribe'),
            messageFrame(id, Buffer.from('s')),
            frame(Frame.RST_STREAM, 0, id, Buffer.alloc(4)),
          ]);
        }),
      ),
    );
    await pause(1);
  }
  await pause(1_500);
  t.diagnostic(`${calls} calls ${JSON.stringify(cutsOf(server))}`);
  assert.deepEqual(cutsOf(server), [['resets', 1]]);
});
