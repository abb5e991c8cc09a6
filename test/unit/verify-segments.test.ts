/** The embedded store, on real files that are damaged one way after another: each damage is found, by its ids, and nothing else is. */
import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { crc32 } from '../../src/base/checksum.ts';
import { slotOfHash } from '../../src/base/subject.ts';
import type { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { SIDECAR_HEADER_BYTES } from '../../src/storage/embedded/sidecar.ts';
import type { SealedBatch } from '../../src/storage/store.ts';
import { embeddedStore } from '../../src/verify/stores.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { dataBatch, plain, subjectRef, voidBatch } from './batch-support.ts';
import { EmbeddedRig } from './embedded-rig.ts';
import { logOf, type Stands, shown, verified } from './verify-rig.ts';

const [a, b, c] = ['a.orders', 'b.orders', 'c.other'].map(subjectRef) as [
  ReturnType<typeof subjectRef>,
  ReturnType<typeof subjectRef>,
  ReturnType<typeof subjectRef>,
];

/** Two sealed segments with the ids of three subjects, voids among them. */
const LOG: Readonly<Record<string, Stands>> = {
  'a.orders': { settled: 9 },
  'b.orders': { settled: 5 },
  'c.other': { settled: 3 },
};

const messages = (count: number, text: string) => Array.from({ length: count }, (_, i) => plain(`${text}${i}`));

async function sealed(folder: string, groups: readonly (readonly SealedBatch[])[]): Promise<EmbeddedRig> {
  const rig = new EmbeddedRig(folder);
  for (const group of groups) {
    const store = rig.open();
    await store.append(group);
    await store.close();
  }
  return rig;
}

async function whole(t: TestContext): Promise<EmbeddedRig> {
  return await sealed(temporaryFolder(t), [
    [
      dataBatch(a, messages(4, 'first-of-a-'), { base: 1 }),
      dataBatch(b, messages(2, 'first-of-b-'), { base: 1 }),
      voidBatch(c, 1, 3),
    ],
    [dataBatch(a, messages(5, 'second-of-a-'), { base: 5 }), dataBatch(b, messages(3, 'second-of-b-'), { base: 3 })],
  ]);
}

const look = (rig: EmbeddedRig, log = logOf(LOG), prefix = '') =>
  verified(log, (tally, pace) => embeddedStore(rig.directory, tally, pace), { prefix });

function laneFile(rig: EmbeddedRig, name: string): string {
  return join(rig.directory, 'lane-000', name);
}

function flip(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = (bytes[offset] as number) ^ 0x10;
  writeFileSync(path, bytes);
}

const BATCH_MAGIC = 'BRB1';

test('verify finds nothing in a whole store, and counts what is in it', async (t) => {
  const rig = await whole(t);
  const { findings, last } = await look(rig);
  assert.deepEqual(findings, []);
  assert.deepEqual([last.subjectsDone, last.subjectsTotal, last.batches, last.messages, last.voids], [3, 3, 4, 14, 3]);
  const sizes = ['00000001.seg', '00000002.seg'].map((name) => statSync(laneFile(rig, name)).size);
  assert.equal(last.bytes, (sizes[0] as number) + (sizes[1] as number));
});

test('verify: a byte of a body, of a header, of an index, each by its ids or its file', async (t) => {
  const rig = await whole(t);
  const original = join(rig.directory, '..', 'original');
  cpSync(rig.directory, original, { recursive: true });
  const restore = (): void => {
    rmSync(rig.directory, { recursive: true });
    cpSync(original, rig.directory, { recursive: true });
  };
  const segment = laneFile(rig, '00000002.seg');
  const bytes = readFileSync(segment);
  const body = bytes.indexOf('second-of-b-');
  assert.ok(body > 0);
  flip(segment, body);
  assert.deepEqual(shown((await look(rig)).findings), ['damaged b.orders 3-5']);
  restore();

  const header = bytes.subarray(0, bytes.indexOf('second-of-a-')).lastIndexOf(BATCH_MAGIC);
  assert.ok(header > 0);
  // Its base: with it the header's checksum.
  flip(segment, header + 24);
  assert.deepEqual(shown((await look(rig)).findings), ['damaged a.orders 5-9']);
  restore();

  const index = laneFile(rig, '00000002.idx');
  flip(index, statSync(index).size - 5);
  const found = (await look(rig)).findings;
  assert.deepEqual(shown(found), ['damaged  0-0']);
  assert.match(found[0]?.detail ?? '', /^lane-000\/00000002\.idx: the index fails its checksums/);
  restore();

  // Another segment's good index.
  cpSync(laneFile(rig, '00000001.idx'), index);
  const foreign = (await look(rig)).findings;
  assert.deepEqual(shown(foreign), ['damaged  0-0']);
  assert.match(foreign[0]?.detail ?? '', /00000002\.idx: the index is of another segment/);
});

test('verify: an index that says something else than the content is named, with whole checksums', async (t) => {
  const rig = await whole(t);
  const folder = temporaryFolder(t);
  const others = await sealed(folder, [
    [
      dataBatch(a, messages(4, 'first-of-a-'), { base: 1 }),
      dataBatch(b, messages(2, 'other-of-b-'), { base: 1 }),
      voidBatch(c, 1, 3),
    ],
  ]);
  cpSync(laneFile(others, '00000001.idx'), laneFile(rig, '00000001.idx'));
  const { findings } = await look(rig);
  assert.deepEqual(shown(findings), ['damaged  0-0']);
  assert.match(findings[0]?.detail ?? '', /00000001\.idx: the index and the content differ, as of subject b\.orders/);
});

test('verify: the index of a segment whose subject went to another shard and came back meanwhile is right', async (t) => {
  const rig = new EmbeddedRig(temporaryFolder(t));
  const store = rig.open();
  const away = rig.openOnly({ lane: 1 });
  const move = (from: EmbeddedStore, to: EmbeddedStore): void => {
    const slot = slotOfHash(a.hash);
    to.importSlot(slot, structuredClone(from.exportSlot(slot)));
  };
  await store.append([
    dataBatch(a, messages(4, 'first-of-a-'), { base: 1 }),
    dataBatch(b, messages(5, 'b-'), { base: 1 }),
  ]);
  move(store, away);
  move(away, store);
  await store.append([dataBatch(a, messages(5, 'second-of-a-'), { base: 5 }), voidBatch(c, 1, 3)]);
  await store.close();
  await away.close();
  assert.deepEqual((await look(rig)).findings, []);

  // Its entries are in two places, and each of them counts: the check of the first, with right checksums around it.
  const index = laneFile(rig, '00000001.idx');
  const bytes = readFileSync(index);
  const first = bytes.indexOf('a.orders') + 'a.orders'.length;
  const entry = Math.ceil(first / 8) * 8;
  bytes.writeUInt32LE((bytes.readUInt32LE(entry + 12) ^ (1 << 20)) >>> 0, entry + 12);
  bytes.writeUInt32LE(crc32(bytes.subarray(SIDECAR_HEADER_BYTES)), 72);
  bytes.writeUInt32LE(crc32(bytes.subarray(8, SIDECAR_HEADER_BYTES)), 4);
  writeFileSync(index, bytes);
  const { findings } = await look(rig);
  assert.match(findings[0]?.detail ?? '', /00000001\.idx: the index and the content differ, as of subject a\.orders/);
});

test('verify: whichever byte of a segment is flipped (every seventh here), something is found, and never of a subject that it is not in', async (t) => {
  const rig = await whole(t);
  const segment = laneFile(rig, '00000002.seg');
  const { size } = statSync(segment);
  for (let offset = 0; offset < size; offset += 7) {
    flip(segment, offset);
    const { findings } = await look(rig);
    assert.ok(findings.length > 0, `byte ${offset} of ${size}`);
    const wrong = findings.filter(({ subject, firstId }) => !isOfSecond(subject, firstId));
    assert.deepEqual(wrong, [], `byte ${offset}`);
    flip(segment, offset);
  }
  assert.deepEqual((await look(rig)).findings, []);
});

function isOfSecond(subject: string, firstId: number): boolean {
  return subject === '' || (subject === 'a.orders' && firstId === 5) || (subject === 'b.orders' && firstId === 3);
}

test('verify: segments that are cut or gone, by the ids that were in them', async (t) => {
  const rig = await whole(t);
  const segment = laneFile(rig, '00000002.seg');
  const bytes = readFileSync(segment);
  truncateSync(segment, bytes.length - 512);
  const cut = (await look(rig)).findings;
  assert.deepEqual(
    shown(cut).filter((line) => !line.includes('  ')),
    ['missing a.orders 5-9', 'missing b.orders 3-5'],
  );
  assert.ok(cut.some(({ subject, detail }) => subject === '' && detail.includes('00000002')));
  rmSync(segment);
  assert.deepEqual(shown((await look(rig)).findings), ['missing a.orders 5-9', 'missing b.orders 3-5']);
  // What the log has given up meanwhile is no finding; nor where messages expire.
  const later = { 'a.orders': { first: 10, settled: 9 }, 'b.orders': { settled: 5, everExpires: true } };
  assert.deepEqual((await look(rig, logOf(LOG, later))).findings, []);
  const half = { 'a.orders': { first: 8, settled: 9 }, 'b.orders': { settled: 5, voidFrom: 4, voidTo: 5 } };
  assert.deepEqual(shown((await look(rig, logOf(LOG, half))).findings), [
    'missing a.orders 8-9',
    'missing b.orders 3-3',
  ]);
});

test('verify: ids that two batches have, ids beyond the head, subjects that the log does not know', async (t) => {
  const rig = await whole(t);
  const store = rig.open();
  await store.append([
    // Other batches with ids that are given to a batch already.
    dataBatch(a, messages(2, 'again'), { base: 3 }),
    dataBatch(b, messages(2, 'beyond'), { base: 8 }),
    dataBatch(subjectRef('d.unknown'), messages(1, 'x'), { base: 4 }),
  ]);
  await store.close();
  const { findings } = await look(rig);
  assert.deepEqual(shown(findings), ['beyond-head b.orders 8-9', 'beyond-head d.unknown 4-4', 'twice a.orders 3-4']);
  const some = await look(rig, logOf(LOG), 'b.');
  assert.deepEqual(shown(some.findings), ['beyond-head b.orders 8-9']);
  assert.equal(some.last.subjectsDone, 1);
  // Given since: the log is asked after the store was read.
  const grown = { 'b.orders': { settled: 5, head: 9 }, 'd.unknown': { settled: 0, head: 4 } };
  assert.deepEqual(shown((await look(rig, logOf(LOG, grown))).findings), ['twice a.orders 3-4']);
});

test('verify: one key with two contents in two segments', async (t) => {
  const rig = await whole(t);
  const elsewhere = await sealed(temporaryFolder(t), [
    [dataBatch(a, messages(1, 'x'), { base: 1 })],
    [dataBatch(a, messages(1, 'x'), { base: 2 })],
    [dataBatch(b, messages(2, 'not-of-b-'), { base: 1 })],
  ]);
  for (const name of readdirSync(join(elsewhere.directory, 'lane-000'))) {
    if (name.startsWith('00000003')) cpSync(laneFile(elsewhere, name), laneFile(rig, name));
  }
  assert.deepEqual(shown((await look(rig)).findings), ['twice b.orders 1-2']);
});

test('verify: a void mark in the place of its batch is right', async (t) => {
  const rig = await whole(t);
  const store = rig.open();
  await store.append([voidBatch(a, 5, 5)]);
  await store.close();
  // Lanes are read in their order: of this batch the mark is met first, as when its slot was another shard's.
  const elsewhere = new EmbeddedRig(temporaryFolder(t), { lane: 1 });
  const late = elsewhere.open();
  await late.append([dataBatch(c, messages(3, 'late'), { base: 1 })]);
  await late.close();
  cpSync(join(elsewhere.directory, 'lane-001'), join(rig.directory, 'lane-001'), { recursive: true });
  const { findings, last } = await look(rig);
  assert.deepEqual(findings, []);
  assert.deepEqual([last.messages, last.voids], [9, 8]);
});

test('verify: a lane that is being written, with an end that is torn and no index', async (t) => {
  const rig = await whole(t);
  const store = rig.open();
  await store.append([dataBatch(c, messages(2, 'open'), { base: 4 })]);
  const log = logOf({ ...LOG, 'c.other': { settled: 5 } });
  assert.deepEqual((await look(rig, log)).findings, []);
  const segment = laneFile(rig, '00000003.seg');
  const written = readFileSync(segment);
  // As a write looks that is on its way: a group that runs past the end.
  writeFileSync(segment, Buffer.concat([written, written.subarray(512, 512 + 256)]));
  assert.deepEqual((await look(rig, log)).findings, []);
  writeFileSync(segment, written);
  await store.close();
});

test('verify: where the index of all batches is too much for memory at once, the slots come one after another', async (t) => {
  const names = Array.from({ length: 40 }, (_, i) => `s.${i}`);
  const rig = await sealed(temporaryFolder(t), [
    names.map((name) => dataBatch(subjectRef(name), messages(2, name), { base: 1 })),
    names.map((name) => dataBatch(subjectRef(name), messages(2, name), { base: 3 })),
  ]);
  const stands = Object.fromEntries(names.map((name) => [name, { settled: 4 }]));
  // Ids of one subject that are not there, one subject that the log does not know.
  const log = (): ReturnType<typeof logOf> => {
    const { 's.7': _unknown, ...rest } = stands;
    return logOf({ ...rest, 's.12': { settled: 9 } });
  };
  for (const batchesAtOnce of [1_000, 20, 7]) {
    const { findings, last } = await verified(log(), (tally, pace) =>
      embeddedStore(rig.directory, tally, pace, batchesAtOnce),
    );
    assert.deepEqual(shown(findings), ['beyond-head s.7 1-2', 'beyond-head s.7 3-4', 'missing s.12 5-9']);
    assert.deepEqual([last.subjectsDone, last.batches], [39, 78]);
  }
});
