/** Stored batches between a shard and other nodes: what is sent, what is kept of what comes, and what a read waits for. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { crc32 } from '../../src/base/checksum.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import type { SealedBatch, SubjectRef } from '../../src/storage/store.ts';
import { PEER_BATCH_HEADER, ToMain, ToShard } from '../../src/workers/link.ts';
import { Arrivals } from '../../src/workers/shard/arrivals.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { PeerBatches } from '../../src/workers/shard/peer-batches.ts';
import { RecentBatches } from '../../src/workers/shard/recent-batches.ts';
import { dataBatch, plain, subjectRef, voidBatch } from './batch-support.ts';

const SUBJECT = subjectRef('peers.test');
const TIME = 1_700_000_000_000;
const MESSAGES = [plain('one'), plain('two', 60), plain('three')];
const RING_BYTES = 1 << 14;

class Rig {
  readonly #main: MainPort;
  readonly #toMain: RingConsumer;
  readonly recent = new RecentBatches(1 << 16);
  readonly arrivals = new Arrivals(this.recent);
  readonly peers: PeerBatches;
  readonly counts = { sent: 0, dropped: 0, kept: 0, refused: 0 };

  constructor() {
    const payload = createRing(RING_BYTES);
    this.#main = new MainPort(createRing(1 << 14), payload, createDoorbell());
    this.#toMain = new RingConsumer(payload);
    this.peers = new PeerBatches(this.#main, this, {
      peerBatch: (isDropped) => void (isDropped ? this.counts.dropped++ : this.counts.sent++),
      peerBatchCame: (isKept) => void (isKept ? this.counts.kept++ : this.counts.refused++),
    });
  }

  resolved({ subject, base, count, bytes }: SealedBatch): void {
    this.peers.resolved(subject, { base, count, publishedAt: TIME }, bytes);
  }

  /** What main has found on the ring: bases. */
  sent(): number[] {
    const bases: number[] = [];
    this.#toMain.drain((type, offset) => {
      assert.equal(type, ToMain.PEER_BATCH);
      bases.push(this.#toMain.view.getFloat64(offset, true));
    }, 1_000);
    return bases;
  }

  /** A batch comes from another node, which says these things of it. */
  came(bytes: Uint8Array, said: { subject?: SubjectRef; base?: number; count?: number; time?: number } = {}): void {
    const { subject = SUBJECT, base = 1, count = MESSAGES.length, time = TIME } = said;
    const ring = createRing(1 << 17);
    const producer = new RingProducer(ring);
    const at = producer.claim(ToShard.PEER_BATCH, PEER_BATCH_HEADER + subject.bytes.length + bytes.length);
    producer.view.setFloat64(at, base, true);
    producer.view.setFloat64(at + 8, time, true);
    producer.view.setUint32(at + 16, count, true);
    producer.view.setUint32(at + 20, subject.hash, true);
    producer.view.setUint32(at + 24, subject.bytes.length, true);
    producer.bytes.set(subject.bytes, at + PEER_BATCH_HEADER);
    producer.bytes.set(bytes, at + PEER_BATCH_HEADER + subject.bytes.length);
    producer.commit();
    const consumer = new RingConsumer(ring);
    consumer.drain((_type, offset, length) => this.peers.came(consumer.bytes, consumer.view, offset, length), 1);
  }
}

const batchAt = (base: number, text = 'm'): SealedBatch =>
  dataBatch(SUBJECT, [plain(text)], { base, publishedAt: TIME });

describe('stored batches for other nodes', () => {
  it('are those of subjects that somebody wants', () => {
    const rig = new Rig();
    rig.resolved(batchAt(1));
    rig.peers.want(SUBJECT.bytes, SUBJECT.hash, true);
    rig.resolved(batchAt(2));
    rig.resolved(dataBatch(subjectRef('another'), [plain('x')], { base: 3 }));
    rig.peers.want(SUBJECT.bytes, SUBJECT.hash, false);
    rig.resolved(batchAt(4));
    rig.peers.want(new Uint8Array(0), 0, true);
    rig.resolved(batchAt(5));
    rig.peers.want(new Uint8Array(0), 0, false);
    rig.resolved(batchAt(6));
    assert.deepEqual(rig.sent(), [2, 5]);
  });

  it('are none of slots that have gone to another shard', () => {
    const rig = new Rig();
    rig.peers.want(SUBJECT.bytes, SUBJECT.hash, true);
    rig.peers.dropSlots([(SUBJECT.hash + 1) % 1024]);
    rig.resolved(batchAt(1));
    rig.peers.dropSlots([SUBJECT.hash % 1024]);
    rig.resolved(batchAt(2));
    assert.deepEqual(rig.sent(), [1]);
  });

  it('[W7] are dropped and counted when half of the ring is taken: the other half is for the clients of this node', () => {
    const rig = new Rig();
    rig.peers.want(SUBJECT.bytes, SUBJECT.hash, true);
    for (let base = 1; base <= 100; base++) rig.resolved(batchAt(base, 'm'.repeat(1_000)));
    const { sent, dropped } = rig.counts;
    assert(sent > 0 && sent * 1_000 < RING_BYTES / 2, `${sent} sent`);
    assert.equal(sent + dropped, 100);
    assert.equal(rig.sent().length, sent);
    rig.resolved(batchAt(101));
    assert.deepEqual(rig.sent(), [101]);
  });
});

