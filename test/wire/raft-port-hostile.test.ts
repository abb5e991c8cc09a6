import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FRAME_HEADER_BYTES, sealFrame } from '../../src/net/framing.ts';
import { GreetingCodec } from '../../src/net/hello.ts';
import { FrameCodec } from '../../src/net/raft-frames.ts';
import { makeMessage } from '../../src/raft/messages.ts';
import type { PeerFrame } from '../../src/replica/types.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';
import { until } from '../support/until.ts';
import { frameArrives, pair, Stranger, type TestMember } from './raft-port-rig.ts';

/** Two good peers that never stop talking. Afterwards: nothing that a stranger sent came out, and no connection of theirs was lost. */
class GoodPeers {
  readonly a: TestMember;
  readonly b: TestMember;
  readonly #timer: NodeJS.Timeout;
  #sent = 0;

  private constructor(a: TestMember, b: TestMember) {
    this.a = a;
    this.b = b;
    this.#timer = setInterval(() => {
      assert.ok(a.sendClock('b', this.#sent), 'the good peers are disturbed');
      this.#sent += 1;
    }, 2);
  }

  static async start(t: TestContext, caps: Parameters<typeof pair>[1] = {}): Promise<GoodPeers> {
    const good = new GoodPeers(...(await pair(t, caps)));
    t.after(() => clearInterval(good.#timer));
    return good;
  }

  async areUndisturbed(): Promise<void> {
    clearInterval(this.#timer);
    await until(
      () => this.b.frames.length >= this.#sent,
      () => `${this.b.frames.length} of ${this.#sent} came`,
    );
    assert.deepEqual(
      this.b.clocksFrom('a'),
      Array.from({ length: this.#sent }, (_, i) => i),
    );
    assert.equal(this.b.frames.length, this.#sent);
    assert.deepEqual([this.a.unreachable, this.b.unreachable], [[], []]);
    for (const { reconnects, dropped } of this.a.network.counters.peers.values()) {
      assert.deepEqual({ reconnects, dropped }, { reconnects: 0, dropped: 0 });
    }
  }
}

const codec = new FrameCodec();
const vote = (from: string, to: string): PeerFrame => {
  return { kind: 'raft', message: makeMessage({ type: 'vote', from, to, term: 7 }) };
};

test('what is no hello closes its connection, with a logged reason, and does nothing else', async (t) => {
  const good = await GoodPeers.start(t);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(0xffff_ffff, 0);
  const hello = new GreetingCodec().encodeHello({ ...(good.b.hellos[0] ?? assert.fail()), node: 'c' });
  const wrong: [string, Buffer, RegExp][] = [
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n'), /MAGIC/],
    ['a length of 4 GiB', Buffer.concat([Buffer.from('BRKR'), header]), /TOO_LONG/],
    ['a changed bit', Buffer.concat([hello.subarray(0, -1), Buffer.of(0xff)]), /CHECKSUM/],
    ['no hello', Buffer.concat([Buffer.from('BRKR'), codec.encode(vote('a', 'b'))]), /MALFORMED/],
    ['frames before the answer', Buffer.concat([hello, codec.encode(vote('a', 'b'))]), /behind a hello/],
  ];
  for (const [what, bytes, reason] of wrong) {
    const before = good.b.network.counters.malformed;
    await new Stranger(t, good.b.port).write(bytes).closed();
    await until(
      () => good.b.network.counters.malformed === before + 1,
      () => what,
    );
    // The log lets one of a kind through in a second, and says how many it left out.
    if (before === 0) await good.b.logged(reason);
  }
  assert.equal(good.b.hellos.length, 1);
  await good.areUndisturbed();
});

test('300 connections of random and mutated bytes end, and no frame comes of them', async (t) => {
  const good = await GoodPeers.start(t, { caps: { helloMs: 1_000 } });
  const below = numbersFrom(61);
  const first = good.b.hellos[0] ?? assert.fail();
  const start = new GreetingCodec().encodeHello({ ...first, node: 'c', instance: 'c' });
  const strangers = [];
  for (let i = 0; i < 300; i++) {
    const bytes = i % 3 === 0 ? noiseOf(1 + below(300), below) : mutate(start, below);
    const stranger = new Stranger(t, good.b.port).write(bytes);
    stranger.socket.end();
    strangers.push(stranger);
    if (i % 30 === 0) await stranger.closed();
  }
  for (const stranger of strangers) await stranger.closed();
  await good.areUndisturbed();
});

test('a wrong cluster, node, version or instance is answered with its code and logged', async (t) => {
  const good = await GoodPeers.start(t);
  good.b.admit = ({ instance }) =>
    instance !== 'a new disk' ? null : { code: 'INSTANCE_REFUSED', words: `not ${instance}` };
  const c = { node: 'c', targetNode: 'b' } as const;
  const wrong = [
    [{ ...c, clusterId: 'another' }, 'WRONG_CLUSTER'],
    [{ ...c, targetNode: 'd' }, 'WRONG_NODE'],
    [{ ...c, targetInstance: 'before the disk was lost' }, 'WRONG_NODE'],
    [{ ...c, versionMin: 2, versionMax: 9 }, 'WRONG_VERSION'],
    [{ ...c, versionMin: 0, versionMax: 0 }, 'WRONG_VERSION'],
    [{ ...c, instance: 'a new disk' }, 'INSTANCE_REFUSED'],
    [{ ...c, node: 'b' }, 'INSTANCE_REFUSED'],
  ] as const;
  for (const [fields, code] of wrong) {
    const stranger = new Stranger(t, good.b.port).hello(fields);
    assert.equal(await stranger.answer(), code);
    await stranger.closed();
  }
  await until(
    () => good.b.network.counters.refused === wrong.length,
    () => good.b.network.counters,
  );
  await good.b.logged(/WRONG_CLUSTER: this is cluster the-cluster, the dialer's is another/);
  const taken = new Stranger(t, good.b.port).hello({ ...c, versionMax: 9 });
  assert.equal(await taken.answer(), 1);
  await good.areUndisturbed();
});

test('a peer that breaks the protocol after its hello loses its connection', async (t) => {
  const good = await GoodPeers.start(t);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(0xffff_ffff, 0);
  const noise = sealFrame(Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), noiseOf(200, numbersFrom(3))]));
  const row = { node: 'a', instance: 'x', raft: '', grpc: '', protocol: 1 };
  const snapshot = { index: 1, term: 1, config: { voters: [], learners: [] }, ref: '' };
  const bytes: Record<string, Buffer> = {
    'a length of 4 GiB': header,
    'a frame of noise': noise,
    'in the name of another': codec.encode(vote('a', 'b')),
    'to another': codec.encode(vote('c', 'a')),
    "another's row": codec.encode({ kind: 'member', member: row }),
    'a snapshot among frames': codec.encode({
      kind: 'raft',
      message: makeMessage({ type: 'snapshot', from: 'c', to: 'b', term: 1, snapshot }),
    }),
  };
  for (const [what, broken] of Object.entries(bytes)) {
    const before = good.b.network.counters.malformed;
    const stranger = new Stranger(t, good.b.port).hello({ node: 'c', targetNode: 'b' });
    assert.equal(await stranger.answer(), 1);
    await stranger.write(broken).closed();
    await until(
      () => good.b.network.counters.malformed === before + 1,
      () => what,
    );
  }
  await good.b.logged(/TOO_LONG: a frame of 4294967295 bytes/);
  await good.areUndisturbed();
});

test('who says nothing is closed, and who says a part', async (t) => {
  const good = await GoodPeers.start(t, { caps: { helloMs: 300 } });
  const silent = new Stranger(t, good.b.port);
  const slow = new Stranger(t, good.b.port).write(Buffer.from('BRK'));
  await Promise.all([silent.closed(), slow.closed()]);
  await good.b.logged(/no hello within 300 ms/);
  assert.equal(good.b.network.counters.unspoken, 2);
  await good.areUndisturbed();
});

test('an accepted connection on which nothing comes is closed', async (t) => {
  const good = await GoodPeers.start(t, { caps: { idleMs: 400 } });
  // Of the good peers only one talks: the other's connection is idle too, and dialed again.
  good.b.network.setPeers([]);
  const stranger = new Stranger(t, good.b.port).hello({ node: 'c', targetNode: 'b' });
  assert.equal(await stranger.answer(), 1);
  await stranger.closed();
  await good.b.logged(/nothing came for 400 ms/);
  await good.areUndisturbed();
});

test('a flood of connections is bounded, and a peer comes through it', async (t) => {
  const good = await GoodPeers.start(t, { caps: { unspokenMax: 8, helloMs: 20_000 } });
  const flood: Stranger[] = [];
  for (let i = 0; i < 200; i++) flood.push(new Stranger(t, good.b.port));
  await until(
    () => flood.filter(({ isClosed }) => isClosed).length >= 192,
    () => flood.filter(({ isClosed }) => isClosed).length,
  );
  assert.equal(flood.filter(({ isClosed }) => !isClosed).length, 8);
  await good.b.logged(/more than 8 connections have not said hello/);
  const late = new Stranger(t, good.b.port).hello({ node: 'c', targetNode: 'b' });
  assert.equal(await late.answer(), 1);
  await good.areUndisturbed();
});

test('connections of those that are let in are bounded too; a node that dials again replaces its own', async (t) => {
  const good = await GoodPeers.start(t);
  const strangers = [];
  // 4 for each of 2 members, of which the good peer has one.
  for (let i = 0; i < 7; i++) {
    const stranger = new Stranger(t, good.b.port).hello({ node: `c${i}`, targetNode: 'b' });
    assert.equal(await stranger.answer(), 1);
    strangers.push(stranger);
  }
  const more = new Stranger(t, good.b.port).hello({ node: 'd', targetNode: 'b' });
  assert.equal(await more.answer(), 'BUSY');
  const again = new Stranger(t, good.b.port).hello({ node: 'c0', targetNode: 'b' });
  assert.equal(await again.answer(), 1);
  await strangers[0]?.closed();
  await good.areUndisturbed();
});

test('a dialed address at which something else answers is given up with a reason', async (t) => {
  const good = await GoodPeers.start(t);
  const { createServer } = await import('node:net');
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  good.a.peers(good.b, { node: 'c', address: `127.0.0.1:${address.port}` });
  await good.a.logged(/not a peer of a broker/);
  good.a.unreachable.length = 0;
  await frameArrives(good.b, good.a);
  await good.areUndisturbed();
});
