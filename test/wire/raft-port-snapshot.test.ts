import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { crc32 } from '../../src/base/checksum.ts';
import { FrameCodec } from '../../src/net/raft-frames.ts';
import { Signal } from '../../src/net/signal.ts';
import { chunkHead, endFrame, headerFrame } from '../../src/net/snapshot-frames.ts';
import type { SnapshotReceiver } from '../../src/net/types.ts';
import type { Message } from '../../src/raft/messages.ts';
import { Relay } from '../servers/relay.ts';
import { until } from '../support/until.ts';
import { frameArrives, HOST, member, pair, Stranger, snapshotMessage } from './raft-port-rig.ts';

const MIB = 1024 * 1024;

/** Takes everything in, keeps its checksum only. */
class Receiver implements SnapshotReceiver {
  readonly hash = createHash('sha256');
  length = 0;
  largest = 0;
  fate: 'open' | 'ended' | 'aborted' = 'open';
  isWriting = false;

  async write(chunk: Uint8Array): Promise<void> {
    assert.equal(this.fate, 'open');
    assert.equal(this.isWriting, false, 'a write during a write');
    this.isWriting = true;
    this.hash.update(chunk);
    this.length += chunk.length;
    this.largest = Math.max(this.largest, chunk.length);
    await new Promise((resolve) => setImmediate(resolve));
    this.isWriting = false;
  }

  async end(): Promise<void> {
    this.fate = 'ended';
  }

  abort(): void {
    this.fate = 'aborted';
  }
}

/** `count` chunks of `bytes` bytes, all different; counts those that were taken. */
class Chunks {
  readonly hash = createHash('sha256');
  taken = 0;
  readonly #count: number;
  readonly #bytes: number;

  constructor(count: number, bytes: number) {
    this.#count = count;
    this.#bytes = bytes;
  }

  *[Symbol.iterator](): Generator<Uint8Array> {
    for (; this.taken < this.#count; ) {
      const chunk = Buffer.alloc(this.#bytes, this.taken + 1);
      this.hash.update(chunk);
      this.taken += 1;
      yield chunk;
    }
  }
}

test('64 MiB arrive whole, piece by piece, while frames keep coming', async (t) => {
  const [a, b] = await pair(t);
  const receiver = new Receiver();
  const begun: { from: string; message: Message }[] = [];
  b.beginSnapshot = (from, message) => {
    begun.push({ from, message });
    return receiver;
  };
  const chunks = new Chunks(64, MIB);
  let sent = 0;
  const talk = setInterval(() => {
    a.sendClock('b', sent);
    sent += 1;
  }, 1);
  t.after(() => clearInterval(talk));
  let framesDuring = 0;
  const outcome = a.network.sendSnapshot('b', snapshotMessage('a', 'b'), chunks).finally(() => {
    framesDuring = b.frames.length;
  });
  assert.equal(await outcome, 'delivered');
  clearInterval(talk);
  assert.deepEqual(begun, [{ from: 'a', message: snapshotMessage('a', 'b') }]);
  assert.equal(receiver.fate, 'ended');
  assert.equal(receiver.length, 64 * MIB);
  assert.equal(receiver.largest, 256 * 1024, 'long chunks are cut');
  assert.equal(receiver.hash.digest('hex'), chunks.hash.digest('hex'));
  assert.ok(framesDuring > 5, `${framesDuring} frames`);
  assert.deepEqual([a.unreachable, b.unreachable], [[], []]);
});

test('chunks may come from a reader that takes its time, and there may be none', async (t) => {
  const [a, b] = await pair(t);
  const receivers: Receiver[] = [];
  b.beginSnapshot = () => {
    receivers.push(new Receiver());
    return receivers.at(-1) ?? null;
  };
  async function* slowly(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      yield Buffer.alloc(i);
    }
  }
  assert.equal(await a.network.sendSnapshot('b', snapshotMessage('a', 'b'), slowly()), 'delivered');
  assert.equal(await a.network.sendSnapshot('b', snapshotMessage('a', 'b'), []), 'delivered');
  assert.deepEqual(
    receivers.map(({ fate, length }) => [fate, length]),
    [
      ['ended', 10],
      ['ended', 0],
    ],
  );
});

