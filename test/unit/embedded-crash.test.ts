/** What a crash, a power cut or damage leaves of the segments, and what the store makes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../src/base/prng.ts';
import type { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { scanSegment } from '../../src/storage/embedded/segment-scan.ts';
import type { MessageStore, SealedBatch } from '../../src/storage/store.ts';
import { bodiesOf, readAll } from '../contract/message-store.ts';
import { dataBatch, plain, subjectRef, voidBatch } from './batch-support.ts';
import { MemoryDisk, PowerCut } from './embedded-memory-disk.ts';
import { EmbeddedRig } from './embedded-rig.ts';

const A = subjectRef('alpha');
const B = subjectRef('beta');
const PATH = '/segments/lane-000/00000001.seg';

function rigOn(disk: MemoryDisk, more: ConstructorParameters<typeof EmbeddedRig>[1] = {}): EmbeddedRig {
  return new EmbeddedRig('/', { disk, cacheBytes: 0, now: () => 1, clock: () => 1, ...more });
}

/** Two batches in each group: `a` gets ids 1-2, 3-4, …, `b` one id a group. */
function group(i: number, text = `group ${i}`): SealedBatch[] {
  return [
    dataBatch(A, [plain(`${text} first`), plain(`${text} second`)], { base: i * 2 + 1 }),
    dataBatch(B, [plain(text)], { base: i + 1 }),
  ];
}

async function written(groups: number): Promise<{ disk: MemoryDisk; ends: number[] }> {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  const ends: number[] = [];
  for (let i = 0; i < groups; i++) {
    await store.append(group(i));
    ends.push(disk.size(PATH));
  }
  return { disk, ends };
}

async function groupsIn(store: MessageStore): Promise<string[]> {
  return await bodiesOf(store, B);
}

test('[S5] a crash at every byte of the last group: cut, or zeros from that sector on; what was durable stays, the rest is gone', async () => {
  const { disk, ends } = await written(3);
  const whole = Buffer.from(disk.bytes(PATH));
  const [, durable = 0, size = 0] = ends;
  for (let cut = durable; cut <= size; cut++) {
    // A sector is written whole or not at all, so zeros begin at a sector.
    for (const tail of cut % 512 === 0 ? (['cut', 'zeros'] as const) : (['cut'] as const)) {
      const bytes = Buffer.alloc(tail === 'cut' ? cut : size);
      whole.copy(bytes, 0, 0, cut);
      const found = new MemoryDisk();
      found.put(PATH, bytes);
      const rig = rigOn(found);
      const store = rig.open();
      assert.deepEqual(rig.report?.damages, [], `${tail} at ${cut}`);
      const isWhole = bytes.equals(whole);
      const expected = isWhole ? ['group 0', 'group 1', 'group 2'] : ['group 0', 'group 1'];
      assert.deepEqual(await groupsIn(store), expected, `${tail} at ${cut}`);
      assert.equal(found.size(PATH), isWhole ? size : durable, 'the torn tail was cut');
      assert.equal(store.lookup(A, 5), isWhole ? 'data' : 'absent');
      await store.append(group(2, 'again'));
      assert.equal((await groupsIn(store)).length, 3);
    }
  }
});

test('[S5] 4 KiB of zeros behind the last group end the log', async () => {
  const { disk } = await written(2);
  const bytes = Buffer.concat([disk.bytes(PATH), Buffer.alloc(4096)]);
  const found = new MemoryDisk();
  found.put(PATH, bytes);
  const rig = rigOn(found);
  assert.deepEqual(await groupsIn(rig.open()), ['group 0', 'group 1']);
  assert.deepEqual(rig.report?.torn, [{ path: PATH, bytes: 4096 }]);
  assert.deepEqual(rig.report?.damages, []);
});

/** Where the batches of a segment of `written` lie, and the ids in them, by what an intact scan finds. */
function batchesAt(disk: MemoryDisk): { start: number; end: number; ids: string }[] {
  const file = disk.open(PATH);
  const size = disk.size(PATH);
  const { entries } = scanSegment({ file, size, lane: 0, number: 1, isLast: true });
  const found: { start: number; end: number; ids: string }[] = [];
  const store = rigOn(disk.copy()).open();
  assert.equal(store.stats().batches, entries.batches);
  for (const subject of [A, B]) {
    for (let base = 1; base <= store.lastId(subject); base++) {
      if (store.lookup(subject, base) !== 'data') continue;
      const read = store.read(subject, base, base, 1);
      assert.ok(!(read instanceof Promise));
      const item = read.items[0];
      assert.ok(item?.kind === 'data');
      const start = disk.bytes(PATH).indexOf(item.bytes);
      found.push({
        start,
        end: start + item.bytes.length,
        ids: `${Buffer.from(subject.bytes)} ${item.from}-${item.to}`,
      });
    }
  }
  return found;
}

