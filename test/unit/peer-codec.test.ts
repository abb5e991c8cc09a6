/** Messages between nodes: what the hand-made codec writes and reads is what protobuf says, and foreign bytes do no harm. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PeerMessage } from '../../src/grpc/gen/broker/v1/peer.ts';
import {
  encodeBatch,
  encodeBroadcast,
  encodeHello,
  encodeInterest,
  encodeKeepalive,
  encodeProof,
  INTEREST_SUBJECTS_MAX,
  type PeerHello,
  type PeerInterest,
  type PeerParts,
  PeerReader,
} from '../../src/grpc/peer-codec.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';

const HELLO: PeerHello = {
  clusterId: 'cluster-1',
  nodeId: 'a',
  instanceId: '00ff',
  incarnation: 1_700_000_000_000,
  version: 1,
  messageBytesMax: 4 << 20,
  challenge: 'c0ffee',
};

/** Everything of a message, with bytes of its own. */
class Found implements PeerParts {
  readonly parts: unknown[] = [];
  hello(hello: PeerHello): void {
    this.parts.push(hello);
  }
  interest({ added, removed, ...flags }: PeerInterest): void {
    this.parts.push({ ...flags, added: added.map(String), removed: removed.map(String) });
  }
  batch(message: Buffer, scan: Parameters<PeerParts['batch']>[1]): void {
    const { base, count, publishedAt } = scan;
    const subject = message.toString('utf8', scan.subjectStart, scan.subjectEnd);
    const batch = message.toString('hex', scan.batchStart, scan.batchEnd);
    this.parts.push({ subject, base, count, publishedAt, batch });
  }
  broadcast(request: Buffer): void {
    this.parts.push(request.toString('hex'));
  }
  proof(challenge: string): void {
    this.parts.push({ challenge });
  }
}

function read(message: Buffer): unknown[] | null {
  const found = new Found();
  return new PeerReader().read(message, found) ? found.parts : null;
}

function batchOf(subject: string, base: number, bytes: Buffer): Buffer {
  const source = Buffer.concat([Buffer.from('..'), Buffer.from(subject), bytes, Buffer.from('..')]);
  const batchAt = 2 + Buffer.byteLength(subject);
  return encodeBatch({ base, count: 3, publishedAt: 1_700_000_000_123 }, source, 2, batchAt, batchAt + bytes.length);
}

const interest = (added: readonly string[], removed: readonly string[] = []): PeerInterest => ({
  everything: false,
  first: true,
  last: true,
  added: added.map((name) => Buffer.from(name)),
  removed: removed.map((name) => Buffer.from(name)),
});

describe('messages between nodes', () => {
  it('are read as they were written, many parts laid one behind the other', () => {
    const bytes = noiseOf(5_000, numbersFrom(7));
    const message = Buffer.concat([
      encodeHello(HELLO),
      encodeInterest(interest(['ä', 'b'], ['c'])),
      batchOf('orders', Number.MAX_SAFE_INTEGER - 3, bytes),
      encodeKeepalive(),
      encodeProof('c0ffee'),
      encodeBroadcast(Buffer.from('0a01', 'hex')),
      batchOf('x', 1, Buffer.from([1])),
    ]);
    const time = 1_700_000_000_123;
    assert.deepEqual(read(message), [
      HELLO,
      { everything: false, first: true, last: true, added: ['ä', 'b'], removed: ['c'] },
      {
        subject: 'orders',
        base: Number.MAX_SAFE_INTEGER - 3,
        count: 3,
        publishedAt: time,
        batch: bytes.toString('hex'),
      },
      { challenge: 'c0ffee' },
      '0a01',
      { subject: 'x', base: 1, count: 3, publishedAt: time, batch: '01' },
    ]);
  });

  it('have batches that a generated decoder reads the same way', () => {
    const bytes = noiseOf(300, numbersFrom(9));
    const { batches } = PeerMessage.decode(Buffer.concat([batchOf('a.b', 2 ** 40, bytes), batchOf('c', 7, bytes)]));
    assert.deepEqual(
      batches.map(({ subject, base, count, publishedAt }) => [String(subject), base, count, publishedAt]),
      [
        ['a.b', 2 ** 40, 3, 1_700_000_000_123],
        ['c', 7, 3, 1_700_000_000_123],
      ],
    );
    assert.deepEqual(Buffer.from(batches[1]?.batch ?? []), bytes);
  });

  it('with a part that cannot be are malformed: a batch without ids or bytes, subjects of no length or too many, long names', () => {
    assert.equal(read(batchOf('', 1, Buffer.from([1]))), null);
    assert.equal(read(batchOf('x'.repeat(256), 1, Buffer.from([1]))), null);
    assert.equal(read(batchOf('x', 0, Buffer.from([1]))), null);
    assert.equal(read(batchOf('x', 1, Buffer.alloc(0))), null);
    assert.equal(read(encodeInterest(interest(['']))), null);
    assert.equal(read(encodeHello({ ...HELLO, nodeId: 'n'.repeat(256) })), null);
    assert.equal(read(encodeProof('p'.repeat(256))), null);
    const names = Array.from({ length: INTEREST_SUBJECTS_MAX }, (_, i) => `s${i}`);
    assert.notEqual(read(encodeInterest(interest(names))), null);
    assert.equal(read(encodeInterest(interest(names, ['one more']))), null);
  });

  it('of 20,000 kinds of damage are read or refused, and nothing is read outside of them', () => {
    const whole = Buffer.concat([
      encodeHello(HELLO),
      encodeInterest(interest(['a', 'b.c'], ['d'])),
      batchOf('orders', 12, Buffer.alloc(40, 5)),
      encodeBroadcast(Buffer.from('0a0161', 'hex')),
    ]);
    const number = numbersFrom(0x5eed);
    let good = 0;
    for (let i = 0; i < 20_000; i++) {
      const damaged = i % 5 === 0 ? noiseOf(number(120), number) : mutate(whole, number);
      // A view into a larger buffer: what lies around must not be reached.
      const around = Buffer.alloc(damaged.length + 64, 0xa5);
      damaged.copy(around, 32);
      const inside = around.subarray(32, 32 + damaged.length);
      const parts = read(inside);
      assert.deepEqual(parts, read(damaged));
      if (parts !== null) good += 1;
    }
    assert(good > 100, `${good} of them were read`);
  });
});