describe('a batch of another node', () => {
  const good = dataBatch(SUBJECT, MESSAGES, { base: 1, publishedAt: TIME });

  it('is kept for reads, and found by each of its ids', () => {
    const rig = new Rig();
    rig.came(good.bytes);
    assert.equal(rig.counts.kept, 1);
    for (const id of [1, 2, 3]) {
      const [item] = rig.recent.read(SUBJECT, id, id, 1)?.items ?? [];
      assert(item?.kind === 'data');
      assert.deepEqual(Buffer.from(item.bytes), good.bytes);
    }
  });

  it('is refused if it is not what it is said to be', () => {
    const rig = new Rig();
    rig.came(good.bytes, { base: 2 });
    rig.came(good.bytes, { count: 2 });
    rig.came(good.bytes, { time: TIME + 1 });
    rig.came(good.bytes, { subject: subjectRef('another') });
    rig.came(good.bytes, { subject: { bytes: SUBJECT.bytes, hash: SUBJECT.hash + 1 } });
    rig.came(good.bytes, { subject: { bytes: subjectRef('peers.tesu').bytes, hash: SUBJECT.hash } });
    rig.came(voidBatch(SUBJECT, 1, 3, TIME).bytes);
    rig.came(Buffer.concat([good.bytes, good.bytes]));
    rig.came(good.bytes.subarray(0, -8));
    rig.came(Buffer.alloc(0));
    assert.deepEqual(rig.counts, { sent: 0, dropped: 0, kept: 0, refused: 10 });
    assert.equal(rig.recent.size, 0);
  });

  it('[S5] is refused with any of its bytes changed', () => {
    const rig = new Rig();
    for (let at = 0; at < good.bytes.length; at++) {
      const damaged = Buffer.from(good.bytes);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      rig.came(damaged);
    }
    assert.equal(rig.counts.kept, 0);
    assert.equal(rig.counts.refused, good.bytes.length);
  });

  it('whose checksums hold over records that cannot be walked is refused', () => {
    const rig = new Rig();
    const broken = dataBatch(SUBJECT, [plain('abc')], { base: 1, publishedAt: TIME });
    rig.came(broken.bytes, { count: 1 });
    assert.equal(rig.counts.kept, 1);
    // The same records, said to be two.
    const two = dataBatch(SUBJECT, [plain('abc'), plain('')], { base: 5, publishedAt: TIME });
    const bytes = withRecords(two.bytes, broken.bytes);
    rig.came(bytes, { base: 5, count: 2 });
    assert.equal(rig.counts.refused, 1);
  });
});

/** The head of one batch in front of the records of another, with checksums that hold. */
function withRecords(head: Buffer, other: Buffer): Buffer {
  const name = SUBJECT.bytes.length;
  const records = other.subarray(56 + name, 56 + name + other.readUInt32LE(20));
  const total = Math.ceil((56 + name + records.length) / 8) * 8;
  const bytes = Buffer.alloc(total);
  head.copy(bytes, 0, 0, 56 + name);
  records.copy(bytes, 56 + name);
  bytes.writeUInt32LE(crc32(records), 12);
  bytes.writeUInt32LE(total, 16);
  bytes.writeUInt32LE(records.length, 20);
  bytes.writeUInt32LE(crc32(bytes.subarray(8, 56 + name)), 4);
  return bytes;
}

describe('a read that goes on where the last batch in memory ends', () => {
  it('waits for the batch that is on its way', async () => {
    const rig = new Rig();
    rig.came(batchAt(1).bytes, { count: 1 });
    const read = rig.arrivals.expect(SUBJECT, 2, 3, 1 << 20);
    assert(read !== null);
    rig.came(batchAt(2).bytes, { base: 2, count: 1 });
    // What comes in the same round must not be seen in the place of what was waited for.
    for (let base = 3; base < 500; base++) rig.came(batchAt(base, 'x'.repeat(500)).bytes, { base, count: 1 });
    const found = await read;
    const [item] = found?.items ?? [];
    assert(item?.kind === 'data');
    assert.deepEqual(item.bytes, batchAt(2).bytes);
    assert.equal(found?.next, 3);
    assert.equal(rig.arrivals.waiting, 0);
  });

  it('gets a batch of this node, too', async () => {
    const rig = new Rig();
    rig.came(batchAt(1).bytes, { count: 1 });
    const read = rig.arrivals.expect(SUBJECT, 2, 2, 1);
    rig.recent.add(SUBJECT, 2, 1, batchAt(2).bytes);
    rig.arrivals.added(SUBJECT, 2);
    assert.equal((await read)?.items.length, 1);
  });

  it('waits no longer than some milliseconds', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const rig = new Rig();
    rig.came(batchAt(1).bytes, { count: 1 });
    const read = rig.arrivals.expect(SUBJECT, 2, 2, 1);
    rig.came(dataBatch(subjectRef('another'), [plain('x')], { base: 2 }).bytes, {
      subject: subjectRef('another'),
      base: 2,
      count: 1,
    });
    assert.equal(rig.counts.kept, 2);
    t.mock.timers.tick(10);
    assert.equal(await read, null);
    assert.equal(rig.arrivals.waiting, 0);
  });

  it('does not wait if nothing came from other nodes, or the read begins elsewhere', () => {
    const rig = new Rig();
    rig.recent.add(SUBJECT, 1, 1, batchAt(1).bytes);
    assert.equal(rig.arrivals.expect(SUBJECT, 2, 2, 1), null);
    rig.came(batchAt(2).bytes, { base: 2, count: 1 });
    assert.equal(rig.arrivals.expect(SUBJECT, 4, 4, 1), null);
    assert.equal(rig.arrivals.expect(subjectRef('another'), 3, 3, 1), null);
  });
});