async function damagedIds(store: MessageStore): Promise<string[]> {
  const found: string[] = [];
  for (const subject of [A, B]) {
    for (const { kind, from, to } of await readAll(store, subject)) {
      if (kind === 'damaged') found.push(`${Buffer.from(subject.bytes)} ${from}-${to}`);
    }
  }
  return found;
}

for (const state of ['after a kill', 'sealed, with its sidecar'] as const) {
  test(`[S5] each byte of a small segment flipped (${state}): every flip is found, it costs exactly the ids it hit, the rest is served`, async () => {
    const { disk } = await written(2);
    if (state !== 'after a kill') sealLanes(disk, '/segments');
    const batches = batchesAt(disk);
    assert.equal(batches.length, 4);
    const whole = Buffer.from(disk.bytes(PATH));
    const all = await readAll(rigOn(disk.copy()).open(), A);
    for (let at = 0; at < whole.length; at++) {
      const found = disk.copy();
      const bytes = found.bytes(PATH);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (at & 7)), at);
      const rig = rigOn(found);
      const store = rig.open();
      const hit = batches.filter(({ start, end }) => at >= start && at < end).map(({ ids }) => ids);
      assert.deepEqual(await damagedIds(store), hit, `byte ${at}`);
      assert.equal(store.stats().batches, 4, 'nothing vanished');
      assert.equal(rig.damage.length, hit.length);
      if (state === 'after a kill') assert.ok((rig.report?.damages.length ?? 0) > 0, `byte ${at} was not noticed`);
      assert.deepEqual(rig.report?.torn, [], `byte ${at} was taken for a torn tail`);
      assert.equal(found.size(PATH), whole.length, 'nothing was cut');
      const served = (await readAll(store, A)).filter(({ kind }) => kind === 'data');
      assert.deepEqual(
        served,
        all.filter(({ from, to }) => !hit.includes(`alpha ${from}-${to}`)),
      );
    }
  });
}

test('[S5] a directory or header that is lost together with a batch loses that group only; the scan finds the next group again', async () => {
  const { disk, ends } = await written(4);
  const [first = 0, second = 0] = ends;
  const found = disk.copy();
  found.bytes(PATH).fill(0xee, first, second);
  const rig = rigOn(found);
  assert.deepEqual(await groupsIn(rig.open()), ['group 0', 'group 2', 'group 3']);
  assert.ok(rig.report?.damages.some(({ damage }) => damage.what === 'group-header' && damage.position === first));
  assert.deepEqual(rig.report?.torn, []);
});

test('zeros in the middle of a segment are damage, not a torn tail', async () => {
  const { disk, ends } = await written(3);
  const [first = 0, second = 0, third = 0] = ends;
  const found = disk.copy();
  found.bytes(PATH).fill(0, first, second);
  const rig = rigOn(found);
  assert.deepEqual(await groupsIn(rig.open()), ['group 0', 'group 2']);
  assert.ok((rig.report?.damages.length ?? 0) > 0);
  assert.equal(found.size(PATH), third);
});

test('a body of zeros in the last group is not taken for a torn write when something else is damaged', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append([dataBatch(A, [{ body: Buffer.alloc(4096), headers: [], expirationSeconds: 0 }])]);
  await store.append([dataBatch(A, [{ body: Buffer.alloc(4096), headers: [], expirationSeconds: 0 }], { base: 2 })]);
  const found = disk.copy();
  const bytes = found.bytes(PATH);
  bytes.writeUInt8(1, bytes.length - 700);
  const rig = rigOn(found);
  const again = rig.open();
  assert.deepEqual(rig.report?.torn, []);
  assert.deepEqual(await readAll(again, A, 2), [{ kind: 'damaged', from: 2, to: 3 }]);
});

