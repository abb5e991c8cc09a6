import assert from 'node:assert/strict';
import { createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { GreetingCodec } from '../../src/net/hello.ts';
import { makeMessage } from '../../src/raft/messages.ts';
import { Relay } from '../servers/relay.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';
import { frameArrives, HOST, member, pair, type TestMember } from './raft-port-rig.ts';

test('frames of every kind come in order, from who sent them, and are counted', async (t) => {
  const [a, b] = await pair(t);
  const entries = Array.from({ length: 50 }, (_, i) => ({
    term: 1,
    index: i + 1,
    type: 0 as const,
    data: Buffer.alloc(20_000, i),
  }));
  const row = { node: 'a', instance: a.instance, raft: a.address, grpc: a.address, protocol: 1 };
  const append = makeMessage({ type: 'append', from: 'a', to: 'b', term: 1, entries });
  a.network.send('b', { kind: 'raft', message: append });
  a.network.send('b', { kind: 'runs', runs: [Buffer.from('x'), Buffer.alloc(0)] });
  a.network.send('b', { kind: 'member', member: row });
  for (let i = 0; i < 500; i++) assert.ok(a.sendClock('b', i));
  await until(
    () => b.frames.length === 503,
    () => b.frames.length,
  );
  assert.deepEqual(
    b.clocksFrom('a'),
    Array.from({ length: 500 }, (_, i) => i),
  );
  assert.deepEqual(b.frames[0]?.frame, { kind: 'raft', message: append });
  assert.deepEqual(b.frames[1]?.frame, { kind: 'runs', runs: [Buffer.from('x'), Buffer.alloc(0)] });
  assert.deepEqual(b.frames[2]?.frame, { kind: 'member', member: row });
  const sent = a.network.counters.peers.get('b');
  const got = b.network.counters.peers.get('a');
  assert.deepEqual([sent?.framesOut, sent?.bytesOut], [got?.framesIn, got?.bytesIn]);
  assert.deepEqual([sent?.dropped, sent?.reconnects, got?.framesOut], [0, 0, 0]);
});

test('data of entries outlive the frames that come after them', async (t) => {
  const [a, b] = await pair(t);
  for (let i = 0; i < 2_000; i++) a.network.send('b', { kind: 'runs', runs: [Buffer.alloc(300, i)] });
  await until(
    () => b.frames.length === 2_000,
    () => b.frames.length,
  );
  b.frames.forEach(({ frame }, i) => {
    assert.deepEqual(frame, { kind: 'runs', runs: [Buffer.alloc(300, i)] });
  });
});

test('nothing is sent to a peer that is unknown, unreachable or gone; a loss is told once', async (t) => {
  const [a, b] = await pair(t);
  const [unused] = await freePorts(1);
  a.peers(b, { node: 'c', address: `${HOST}:${unused}` });
  assert.equal(a.sendClock('nobody', 1), false);
  assert.equal(a.sendClock('c', 1), false);
  await until(
    () => a.unreachable.length > 0,
    () => 'c is not told',
  );
  await b.network.close();
  await until(
    () => a.unreachable.includes('b'),
    () => a.unreachable,
  );
  // Time for many tries more.
  await until(
    () => a.reasons().filter((reason) => /ECONNREFUSED/.test(reason)).length >= 2,
    () => a.reasons(),
  );
  await frameArrivesBetweenOthers(t);
  assert.deepEqual(a.unreachable.toSorted(), ['b', 'c']);
  assert.equal(a.network.counters.peers.get('c')?.dropped, 1);
  a.peers();
  assert.equal(a.sendClock('b', 1), false);
  assert.equal(a.network.counters.peers.size, 0);
});

/** Takes some hundred milliseconds of real work. */
async function frameArrivesBetweenOthers(t: TestContext): Promise<void> {
  const [c, d] = await Promise.all([member(t, 'c'), member(t, 'd')]);
  for (let i = 0; i < 10; i++) {
    c.peers(d);
    await frameArrives(c, d);
    c.peers();
  }
}

test('a peer that restarts on its port is found again', async (t) => {
  const [a, b] = await pair(t);
  await b.network.close();
  const again = await member(t, 'b', { port: b.port });
  await frameArrives(a, again);
  assert.deepEqual(a.unreachable, ['b']);
  assert.equal(a.network.counters.peers.get('b')?.reconnects, 1);
});

test('a peer at a new address is dialed there, and the others keep their connections', async (t) => {
  const [a, b] = await pair(t);
  const c = await member(t, 'c');
  a.peers(b, c);
  await frameArrives(a, c);
  await frameArrives(a, b);
  const moved = await member(t, 'b');
  a.peers(moved, c);
  await frameArrives(a, moved);
  const before = b.frames.length;
  await frameArrives(a, c);
  assert.equal(b.frames.length, before);
  assert.equal(c.hellos.length, 1, 'c was dialed once');
});

test('[R23] another instance behind a known name or address is refused, told why once, and let in when the table changes', async (t) => {
  const [a, b] = await Promise.all([member(t, 'a'), member(t, 'b')]);
  let known = 'the lost disk';
  b.admit = ({ instance }) =>
    instance === known ? null : { code: 'INSTANCE_REFUSED', words: `a is ${known}, this is ${instance}` };
  a.peers(b);
  await until(
    () => b.network.counters.refused >= 4,
    () => b.network.counters,
  );
  const refusal = { code: 'INSTANCE_REFUSED', words: `a is the lost disk, this is ${a.instance}` } as const;
  assert.deepEqual(a.refusals, [{ node: 'b', refusal }]);
  assert.equal(a.reasons().filter((reason) => reason.startsWith('INSTANCE_REFUSED')).length, 1);
  assert.equal(b.frames.length, 0);
  known = a.instance;
  await frameArrives(a, b);
  // And out again: what was accepted is judged anew.
  known = 'a third one';
  b.peers(a);
  await until(
    () => a.refusals.length === 2,
    () => a.refusals,
  );
  assert.equal(a.network.isConnected('b'), false);
  // The dialer, too, may know whom it wants.
  a.network.setPeers([{ node: 'b', address: b.address, instance: 'not this one' }]);
  await until(
    () => a.refusals.at(-1)?.refusal.code === 'WRONG_NODE',
    () => a.refusals,
  );
});

test('a connection to a name that another node has now is refused', async (t) => {
  const [a, b] = await Promise.all([member(t, 'a'), member(t, 'b')]);
  a.peers({ node: 'c', address: b.address });
  await until(
    () => a.refusals.length > 0,
    () => a.log,
  );
  assert.equal(a.refusals[0]?.refusal.code, 'WRONG_NODE');
  assert.equal(b.hellos.length, 0, 'admit is not asked about it');
});

/** Answers hellos as a peer does and is as alive as it is told to be. */
async function impostor(
  t: TestContext,
  isAlive: boolean,
): Promise<{ address: string; server: Server; hellos: () => number }> {
  let hellos = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('data', () => {
      hellos += 1;
      socket.pause();
      socket.write(new GreetingCodec().encodeAnswer({ version: 1 }));
      if (!isAlive) return;
      const alive = setInterval(() => socket.write(Buffer.of(0)), 50);
      socket.once('close', () => clearInterval(alive));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { address: `${HOST}:${address.port}`, server, hellos: () => hellos };
}

test('for a peer that does not read, frames are dropped beyond the cap and memory is bounded', async (t) => {
  const unsentBytesMax = 4 * 1024 * 1024;
  const [a, b] = await pair(t, { caps: { unsentBytesMax, silenceMs: 20_000 } });
  const deaf = await impostor(t, true);
  a.peers(b, { node: 'c', address: deaf.address });
  await a.connected('c');
  const run = Buffer.alloc(100_000);
  const before = process.memoryUsage().arrayBuffers;
  let taken = 0;
  for (let i = 0; i < 2_000; i++) {
    if (a.network.send('c', { kind: 'runs', runs: [run] })) taken += 1;
    if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(taken < 2_000, 'nothing was dropped');
  assert.equal(a.network.counters.peers.get('c')?.dropped, 2_000 - taken);
  assert.ok(process.memoryUsage().arrayBuffers - before < 8 * unsentBytesMax);
  await frameArrives(a, b);
  assert.equal(deaf.hellos(), 1, 'it is alive, so it keeps its connection');
});

test('a connection whose other end is silent is given up, and dialed again', async (t) => {
  const a = await member(t, 'a', { caps: { aliveEveryMs: 50, silenceMs: 200 } });
  const dead = await impostor(t, false);
  a.peers({ node: 'b', address: dead.address });
  await until(
    () => dead.hellos() >= 2,
    () => a.log,
  );
  await a.logged(/said nothing for 200 ms/);
  assert.equal(a.unreachable[0], 'b');
});

test('a thread that stood still does not take that for the silence of its peers', async (t) => {
  const [a, b] = await pair(t, { caps: { aliveEveryMs: 50, silenceMs: 200, idleMs: 200 } });
  a.sendClock('b', 1);
  b.sendClock('a', 1);
  for (const begun = performance.now(); performance.now() - begun < 600; );
  await frameArrives(a, b);
  await frameArrives(b, a);
  assert.deepEqual([a.unreachable, b.unreachable], [[], []]);
});

test('a way on which replies get lost is noticed, and used again when it is whole', async (t) => {
  const [a, b] = await Promise.all([member(t, 'a', { caps: { silenceMs: 300, helloMs: 300 } }), member(t, 'b')]);
  const relay = await Relay.start(HOST, b.port);
  t.after(() => relay.close());
  a.peers({ node: 'b', address: `${HOST}:${relay.port}` });
  await frameArrives(a, b);
  void relay.dropReplies();
  await a.logged(/said nothing for 300 ms/);
  await a.logged(/no answer to the hello within 300 ms/);
  assert.equal(a.sendClock('b', 1), false);
  relay.restore();
  await frameArrives(a, b);
});

test('an address that is none fails like one at which nobody listens', async (t) => {
  const a = await member(t, 'a');
  a.peers({ node: 'b', address: 'no address' }, { node: 'c', address: 'unknown.invalid:1' });
  await a.logged(/no address is not HOST:PORT/);
  await until(
    () => a.unreachable.length === 2,
    () => a.unreachable,
  );
});

test('a port that is taken rejects; a closed network says nothing more and frees its port', async (t) => {
  const [a, b] = await pair(t);
  await assert.rejects(member(t, 'x', { port: a.port }), { code: 'EADDRINUSE' });
  const [events, frames] = [a.unreachable.length, a.frames.length];
  b.sendClock('a', 1);
  await a.network.close();
  await until(
    () => b.unreachable.includes('a'),
    () => b.log,
  );
  const again: TestMember = await member(t, 'a', { port: a.port });
  await frameArrives(b, again);
  assert.deepEqual([a.unreachable.length, a.frames.length], [events, frames]);
  assert.equal(a.sendClock('b', 1), false);
});