test('a receiver that stands still stops the reader: a few chunks are in memory', async (t) => {
  const [a, b] = await pair(t);
  let goOn: () => void = () => assert.fail('nothing was written');
  const receiver = new Receiver();
  b.beginSnapshot = () => ({
    write: (chunk) => {
      if (receiver.length > 0) return receiver.write(chunk);
      return new Promise<void>((resolve) => {
        goOn = resolve;
      }).then(() => receiver.write(chunk));
    },
    end: () => receiver.end(),
    abort: () => receiver.abort(),
  });
  const chunks = new Chunks(600, 256 * 1024);
  const outcome = a.network.sendSnapshot('b', snapshotMessage('a', 'b'), chunks);
  let before = -1;
  // What the kernel takes is its own affair: until no more is taken.
  await until(
    () => {
      const isStill = chunks.taken > 0 && chunks.taken === before;
      before = chunks.taken;
      return isStill;
    },
    () => chunks.taken,
  );
  assert.ok(chunks.taken < 200, `${chunks.taken} chunks were taken`);
  await frameArrives(a, b);
  assert.equal(await a.network.sendSnapshot('b', snapshotMessage('a', 'b'), []), 'failed', 'one at a time');
  goOn();
  assert.equal(await outcome, 'delivered');
  assert.equal(receiver.length, 600 * 256 * 1024);
});

test('cut in the middle it has failed, and the receiver is told to forget it; the next one goes through', async (t) => {
  const [a, b] = await Promise.all([member(t, 'a'), member(t, 'b')]);
  const relay = await Relay.start(HOST, b.port);
  t.after(() => relay.close());
  a.peers({ node: 'b', address: `${HOST}:${relay.port}` });
  await a.connected('b');
  const receivers: Receiver[] = [];
  b.beginSnapshot = () => {
    const receiver = new Receiver();
    receivers.push(receiver);
    return receiver;
  };
  const chunks = new Chunks(64, MIB);
  const outcome = a.network.sendSnapshot('b', snapshotMessage('a', 'b'), chunks);
  await until(
    () => (receivers[0]?.length ?? 0) > 2 * MIB,
    () => 'nothing comes',
  );
  relay.breakAll();
  assert.equal(await outcome, 'failed');
  await until(
    () => receivers[0]?.fate === 'aborted',
    () => receivers[0]?.fate,
  );
  assert.ok(chunks.taken < 64, 'the reader was stopped');
  await a.connected('b');
  assert.equal(await a.network.sendSnapshot('b', snapshotMessage('a', 'b'), new Chunks(3, 1000)), 'delivered');
  assert.equal(receivers[1]?.fate, 'ended');
});

test('it fails by a busy or failing receiver, an unknown or refusing peer, a standstill', async (t) => {
  const [a, b] = await pair(t, { caps: { snapshotProgressMs: 300, snapshotInstallMs: 300 } });
  const send = (to = 'b'): Promise<string> =>
    a.network.sendSnapshot(to, snapshotMessage('a', to), new Chunks(80, 256 * 1024));
  assert.equal(await send('nobody'), 'failed');
  assert.equal(await send(), 'failed');
  await a.logged(/takes no snapshot in at the moment/);
  const aborted: string[] = [];
  const failing = (at: 'write' | 'end', failure: () => Promise<void>): void => {
    b.beginSnapshot = () => ({
      write: () => (at === 'write' ? failure() : undefined),
      end: failure,
      abort: () => void aborted.push(at),
    });
  };
  const noSpace = (): Promise<void> => Promise.reject(new Error('no space'));
  failing('write', noSpace);
  assert.equal(await send(), 'failed');
  failing('end', noSpace);
  assert.equal(await send(), 'failed');
  await until(
    () => aborted.length === 2,
    () => aborted,
  );
  assert.deepEqual(aborted, ['write', 'end']);
  await a.logged(/could not install it/);
  await b.logged(/the receiver failed: no space/);
  const held: (() => void)[] = [];
  const never = (): Promise<void> => new Promise((resolve) => held.push(resolve));
  failing('end', never);
  assert.equal(await send(), 'failed');
  await a.logged(/did not say that it is installed/);
  failing('write', never);
  for (const release of held.splice(0)) release();
  // Refused as busy until the receiver of the one before has come to its end.
  await until(
    async () => (await send()) === 'failed' && a.reasons().some((reason) => /no progress for 300 ms/.test(reason)),
    () => a.reasons(),
  );
  for (const release of held) release();
  b.admit = () => ({ code: 'INSTANCE_REFUSED', words: 'gone' });
  assert.equal(await send(), 'failed');
  await a.logged(/INSTANCE_REFUSED: gone/);
});