test('[S6] an old group put back over the one that replaced it is found by the chain, and its ids are damaged', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append(group(0));
  const before = disk.size(PATH);
  // The group that did not fit is cut back; what it had written is what an old sector would bring back.
  let old = Buffer.alloc(0);
  disk.partial = 1;
  disk.fault = (operation) => {
    if (operation === 'truncate') old = Buffer.from(disk.bytes(PATH).subarray(before));
    return operation === 'write' ? 'ENOSPC' : null;
  };
  await assert.rejects(store.append(group(1, 'stale!!')), { reason: 'STORE_FULL' });
  disk.fault = () => null;
  await store.append(group(1, 'group 1'));
  await store.append(group(2));
  const found = disk.copy();
  assert.ok(old.length > 0);
  old.copy(found.bytes(PATH), before);
  const rig = rigOn(found);
  const again = rig.open();
  assert.deepEqual(await groupsIn(again), ['group 0', 'group 2']);
  assert.deepEqual(await damagedIds(again), ['alpha 3-5', 'beta 2-3']);
  assert.ok(rig.report?.damages.every(({ damage }) => damage.what === 'chain'));
});

test('[S6] a chunk of another segment, whole in itself, is not read as this one', async () => {
  const { disk, ends } = await written(3);
  const other = new MemoryDisk();
  const store = rigOn(other).open();
  for (let i = 0; i < 3; i++) await store.append(group(i, `other ${i}`));
  const [first = 0, second = 0] = ends;
  for (const isSealed of [false, true]) {
    const found = disk.copy();
    if (isSealed) sealLanes(found, '/segments');
    other.bytes(PATH).copy(found.bytes(PATH), first, first, second);
    const rig = rigOn(found);
    const again = rig.open();
    assert.ok(!(await groupsIn(again)).includes('other 1'), 'not as this segment’s');
    if (!isSealed) assert.ok((rig.report?.damages.length ?? 0) > 0);
  }
});

test('[S6] the last group replaced by that of another segment costs that group, not the one before', async () => {
  const { disk, ends } = await written(3);
  const { disk: other } = await written(3);
  const [, second = 0, third = 0] = ends;
  const found = disk.copy();
  other.bytes(PATH).copy(found.bytes(PATH), second, second, third);
  const rig = rigOn(found);
  assert.deepEqual(await groupsIn(rig.open()), ['group 0', 'group 1']);
  assert.deepEqual(
    rig.report?.damages.map(({ damage }) => [damage.what, damage.position]),
    [['foreign', second]],
  );
});

test('[S5] any of the sectors of the last group lost: torn and cut, unless nothing but right zeros was lost', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append(group(0));
  const start = disk.size(PATH);
  const body = Buffer.alloc(2500, 7);
  body.fill(0, 700, 1900);
  await store.append([dataBatch(B, [{ body, headers: [], expirationSeconds: 0 }], { base: 2 })]);
  const whole = Buffer.from(disk.bytes(PATH));
  const sectors = (whole.length - start) / 512;
  assert.ok(sectors >= 5);
  for (let lost = 0; lost < 1 << sectors; lost++) {
    const found = disk.copy();
    const bytes = found.bytes(PATH);
    for (let i = 0; i < sectors; i++) if ((lost >> i) & 1) bytes.fill(0, start + i * 512, start + (i + 1) * 512);
    const isWhole = bytes.equals(whole);
    const rig = rigOn(found);
    const again = rig.open();
    assert.deepEqual(rig.report?.damages, [], `sectors ${lost.toString(2)}`);
    assert.equal(rig.report?.torn.length, isWhole ? 0 : 1);
    assert.equal(again.lookup(B, 2), isWhole ? 'data' : 'absent');
    assert.equal(found.size(PATH), isWhole ? whole.length : start);
  }
});

test('[S5] a torn group is cut also behind more damage than is told one by one', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk, { segmentBytes: 1 << 26 }).open();
  const count = 10_001;
  const bodies = Array.from({ length: count }, (_, i) => dataBatch(A, [plain('#')], { base: i + 1 }));
  await store.append(bodies);
  const end = disk.size(PATH);
  await store.append([dataBatch(A, [plain('x'.repeat(2_000))], { base: count + 1 })]);
  const found = disk.copy();
  const bytes = found.bytes(PATH);
  const offset = (bodies[0] as SealedBatch).bytes.indexOf('#');
  for (let at = bytes.indexOf((bodies[0] as SealedBatch).bytes), i = 0; i < count; i++) {
    bytes.writeUInt8(0x24, at + offset);
    at += (bodies[i] as SealedBatch).bytes.length;
  }
  bytes.fill(0, end + 1024, end + 1536);
  const rig = rigOn(found);
  const again = rig.open();
  assert.deepEqual(rig.report?.torn, [{ path: PATH, bytes: bytes.length - end }]);
  assert.equal(again.lookup(A, count), 'data', 'damaged, and it may have been acknowledged');
  assert.equal(again.lookup(A, count + 1), 'absent');
});

