/** What foes do to a connection rather than with it: they are cut off and named, and clients that mean well are not. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { AbuseWatch, BROKEN_BURST, type CutReason } from '../../src/grpc/abuse-watch.ts';
import type { ConnectionNote } from '../../src/grpc/connection-note.ts';
import { CALLS_A_TURN } from '../../src/grpc/read-turns.ts';
import { BrokerClient } from '../support/client.ts';
import {
  Frame,
  frame,
  headersFrame,
  messageFrame,
  PREFACE,
  RawConnection,
  resetFrame,
} from '../support/http2-frames.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { DOOR, eventually, startServer, TestEngine } from './grpc-rig.ts';

interface Told {
  readonly kind: string;
  readonly message: string;
  readonly peer: string;
}

async function rig(
  t: TestContext,
  options: { readonly engine?: TestEngine; readonly limits?: Partial<typeof DOOR> } = {},
) {
  const told: Told[] = [];
  const server = await startServer(t, {
    engine: options.engine ?? new TestEngine(),
    limits: { ...DOOR, ...options.limits },
    abuseLog: { warn: (kind, message, { peer }) => void told.push({ kind, message, peer: String(peer) }) },
  });
  // The connection by which the server looks at its own windows goes away first.
  await eventually(t, () => server.connections.open === 0);
  const raw = (): Promise<RawConnection> => RawConnection.open(t, server.address);
  const good = new BrokerClient(server.address);
  t.after(() => good.close());
  await good.call('Publish', Buffer.from('a'));
  /** Only the foe was cut off, for this alone, and the log names it. */
  const assertCut = async (foe: RawConnection, reason: CutReason): Promise<void> => {
    await foe.until(() => foe.closed);
    assert.deepEqual(
      Object.entries(server.connections.cuts).filter(([, count]) => count > 0),
      [[reason, 1]],
    );
    assert.deepEqual(
      told.map(({ kind, peer }) => [kind, peer]),
      [[reason, foe.name]],
    );
    assert.deepEqual(await good.call('Publish', Buffer.from('b')), Buffer.from('b'));
  };
  return { server, told, raw, good, assertCut };
}

/** Writes until the other side has closed. */
async function pour(foe: RawConnection, burst: () => Buffer): Promise<void> {
  while (!foe.closed) {
    foe.socket.write(burst());
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Of a flood at a time. nghttp2 itself ends a connection that owes its peer a thousand answers. */
const BURST = 500;

const FLOODS: readonly (readonly [string, Buffer])[] = [
  ['PING whose answers are read', frame(Frame.PING, 0, 0, Buffer.alloc(8))],
  ['WINDOW_UPDATE', frame(Frame.WINDOW_UPDATE, 0, 1, Buffer.from([0, 0, 0, 1]))],
  ['DATA that is all padding', frame(Frame.DATA, 8, 1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)]))],
];