test('a sender that stands still is given up, and the receiver is told to forget it', async (t) => {
  const [, b] = await pair(t, { caps: { snapshotProgressMs: 300 } });
  const receiver = new Receiver();
  b.beginSnapshot = () => receiver;
  const stranger = new Stranger(t, b.port).hello({ node: 'c', targetNode: 'b', purpose: 'snapshot' });
  assert.equal(await stranger.answer(), 1);
  const second = new Stranger(t, b.port).hello({ node: 'c', targetNode: 'b', purpose: 'snapshot' });
  assert.equal(await second.answer(), 'BUSY');
  stranger.write(headerFrame(new FrameCodec(), snapshotMessage('c', 'b')));
  const mute = new Stranger(t, b.port).hello({ node: 'd', targetNode: 'b', purpose: 'snapshot' });
  await Promise.all([stranger.closed(), mute.closed()]);
  await b.logged(/no part of the snapshot came for 300 ms/);
  assert.equal(receiver.fate, 'aborted');
});

test('what the reader throws comes out, and the receiver is told to forget it', async (t) => {
  const [a, b] = await pair(t);
  const receiver = new Receiver();
  b.beginSnapshot = () => receiver;
  function* broken(): Generator<Uint8Array> {
    yield Buffer.alloc(1000);
    throw new Error('the file is damaged');
  }
  await assert.rejects(a.network.sendSnapshot('b', snapshotMessage('a', 'b'), broken()), /the file is damaged/);
  await until(
    () => receiver.fate === 'aborted',
    () => receiver.fate,
  );
});

test('a snapshot under way ends when either side is closed, or the peer is one no more', async (t) => {
  for (const end of ['sender', 'receiver', 'peers'] as const) {
    const [a, b] = await pair(t);
    const receiver = new Receiver();
    b.beginSnapshot = () => receiver;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) {
        await new Promise((resolve) => setImmediate(resolve));
        yield Buffer.alloc(1000);
      }
    }
    const outcome = a.network.sendSnapshot('b', snapshotMessage('a', 'b'), endless());
    await until(
      () => receiver.length > 0,
      () => 'nothing comes',
    );
    if (end === 'sender') await a.network.close();
    else if (end === 'receiver') await b.network.close();
    else a.peers();
    assert.equal(await outcome, 'failed', end);
    await until(
      () => receiver.fate === 'aborted',
      () => end,
    );
  }
});

test('bytes that are no snapshot, or not the one announced, abort it', async (t) => {
  const [, b] = await pair(t);
  const codec = new FrameCodec();
  const header = headerFrame(codec, snapshotMessage('c', 'b'));
  const chunk = Buffer.from('bytes');
  const at = (offset: number): Buffer => Buffer.concat([chunkHead(offset, chunk), chunk]);
  const cases: [string, Buffer[], RegExp, number][] = [
    ['noise', [Buffer.alloc(40, 0x7f)], /TOO_LONG/, 0],
    ['a chunk first', [at(0)], /without a header/, 0],
    ['of another', [headerFrame(codec, snapshotMessage('a', 'b'))], /in the name of another/, 0],
    ['two headers', [header, header], /second header/, 1],
    ['a hole', [header, at(0), at(6)], /wrong place/, 1],
    ['too short', [header, at(0), endFrame(6, crc32(chunk))], /wrong length/, 1],
    ['another content', [header, at(0), endFrame(5, 0)], /checksum of a snapshot/, 1],
  ];
  for (const [what, parts, , begins] of cases) {
    const receivers: Receiver[] = [];
    b.beginSnapshot = () => {
      const receiver = new Receiver();
      receivers.push(receiver);
      return receiver;
    };
    const before = b.network.counters.malformed;
    const stranger = new Stranger(t, b.port).hello({ node: 'c', targetNode: 'b', purpose: 'snapshot' });
    assert.equal(await stranger.answer(), 1, what);
    await stranger.write(Buffer.concat(parts)).closed();
    assert.deepEqual(
      receivers.map(({ fate }) => fate),
      Array(begins).fill('aborted'),
      what,
    );
    assert.equal(b.network.counters.malformed, before + 1, what);
    assert.ok(!stranger.received.subarray(-1).equals(Buffer.of(Signal.INSTALLED)), what);
  }
  await b.logged(/TOO_LONG/);
});