test('[S6] a batch swapped for another whole one of the same group is found at read and by the scan', async () => {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append([1, 2, 3].map((base) => dataBatch(A, [plain(`body ${base}`)], { base })));
  const whole = disk.bytes(PATH);
  const length = dataBatch(A, [plain('body 1')], { base: 1 }).bytes.length;
  const first = whole.indexOf(dataBatch(A, [plain('body 1')], { base: 1 }).bytes);
  for (const isSealed of [false, true]) {
    const found = disk.copy();
    if (isSealed) sealLanes(found, '/segments');
    found.bytes(PATH).copy(found.bytes(PATH), first, first + length, first + 2 * length);
    const rig = rigOn(found);
    const again = rig.open();
    assert.deepEqual(await damagedIds(again), ['alpha 1-2']);
    assert.deepEqual(await bodiesOf(again, A), ['body 2', 'body 3']);
    if (!isSealed)
      assert.deepEqual(
        rig.report?.damages.map(({ damage }) => damage.what),
        ['batch'],
        'by the scan too',
      );
  }
});

test('[S1][S3][S4] a power cut at every step of writing and rolling: what was acknowledged is there, every group is whole or absent', async () => {
  const groups = 6;
  /** Two batches, four sectors. */
  const wide = (i: number): SealedBatch[] => group(i).map((batch) => (batch.subject === B ? batch : longer(batch)));
  const longer = (batch: SealedBatch): SealedBatch =>
    dataBatch(A, [plain('x'.repeat(800)), plain('y'.repeat(700))], { base: batch.base });
  const run = async (disk: MemoryDisk): Promise<number> => {
    let acked = 0;
    // Three groups to a segment.
    const rig = rigOn(disk, { segmentBytes: 7000 });
    try {
      const store = rig.open();
      const appends = Array.from({ length: groups }, (_, i) => store.append(wide(i)).then(() => (acked += 1)));
      await Promise.all(appends);
      await store.close();
    } catch (error) {
      assert.ok(error instanceof PowerCut || (error as Error).cause instanceof PowerCut, String(error));
    }
    return acked;
  };
  const whole = new MemoryDisk();
  assert.equal(await run(whole), groups);
  assert.ok(whole.list('/segments/lane-000').includes('00000002.idx'));
  for (let cutAt = 1; cutAt <= whole.operations; cutAt++) {
    const disk = new MemoryDisk();
    disk.cutAt = cutAt;
    const acked = await run(disk);
    for (let seed = 0; seed < 12; seed++) {
      const found = disk.afterCut(seed * 1000 + cutAt);
      const rig = rigOn(found);
      const store = rig.open();
      const names = Array.from({ length: groups }, (_, i) => `group ${i}`);
      const survived = await groupsIn(store);
      assert.ok(
        survived.length >= acked,
        `cut at ${cutAt}, seed ${seed}: ${acked} acknowledged, ${survived.length} found`,
      );
      assert.deepEqual(survived, names.slice(0, survived.length));
      assert.equal((await bodiesOf(store, A)).length, survived.length * 2, 'groups are whole');
      assert.deepEqual(rig.report?.damages, [], `cut at ${cutAt}, seed ${seed}`);
      await store.append(group(survived.length));
      await store.close();
      const last = rigOn(found);
      assert.equal((await groupsIn(last.open())).length, survived.length + 1);
    }
  }
});

/** A sealed segment whose last group, of ids 2 to 5, was cut in its third batch. */
async function cutBehindItsSeal(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const store = rigOn(disk).open();
  await store.append([dataBatch(A, [plain('1')], { base: 1 })]);
  const last = [2, 3, 4, 5].map((base) => dataBatch(A, [plain(`${base} ${'x'.repeat(600)}`)], { base }));
  await store.append(last);
  await store.close();
  const found = disk.copy();
  found.put(PATH, found.bytes(PATH).subarray(0, found.bytes(PATH).indexOf(last[2]?.bytes as Buffer) + 100));
  return found;
}

/** What a start serves of it, and whether it told of the damage. */
async function servedOf(disk: MemoryDisk): Promise<string> {
  const rig = rigOn(disk);
  const store = rig.open();
  const items = await readAll(store, A);
  await store.close();
  return items.map(({ kind, from }) => `${kind} ${from}`).join(', ');
}

const CUT_SERVED = 'data 1, data 2, data 3, damaged 4, damaged 5';