for (const [name, one] of FLOODS) {
  test(`[F5] ${name}, again and again, ends the connection and names its peer`, { timeout: 30_000 }, async (t) => {
    const { raw, assertCut } = await rig(t, { limits: { emptyBytes: 32 << 10 } });
    const foe = await raw();
    foe.socket.write(headersFrame(1, '/broker.v1.Producer/PublishStream'));
    const burst = Buffer.concat(Array.from({ length: BURST }, () => one));
    const isAnswered = one.readUInt8(3) === Frame.PING;
    for (let sent = BURST; !foe.closed; sent += BURST) {
      foe.socket.write(burst);
      if (isAnswered) await foe.until(() => foe.closed || foe.count(Frame.PING) >= sent);
      else await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await assertCut(foe, 'empty-frames');
  });
}

test('[F5] frames that answers need do not count: small messages, a subscriber that opens its window for each, pings now and then', {
  timeout: 30_000,
}, async (t) => {
  const engine = new TestEngine();
  let subscriber: ServerWritableStream<Buffer, Buffer> | null = null;
  engine.stream = (_request, stream) => {
    subscriber = stream;
  };
  const { server, good } = await rig(t, { engine, limits: { emptyBytes: 16 << 10 } });
  const session = connect(`http://${server.address}`, { settings: { initialWindowSize: 1_000 } });
  t.after(() => session.destroy());
  const head = { ':method': 'POST', te: 'trailers', 'content-type': 'application/grpc' };
  const stream = session.request({ ...head, ':path': '/broker.Broker/Subscribe' });
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  stream.end(messageFrame(1, Buffer.from('s')).subarray(9));
  await eventually(t, () => subscriber !== null);
  const sending = subscriber as unknown as ServerWritableStream<Buffer, Buffer>;
  const until = performance.now() + 2_500;
  let calls = 0;
  while (performance.now() < until) {
    for (let i = 0; i < 50; i++) sending.write(Buffer.alloc(100));
    await Promise.all(Array.from({ length: 20 }, () => good.call('Publish', Buffer.from('small'))));
    calls += 20;
    session.ping(() => undefined);
  }
  t.diagnostic(`${calls} calls, ${bytes} bytes delivered`);
  assert.ok(Object.values(server.connections.cuts).every((count) => count === 0));
});

for (const path of ['/broker.Broker/Publish', '/broker.Broker/Subscribe', '/no/Method']) {
  test(`[F5] calls of ${path} that are broken off in the same packet end the connection soon`, {
    timeout: 30_000,
  }, async (t) => {
    const { raw, assertCut } = await rig(t);
    const foe = await raw();
    let calls = 0;
    await pour(foe, () =>
      Buffer.concat(
        Array.from({ length: 100 }, () => {
          const stream = calls++ * 2 + 1;
          return Buffer.concat([
            headersFrame(stream, path),
            messageFrame(stream, Buffer.from('s')),
            resetFrame(stream),
          ]);
        }),
      ),
    );
    await assertCut(foe, 'resets');
    assert.ok(calls < BROKEN_BURST * 5, `${calls} calls were begun`);
  });
}

test('[F5] an address whose connection was cut off opens new ones slowly, and keeps those that it has', {
  timeout: 30_000,
}, async (t) => {
  const { server, good, raw } = await rig(t);
  const foe = await raw();
  foe.socket.write('what HTTP/2 is not'.repeat(10));
  await foe.until(() => foe.closed);
  const foes = await Promise.all(Array.from({ length: 40 }, raw));
  await Promise.all(foes.filter(({ closed }) => closed).map((one) => one.until(() => one.closed)));
  await eventually(t, () => server.connections.cuts['address-suspect'] >= 30);
  assert.ok(server.connections.open >= 2, 'some are let in: others may be behind the same address');
  assert.deepEqual(await good.call('Publish', Buffer.from('b')), Buffer.from('b'));
});

test('limits.connections_per_address: one address cannot have all connections', { timeout: 30_000 }, async (t) => {
  const { server, good, raw } = await rig(t, { limits: { connectionsPerAddress: 5 } });
  const foes = await Promise.all(Array.from({ length: 8 }, raw));
  await eventually(t, () => foes.filter(({ closed }) => closed).length === 4);
  assert.equal(server.connections.cuts['address-full'], 4);
  assert.equal(server.connections.open, 5);
  assert.deepEqual(await good.call('Publish', Buffer.from('b')), Buffer.from('b'));
});

test('limits.handshake_timeout: who does not begin to speak HTTP/2 is cut off, at once or byte by byte; who has begun may be silent', {
  timeout: 30_000,
}, async (t) => {
  const { server, raw } = await rig(t, { limits: { handshakeTimeoutMs: 300 } });
  const port = Number(server.address.slice(server.address.lastIndexOf(':') + 1));
  const silent = connectTcp(port, '127.0.0.1');
  const slow = connectTcp(port, '127.0.0.1');
  slow.write('PRI * HT');
  let closed = 0;
  for (const socket of [silent, slow])
    socket
      .on('close', () => (closed += 1))
      .on('error', () => undefined)
      .resume();
  const spoken = await raw();
  await eventually(t, () => closed === 2);
  assert.equal(server.connections.cuts['no-handshake'], 2);
  assert.equal(spoken.closed, false);
});

test('limits.streams: above it the connection with the most streams goes', { timeout: 30_000 }, async (t) => {
  const { raw, assertCut } = await rig(t, { limits: { streams: 500 } });
  const foe = await raw();
  for (let i = 0; i < 600; i++) foe.socket.write(headersFrame(i * 2 + 1, '/broker.Broker/Publish'));
  await foe.until(() => foe.closed);
  await assertCut(foe, 'streams');
});

/** Writes a file to a port as fast as it goes: in a process of its own, so that the system's buffers are full whenever the server looks. */
const POUR = `const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1');
socket.on('error', () => process.exit()).on('close', () => process.exit()).resume();
socket.write(require('node:fs').readFileSync(process.argv[2]));`;

test('[F5] calls come in turns: who sends 25,000 at once does not keep another waiting for most of them', {
  timeout: 120_000,
}, async (t) => {
  const CALLS = 25_000;
  let theirs = 0;
  const engine = new TestEngine((request, _deadlineMs, done) => {
    if (request.length > 0) theirs += 1;
    done(null, request);
  });
  const { server, good } = await rig(t, { engine, limits: { streamsPerConnection: 100_000 } });
  const flood: Buffer[] = [Buffer.from(PREFACE), frame(Frame.SETTINGS, 0, 0, Buffer.alloc(0))];
  for (let i = 0; i < CALLS; i++) {
    flood.push(headersFrame(i * 2 + 1, '/broker.Broker/Publish'), messageFrame(i * 2 + 1, Buffer.from('foe')));
  }
  const folder = temporaryFolder(t);
  const file = join(folder, 'flood');
  writeFileSync(file, Buffer.concat(flood));
  const port = server.address.slice(server.address.lastIndexOf(':') + 1);
  const foe = spawn(process.execPath, ['-e', POUR, port, file], { stdio: 'inherit' });
  t.after(() => foe.kill('SIGKILL'));
  await eventually(t, () => theirs > 1);
  let most = 0;
  while (theirs < CALLS) {
    const before = theirs;
    await good.call('Publish', Buffer.alloc(0), 60_000);
    most = Math.max(most, theirs - before);
  }
  t.diagnostic(`at most ${most} calls of the other were first`);
  // A turn has what 64 KiB of such calls are, and the client's call takes a few turns to go and to come back.
  assert.ok(most < CALLS_A_TURN * 24, `${most} calls were first`);
});

/** A connection by itself, with what AbuseWatch looks at. */
function noteWith(values: Partial<ConnectionNote>): ConnectionNote {
  const session = { destroyed: false, goaway: () => undefined, destroy: () => undefined };
  const note = {
    ...{
      host: '127.0.0.1',
      peer: '127.0.0.1:1',
      agent: '',
      bytesIn: 0,
      bytesOut: 0,
      callsBegun: 0,
      callsTotal: 0,
      callsOpen: 0,
    },
    ...{
      messageBytes: 0,
      brokenLeft: 0,
      emptyLeft: 1 << 20,
      seenIn: 0,
      seenOut: 0,
      seenMessages: 0,
      seenCalls: 0,
      seenRefused: 0,
    },
    ...{ unread: 0, read: 0, unreadSince: 0, seenRead: 0, waitingBytes: 0, restBytes: 0, session, ...values },
  };
  return note as unknown as ConnectionNote;
}

test('[F5] a client that takes none of many answers for 30 s is cut off; one that takes one now and then, and one with few, is not', () => {
  const watch = new AbuseWatch(DOOR, null);
  const begun = performance.now();
  const foe = noteWith({ unread: 500, callsOpen: 500 });
  const slow = noteWith({ unread: 500, callsOpen: 500 });
  const few = noteWith({ unread: 3, callsOpen: 3 });
  // Their streams were reset, which the counter does not learn: they are not open any more.
  const gone = noteWith({ unread: 500, callsOpen: 0 });
  for (let second = 1; second <= 30; second++) {
    if (second % 10 === 0) slow.read += 1;
    watch.sweep([foe, slow, few, gone], begun + second * 1_000);
  }
  assert.equal(watch.cuts.unread, 0);
  watch.sweep([foe, slow, few, gone], begun + 31_001);
  assert.equal(watch.cuts.unread, 1);
});

test('[F5] what answers need for each byte that was sent is not counted as empty, nor heads up to 16 KiB, nor messages', () => {
  const watch = new AbuseWatch({ ...DOOR, emptyBytes: 1_000 }, null);
  const begun = performance.now();
  const honest = [
    noteWith({ bytesIn: 250_000, bytesOut: 1_000_000, emptyLeft: 4_000 }),
    noteWith({ bytesIn: 160_000, callsBegun: 10, emptyLeft: 4_000 }),
    noteWith({ bytesIn: 1_000_000, messageBytes: 500_000, emptyLeft: 4_000 }),
  ];
  watch.sweep(honest, begun + 1_000);
  assert.equal(watch.cuts['empty-frames'], 0);
  watch.sweep([noteWith({ bytesIn: 250_000, bytesOut: 250_000, emptyLeft: 4_000 })], begun + 2_000);
  assert.equal(watch.cuts['empty-frames'], 1);
});

test('[F5] what was not read yet is not counted as empty, nor when it has been read; what still comes for calls that were ended here neither, but no more than their windows', () => {
  const watch = new AbuseWatch({ ...DOOR, emptyBytes: 1_000 }, null);
  const begun = performance.now();
  const held: { -readonly [Key in keyof ConnectionNote]: ConnectionNote[Key] } = noteWith({
    bytesIn: 3_000_000,
    waitingBytes: 3_000_000,
    emptyLeft: 4_000,
  });
  watch.sweep([held as ConnectionNote], begun + 1_000);
  // It stands for a while.
  watch.sweep([held as ConnectionNote], begun + 60_000);
  held.waitingBytes = 0;
  held.messageBytes = 3_000_000;
  watch.sweep([held as ConnectionNote], begun + 61_000);
  const ended = noteWith({ bytesIn: 3_000_000, restBytes: 3_000_000, emptyLeft: 4_000 });
  watch.sweep([ended], begun + 62_000);
  assert.equal(watch.cuts['empty-frames'], 0);
  assert.equal(ended.restBytes, 0);
  watch.sweep([noteWith({ bytesIn: 3_000_000, restBytes: 2_000_000, emptyLeft: 4_000 })], begun + 63_000);
  assert.equal(watch.cuts['empty-frames'], 1);
});
