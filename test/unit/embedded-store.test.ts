/** The embedded store as a node uses it: full disks, failing syncs, lanes, sidecars, retention. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slotOfHash } from '../../src/base/subject.ts';
import { DiskError, SyncFailed } from '../../src/storage/disk.ts';
import type { EmbeddedOptions } from '../../src/storage/embedded/embedded-store.ts';
import { deleteSegments } from '../../src/storage/embedded/retention.ts';
import { sealLane, sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { encodeSegmentHeader } from '../../src/storage/embedded/segment-format.ts';
import { StartError } from '../../src/storage/start-error.ts';
import type { SealedBatch, SubjectRef } from '../../src/storage/store.ts';
import { bodiesOf, readAll } from '../contract/message-store.ts';
import { dataBatch, type Message, plain, subjectRef, voidBatch } from './batch-support.ts';
import { MemoryDisk, type Operation } from './embedded-memory-disk.ts';
import { EmbeddedRig } from './embedded-rig.ts';

const A = subjectRef('alpha');
const SEGMENT = '/segments/lane-000/00000001.seg';
const SIDECAR = '/segments/lane-000/00000001.idx';

function rigOn(disk: MemoryDisk, more: Partial<EmbeddedOptions> = {}): EmbeddedRig {
  return new EmbeddedRig('/', { disk, cacheBytes: 0, now: () => 1, ...more });
}

function one(base: number, subject: SubjectRef = A, body = `body ${base}`): SealedBatch[] {
  return [dataBatch(subject, [plain(body)], { base })];
}

function many(bytes: number): Message[] {
  return [{ body: Buffer.alloc(bytes, 7), headers: [], expirationSeconds: 0 }];
}

test('[S8] no space for a group: STORE_FULL, the file is as long as before, reads go on, and the next group is taken', async () => {
  for (const partial of [0, 0.3, 1]) {
    for (const size of [100, 200_000]) {
      const disk = new MemoryDisk();
      const rig = rigOn(disk);
      const store = rig.open();
      await store.append(one(1));
      const length = disk.size(SEGMENT);
      disk.partial = partial;
      disk.fault = (operation) => (operation === 'write' ? 'ENOSPC' : null);
      const refused = [dataBatch(A, many(size), { base: 2 })];
      for (let i = 0; i < 3; i++) await assert.rejects(store.append(refused), { reason: 'STORE_FULL' });
      assert.equal(disk.size(SEGMENT), length);
      assert.equal(store.lookup(A, 2), 'absent');
      assert.deepEqual(await bodiesOf(store, A), ['body 1']);
      assert.deepEqual(await bodiesOf(rigOn(disk.afterCut(1)).open(), A), ['body 1'], 'also after a power cut');
      disk.fault = () => null;
      await store.append([voidBatch(A, 2, 1), ...one(3)]);
      const again = rigOn(disk.copy()).open();
      assert.deepEqual(
        (await readAll(again, A)).map(({ kind, from }) => `${kind} ${from}`),
        ['data 1', 'void 2', 'data 3'],
      );
      assert.deepEqual(rig.fatal, []);
    }
  }
});

test('[S8] no space for a new segment: STORE_FULL, no file is left, and writing goes on when there is space', async () => {
  for (const operation of ['create', 'write'] as Operation[]) {
    const disk = new MemoryDisk();
    const store = rigOn(disk).open();
    disk.fault = (found) => (found === operation ? 'ENOSPC' : null);
    await assert.rejects(store.append(one(1)), { reason: 'STORE_FULL' });
    assert.deepEqual(disk.list('/segments/lane-000'), []);
    disk.fault = () => null;
    await store.append(one(1));
    assert.deepEqual(await bodiesOf(rigOn(disk.copy()).open(), A), ['body 1']);
  }
});

test('[S8] a segment for which there was no space takes no number, of which there are not very many', async () => {
  const disk = new MemoryDisk();
  disk.put('/segments/lane-000/01048574.seg', Buffer.alloc(2000, 0x5a));
  const rig = rigOn(disk);
  const store = rig.open();
  disk.fault = (found) => (found === 'write' ? 'ENOSPC' : null);
  for (let i = 0; i < 3; i++) await assert.rejects(store.append(one(1)), { reason: 'STORE_FULL' });
  disk.fault = () => null;
  await store.append(one(1));
  assert.deepEqual(rig.fatal, []);
  assert.deepEqual(await bodiesOf(rigOn(disk.copy()).open(), A), ['body 1']);
});

test('[S8] below the low-space mark messages are refused before anything is written; void marks pass', async () => {
  const disk = new MemoryDisk();
  let now = 0;
  const store = rigOn(disk, { lowSpaceBytes: 10_000, clock: () => now }).open();
  await store.append(one(1));
  disk.free = 10_100;
  now += 2000;
  const before = disk.operations;
  await assert.rejects(store.append(one(2)), { reason: 'STORE_FULL' });
  await assert.rejects(store.append([voidBatch(A, 9, 1), ...one(2)]), { reason: 'STORE_FULL' });
  assert.equal(disk.operations, before, 'nothing was written');
  await store.append([voidBatch(A, 2, 1)]);
  assert.equal(store.lookup(A, 2), 'void');
  disk.free = 20_000;
  now += 2000;
  await store.append(one(3));
  assert.equal(store.lastId(A), 3);
});

test('[S2] a failed sync: the group and all behind it are rejected, the failure is told once, and nothing is tried again', async () => {
  // The first sync is that of a new segment's header, the next is that of its name.
  for (const [kind, failing, acked] of [
    ['sync', 1, 0],
    ['dirsync', 1, 0],
    ['sync', 2, 0],
    ['sync', 3, 1],
  ] as const) {
    const disk = new MemoryDisk();
    let syncs = 0;
    let writesAfter = 0;
    let failed = false;
    disk.fault = (operation) => {
      if (operation === kind && ++syncs === failing) {
        failed = true;
        return 'EIO';
      }
      if (failed && (operation === 'write' || operation === 'sync')) writesAfter += 1;
      return null;
    };
    const rig = rigOn(disk);
    const store = rig.open();
    const appends = [1, 2, 3].map((base) => store.append(one(base)));
    const outcomes = await Promise.allSettled(appends);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [acked === 1 ? 'fulfilled' : 'rejected', 'rejected', 'rejected'],
    );
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') assert.ok(outcome.reason instanceof SyncFailed);
    }
    assert.equal(rig.fatal.length, 1);
    assert.ok(rig.fatal[0] instanceof SyncFailed);
    await assert.rejects(store.append(one(4)), SyncFailed);
    assert.equal(writesAfter, 0);
    assert.equal(store.lookup(A, acked + 1), 'absent', 'what is not durable is not visible');
    await store.close();
    assert.equal(disk.size(SIDECAR), -1);
  }
});

test('[S2] a write that cannot be taken back ends the process; one that can is STORE_UNAVAILABLE', async () => {
  const disk = new MemoryDisk();
  const rig = rigOn(disk);
  const store = rig.open();
  await store.append(one(1));
  disk.fault = (operation) => (operation === 'write' ? 'EIO' : null);
  await assert.rejects(store.append(one(2)), { reason: 'STORE_UNAVAILABLE' });
  disk.fault = (operation) => (operation === 'write' || operation === 'truncate' ? 'EIO' : null);
  await assert.rejects(store.append(one(2)), { name: 'StoreFailure' });
  assert.equal(rig.fatal.length, 1);
});

test('segments roll at their size, are sealed with a sidecar, and a start reads sidecars only', async () => {
  const disk = new MemoryDisk();
  const rig = rigOn(disk, { segmentBytes: 10_000 });
  const store = rig.open();
  for (let i = 0; i < 40; i++) await store.append([dataBatch(A, many(900), { base: i + 1 })]);
  await store.close();
  const names = disk.list('/segments/lane-000');
  assert.equal(
    names.filter((name) => name.endsWith('.seg')).length,
    names.filter((name) => name.endsWith('.idx')).length,
  );
  assert.ok(names.length >= 8);
  const again = rigOn(disk, { segmentBytes: 10_000 });
  const read = new Set<string>();
  disk.fault = (operation, path) => {
    if (operation === 'read') read.add(path);
    return null;
  };
  const reopened = again.open();
  assert.equal(again.report?.scanned, 0);
  assert.deepEqual(
    [...read].filter((path) => path.endsWith('.seg')),
    [],
    'neither to seal them nor for the index',
  );
  assert.equal((await bodiesOf(reopened, A)).length, 40);
  assert.equal(
    reopened.stats().bytes,
    names
      .filter((name) => name.endsWith('.seg'))
      .reduce((sum, name) => sum + disk.size(`/segments/lane-000/${name}`), 0),
  );
  await reopened.append([dataBatch(A, many(900), { base: 41 })]);
  assert.ok(disk.list('/segments/lane-000').length > names.length, 'a new segment, never an old one');
});

test('[S9] a damaged sidecar is put aside and made again from its segment; nothing is deleted', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  for (let i = 1; i <= 5; i++) await store.append(one(i));
  await store.close();
  const whole = Buffer.from(disk.bytes(SIDECAR));
  for (let at = 0; at < whole.length; at++) {
    const found = disk.copy();
    found.bytes(SIDECAR).writeUInt8(whole.readUInt8(at) ^ (1 << (at & 7)), at);
    const damaged = Buffer.from(found.bytes(SIDECAR));
    const rig = rigOn(found);
    const again = rig.open();
    assert.deepEqual(rig.report?.quarantined, [`${SIDECAR}.damaged-1`], `byte ${at}`);
    assert.deepEqual(found.bytes(`${SIDECAR}.damaged-1`), damaged);
    assert.deepEqual(found.bytes(SIDECAR), whole);
    assert.deepEqual(found.unlinked, []);
    assert.equal((await bodiesOf(again, A)).length, 5);
  }
});

test('[S9] files that are not ours, and lanes and segments that make no sense, are left alone and named', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append(one(1));
  await store.close();
  disk.put('/segments/lane-000/notes.txt', Buffer.from('mine'));
  disk.put('/segments/lane-000/1.seg', Buffer.from('short name'));
  disk.put('/segments/lane-000/01048576.seg', Buffer.from('no segment has this number'));
  disk.mkdir('/segments/lane-1024');
  disk.put('/segments/lane-1024/00000001.seg', Buffer.from('nor a lane this one'));
  disk.put('/segments/other', Buffer.from('x'));
  disk.put('/segments/lane-000/00000009.seg', Buffer.alloc(2000, 0x5a));
  const rig = rigOn(disk);
  const again = rig.open();
  assert.deepEqual(await bodiesOf(again, A), ['body 1']);
  assert.deepEqual(
    rig.report?.unknown,
    ['01048576.seg', '1.seg', 'notes.txt'].map((name) => `/segments/lane-000/${name}`),
  );
  assert.ok((rig.report?.damages.length ?? 0) > 0);
  assert.deepEqual(disk.unlinked, []);
  assert.equal(disk.size('/segments/lane-000/00000009.seg'), 2000);
  await again.append(one(2));
  assert.ok(disk.size('/segments/lane-000/00000010.seg') > 0, 'numbers go on behind the highest');
});

test('a stale sidecar, of another length or another file, is not believed', async () => {
  const disk = new MemoryDisk();
  const rig = rigOn(disk);
  let store = rig.open();
  await store.append(one(1));
  const early = disk.copy();
  sealLanes(early, '/segments');
  await store.append(one(2));
  const found = disk.copy();
  found.put(SIDECAR, early.bytes(SIDECAR));
  const again = rigOn(found);
  store = again.open();
  assert.equal(again.report?.scanned, 1);
  assert.deepEqual(await bodiesOf(store, A), ['body 1', 'body 2']);
  assert.deepEqual(again.report?.quarantined, []);
});

test('a segment of a newer program halts the start, and nothing is touched', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append(one(1));
  const header = disk.bytes(SEGMENT).subarray(0, 512);
  encodeSegmentHeader(header, { lane: 0, number: 1, nonce: 5, createdAt: 1, version: 2 });
  const before = Buffer.from(disk.bytes(SEGMENT));
  assert.throws(
    () => sealLanes(disk, '/segments'),
    (error) => error instanceof StartError && error.code === 'SEGMENT_VERSION',
  );
  assert.deepEqual(disk.bytes(SEGMENT), before);
  assert.equal(disk.size(SIDECAR), -1);
});

test('a start on a full disk works without sidecars', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append(one(1));
  const found = disk.copy();
  found.fault = (operation) => (operation === 'write' || operation === 'create' ? 'ENOSPC' : null);
  const rig = rigOn(found);
  const again = rig.open();
  assert.deepEqual(rig.report?.unwritten, [SIDECAR]);
  assert.deepEqual(await bodiesOf(again, A), ['body 1']);
  await assert.rejects(again.append(one(2)), { reason: 'STORE_FULL' });
});

test('shards: each store serves its slots from every lane, whoever wrote them; a replaced one finds what its lane has', async () => {
  const disk = new MemoryDisk();
  const subjects = Array.from({ length: 60 }, (_, i) => subjectRef(`s.${i}`));
  const share = (shard: number, shards: number): Partial<EmbeddedOptions> => ({
    lane: shard,
    ownsSlot: (slot) => slot % shards === shard,
    countsLane: (lane) => lane % shards === shard,
  });
  const owner = (subject: SubjectRef, shards: number): number => slotOfHash(subject.hash) % shards;
  const rig = rigOn(disk);
  sealLanes(disk, '/segments');
  const three = [0, 1, 2].map((shard) => rig.openOnly(share(shard, 3)));
  for (const subject of subjects) await three[owner(subject, 3)]?.append(one(1, subject, 'from three'));
  // Shard 1 dies and is replaced while the others write on.
  await three[0]?.append(
    one(
      2,
      subjects.find((subject) => owner(subject, 3) === 0),
      'meanwhile',
    ),
  );
  sealLane(disk, '/segments', 1);
  const replaced = rig.openOnly(share(1, 3));
  for (const subject of subjects.filter((each) => owner(each, 3) === 1)) {
    assert.deepEqual(await bodiesOf(replaced, subject), ['from three']);
  }
  const found = disk.copy();
  const next = rigOn(found);
  sealLanes(found, '/segments');
  const two = [0, 1].map((shard) => next.openOnly(share(shard, 2)));
  for (const subject of subjects) await two[owner(subject, 2)]?.append(one(5, subject, 'from two'));
  for (const subject of subjects) {
    const store = two[owner(subject, 2)];
    assert.ok(store);
    assert.equal((await bodiesOf(store, subject)).filter((body) => body.startsWith('from')).length, 2);
    assert.equal(two[1 - owner(subject, 2)]?.lastId(subject), 0);
  }
  const segments = two.flatMap((store) => store.sealedSegments().map(({ segment }) => segment));
  assert.deepEqual([...new Set(segments)].length, segments.length, 'each segment is counted once');
  assert.equal(segments.length, 3);
});

test('heads: the newest id of every subject, voids included', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append([...one(1), voidBatch(A, 2, 7), ...one(4, subjectRef('b'))]);
  for (const found of [store, rigOn(disk.copy()).open()]) {
    const heads: Record<string, number> = {};
    found.heads((name, _hash, lastId) => {
      heads[Buffer.from(name).toString()] = lastId;
    });
    assert.deepEqual(heads, { alpha: 8, b: 4 });
  }
});

test('retention: trims are told, segments let go, and only then deleted; what is newer stays', async () => {
  const disk = new MemoryDisk();
  const rig = rigOn(disk, { segmentBytes: 4096 });
  const store = rig.open();
  const b = subjectRef('b');
  for (let i = 1; i <= 12; i++) {
    await store.append([...one(i), ...(i < 3 ? one(i, b) : [])]);
  }
  await store.close();
  const reopened = rig.open();
  const sealed = reopened.sealedSegments();
  assert.ok(sealed.length >= 2);
  const [oldest] = sealed;
  assert.ok(oldest);
  const drop = new Set([oldest.segment]);
  const trims = new Map<string, number>();
  reopened.trimsFor(drop, (name, _hash, first) => trims.set(Buffer.from(name).toString(), first));
  const kept = (await bodiesOf(reopened, A)).length;
  reopened.releaseSegments(drop);
  const rest = await readAll(reopened, A);
  assert.equal(trims.get('alpha'), rest[0]?.from);
  assert.equal(trims.get('b'), 3);
  assert.deepEqual(await bodiesOf(reopened, b), []);
  assert.ok(rest.length > 0 && rest.length < kept);
  deleteSegments(disk, '/segments', drop);
  assert.deepEqual(disk.unlinked, [SEGMENT, SIDECAR]);
  assert.deepEqual(await readAll(rigOn(disk.copy()).open(), A), rest);
});

test('reads that fail are damage of the ids they were for, and the rest is served', async () => {
  const disk = new MemoryDisk();
  const rig = rigOn(disk, { segmentBytes: 1500 });
  const store = rig.open();
  for (let i = 1; i <= 6; i++) await store.append(one(i));
  disk.fault = (operation, path) => (operation === 'read' && path === SEGMENT ? 'EIO' : null);
  const found = (await readAll(store, A)).map(({ kind, from }) => `${kind} ${from}`);
  assert.ok(found.includes('damaged 1') && found.includes('data 6'), found.join());
  assert.equal(rig.damage[0]?.what, 'unreadable');
  assert.ok(store.stats().damaged > 0);
});

test('a catch-up read is asynchronous, bounded, and its bytes stay what they were while the store writes on', async () => {
  const disk = new MemoryDisk();
  const reads: { microseconds: number; bytes: number }[] = [];
  const onRead = (microseconds: number, bytes: number): void => void reads.push({ microseconds, bytes });
  const store = rigOn(disk, { cacheBytes: 64 * 1024, onRead }).open();
  const body = (base: number): Message[] => [{ body: Buffer.alloc(20_000, base), headers: [], expirationSeconds: 0 }];
  for (let base = 1; base <= 20; base++) await store.append([dataBatch(A, body(base), { base })]);
  const read = store.read(A, 1, 20, 2 ** 20);
  assert.ok(read instanceof Promise);
  for (let base = 21; base <= 30; base++) await store.append([dataBatch(A, body(base), { base })]);
  const { items, next } = await read;
  assert.equal(next, 21);
  for (const [i, item] of items.entries()) {
    assert.ok(item.kind === 'data');
    assert.deepEqual(item.bytes, dataBatch(A, body(i + 1), { base: i + 1 }).bytes);
  }
  // What the tail of the lane has in memory is no read of the disk.
  const one = dataBatch(A, body(1), { base: 1 }).bytes.length;
  assert.equal(reads.length, 1);
  assert.ok((reads[0]?.microseconds ?? -1) >= 0);
  assert.ok(
    (reads[0]?.bytes ?? 0) % one === 0 && (reads[0]?.bytes ?? 0) >= 16 * one && (reads[0]?.bytes ?? 0) < 20 * one,
  );
  await store.read(A, 1, 1, 2 ** 20);
  assert.deepEqual([reads.length, reads[1]?.bytes], [2, one]);
  await store.read(A, 30, 30, 2 ** 20);
  assert.equal(reads.length, 2);
});

test('a batch of a slot that the store does not own is a defect', async () => {
  const rig = rigOn(new MemoryDisk(), { ownsSlot: () => false });
  await assert.rejects(rig.open().append(one(1)), { name: 'AssertionError' });
  assert.equal(rig.fatal.length, 1);
});

test('errors of the disk carry path and operation', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  disk.fault = (operation) => (operation === 'create' ? 'EACCES' : null);
  await assert.rejects(store.append(one(1)), (error: Error) => {
    assert.ok(error.cause instanceof DiskError);
    assert.match(error.message, /00000001\.seg/);
    return true;
  });
});