test('[S9] a sealed segment that was cut loses what is gone and no more, also if the power goes out as that is found', async () => {
  const whole = await cutBehindItsSeal();
  const probe = whole.copy();
  sealLanes(probe, '/segments');
  for (let cutAt = 1; cutAt <= probe.operations; cutAt++) {
    const disk = whole.copy();
    disk.cutAt = cutAt;
    assert.throws(() => sealLanes(disk, '/segments'), PowerCut);
    for (let seed = 0; seed < 12; seed++) {
      const found = disk.afterCut(seed * 1000 + cutAt);
      assert.equal(await servedOf(found), CUT_SERVED, `power cut at ${cutAt}, seed ${seed}`);
    }
  }
});

test('[S9] a sealed segment that was cut loses no more where there is no space for a new index of it', async () => {
  const disk = await cutBehindItsSeal();
  disk.fault = (operation) => (operation === 'write' || operation === 'create' ? 'ENOSPC' : null);
  assert.equal(await servedOf(disk), CUT_SERVED);
  disk.fault = () => null;
  assert.equal(await servedOf(disk), CUT_SERVED);
  assert.equal(await servedOf(disk), CUT_SERVED);
});

test('[S3] bytes that are written during a fdatasync are not acknowledged by it', async () => {
  const disk = new MemoryDisk();
  const releases: (() => void)[] = [];
  const store = rigOn(disk).open();
  await store.append(group(0));
  disk.gate = (operation) =>
    operation === 'sync' ? new Promise((resolve) => releases.push(resolve)) : Promise.resolve();
  const acked: number[] = [];
  const first = store.append(group(1)).then(() => acked.push(1));
  await settle();
  const second = store.append(group(2)).then(() => acked.push(2));
  await settle();
  assert.equal(releases.length, 1, 'the second group waits for the first to be durable');
  releases.shift()?.();
  await first;
  await settle();
  assert.deepEqual(acked, [1]);
  assert.deepEqual(await groupsIn(store), ['group 0', 'group 1'], 'and it is not visible');
  const cut = rigOn(disk.afterCut(1)).open();
  assert.ok((await groupsIn(cut)).length >= 2);
  releases.shift()?.();
  await second;
  assert.deepEqual(acked, [1, 2]);
});

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

test('random groups, kills and power cuts: the store keeps exactly what a model keeps', async () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('append' as const), batches: fc.integer({ min: 1, max: 4 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('reopen' as const, 'kill' as const, 'full' as const) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), fc.nat(), async (steps, seed) => {
      const random = new Prng(seed);
      let disk = new MemoryDisk();
      let rig = rigOn(disk, { segmentBytes: 3000, cacheBytes: 4096 });
      let store: EmbeddedStore = rig.open();
      const expected: string[] = [];
      let next = 1;
      for (const one of steps) {
        if (one.kind === 'append' || one.kind === 'full') {
          const batches: SealedBatch[] = [];
          for (let i = 0; i < ('batches' in one ? one.batches : 2); i++) {
            const count = 1 + random.nextBelow(3);
            const size = random.nextBelow(600);
            if (random.chance(1, 5)) batches.push(voidBatch(A, next, count));
            else
              batches.push(
                dataBatch(
                  A,
                  Array.from({ length: count }, () => plain('x'.repeat(size))),
                  { base: next },
                ),
              );
            next += count;
          }
          disk.partial = random.nextBelow(101) / 100;
          disk.fault = (operation) => (one.kind === 'full' && operation === 'write' ? 'ENOSPC' : null);
          const outcome = await store.append(batches).then(
            () => 'acknowledged',
            (error: { reason: string }) => error.reason,
          );
          disk.fault = () => null;
          assert.equal(outcome, one.kind === 'full' ? 'STORE_FULL' : 'acknowledged');
          if (one.kind === 'append')
            expected.push(...batches.map(({ kind, base, count }) => `${kind} ${base}+${count}`));
          continue;
        }
        if (one.kind === 'reopen') await store.close();
        else disk = random.chance(1, 2) ? disk.copy() : disk.afterCut(seed);
        rig = rigOn(disk, { segmentBytes: 3000, cacheBytes: 4096 });
        store = rig.open();
        assert.deepEqual(rig.report?.damages, []);
      }
      const found = (await readAll(store, A)).map(({ kind, from, to }) => `${kind} ${from}+${to - from}`);
      assert.deepEqual(found, expected);
      assert.equal(store.stats().damaged, 0);
    }),
    { numRuns: 60 },
  );
});
