/** Snapshots of the Raft log: published whole or not at all, with an older one to fall back to. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { armFailpoints } from '../../src/base/failpoint.ts';
import { DiskError, DiskFull, NodeDisk } from '../../src/storage/disk.ts';
import type { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { SnapshotDamaged, SnapshotReader } from '../../src/storage/raft-wal/snapshot-file.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { DAMAGED, entry, openWal, outcome, patch } from './raft-wal-support.ts';

const META = Buffer.from('members: a');

async function snapshot(
  wal: RaftWal,
  index: number,
  origin: 'local' | 'installed' = 'local',
  chunks = 3,
): Promise<string> {
  const writer = wal.beginSnapshot({ index, term: 1, meta: META });
  for (let i = 0; i < chunks; i++) writer.write(Buffer.from(`chunk ${i} of the state at ${index}`));
  return (await writer.finish(origin)).path;
}

function readAll(wal: RaftWal): string[] {
  const texts: string[] = [];
  for (const chunk of wal.readSnapshot()?.chunks() ?? []) texts.push(Buffer.from(chunk).toString());
  return texts;
}

function fill(wal: RaftWal, from: number, to: number): void {
  for (let i = from; i <= to; i++) wal.append([entry(i, 100)], { term: 1, vote: '', commit: i });
  wal.sync();
}

test('a snapshot comes back chunk by chunk, and the log after it', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  assert.equal(wal.readSnapshot(), null);
  fill(wal, 1, 10);
  await snapshot(wal, 8);
  fill(wal, 11, 12);
  wal.close();
  const again = openWal(dir);
  assert.equal(again.state.snapshot?.index, 8);
  assert.deepEqual(Buffer.from(again.state.snapshot?.meta ?? []), META);
  assert.deepEqual(
    again.state.entries.map((one) => one.index),
    [9, 10, 11, 12],
  );
  assert.deepEqual(
    readAll(again.wal),
    [0, 1, 2].map((i) => `chunk ${i} of the state at 8`),
  );
  again.wal.close();
});

test('appends go on between the slices of a snapshot', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  fill(wal, 1, 4);
  const writer = wal.beginSnapshot({ index: 4, term: 1, meta: META });
  for (let i = 5; i <= 40; i++) {
    writer.write(Buffer.alloc(3000, i));
    fill(wal, i, i);
    if (i % 10 === 0) await writer.flush();
  }
  assert.throws(() => wal.beginSnapshot({ index: 5, term: 1, meta: META }), /under way/);
  const finished = writer.finish('local');
  fill(wal, 41, 44);
  await finished;
  fill(wal, 45, 45);
  wal.close();
  const again = openWal(dir);
  assert.equal(again.state.snapshot?.index, 4);
  assert.equal(again.state.entries.length, 41);
  assert.equal([...(again.wal.readSnapshot()?.chunks() ?? [])].length, 36);
  again.wal.close();
});

test('an installed snapshot replaces the entries of the log, at a higher and at a lower index', async (t) => {
  const folder = temporaryFolder(t);
  for (const index of [100, 6]) {
    const dir = join(folder, `at-${index}`);
    const first = openWal(dir);
    for (let i = 1; i <= 10; i++) first.wal.append([entry(i)], { term: 1, vote: '', commit: Math.min(i, 2) });
    await snapshot(first.wal, index, 'installed');
    assert.equal(first.wal.lastIndex, index);
    first.wal.close();
    const { wal, state } = openWal(dir);
    assert.deepEqual(state.entries, []);
    assert.equal(wal.lastIndex, index);
    wal.append([entry(index + 1, 'new', 2)], { term: 2, vote: '', commit: index });
    wal.sync();
    wal.close();
    const again = openWal(dir);
    assert.equal(again.state.snapshot?.index, index);
    assert.deepEqual(
      again.state.entries.map((one) => `${one.index}@${one.term}`),
      [`${index + 1}@2`],
    );
    again.wal.close();
  }
});

test('[R3] vote, commit and both snapshots outlive the segments in which they were written', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const options = { segmentBytes: 2048 };
  const { wal } = openWal(dir, options);
  const hardState = { term: 7, vote: 'somebody', commit: 30 };
  fill(wal, 1, 30);
  wal.append([], hardState);
  for (let i = 31; i <= 70; i++) wal.append([entry(i, 300)], null);
  await snapshot(wal, 70);
  // The first one begins a segment: the pointer to 70 is the last record of the one before, which is dropped below.
  for (let i = 71; i <= 80; i++) wal.append([entry(i, 2000)], null);
  const newest = await snapshot(wal, 80);
  wal.close();
  const oldest = readdirSync(dir).find((name) => name.endsWith('.log')) as string;
  assert.equal(Number(oldest.slice(4, 20)), 71);
  patch(newest, (bytes) => bytes.subarray(0, 50));
  const again = openWal(dir, options);
  assert.deepEqual(again.state.hardState, hardState);
  assert.equal(again.state.snapshot?.index, 70);
  assert.deepEqual(
    again.state.entries.map((one) => one.index),
    [71, 72, 73, 74, 75, 76, 77, 78, 79, 80],
  );
  again.wal.close();
});

test('[S5] a flipped bit in any byte of a snapshot, or a cut at any byte, is detected', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  fill(wal, 1, 3);
  const path = await snapshot(wal, 3, 'local', 2);
  wal.close();
  const good = readFileSync(path);
  const isWhole = (): boolean => {
    let reader: SnapshotReader | null = null;
    try {
      reader = new SnapshotReader(new NodeDisk(), path);
      while (reader.nextChunk() !== null);
      return true;
    } catch (error) {
      assert.ok(error instanceof SnapshotDamaged, String(error));
      return false;
    } finally {
      reader?.close();
    }
  };
  assert.ok(isWhole());
  for (let at = 0; at < good.length; at++) {
    const bad = Buffer.from(good);
    bad[at] = (bad[at] as number) ^ 0x20;
    writeFileSync(path, bad);
    assert.ok(!isWhole(), `byte ${at}`);
    writeFileSync(path, good.subarray(0, at));
    assert.ok(!isWhole(), `cut at ${at}`);
  }
  writeFileSync(path, Buffer.concat([good, Buffer.alloc(1)]));
  assert.ok(!isWhole(), 'a byte too many');
});

test('[S6] a snapshot made of chunks of two snapshots of one state is detected', async (t) => {
  const folder = temporaryFolder(t);
  const paths: string[] = [];
  for (const name of ['a', 'b']) {
    const { wal } = openWal(join(folder, name));
    fill(wal, 1, 3);
    paths.push(await snapshot(wal, 3));
    wal.close();
  }
  const [mine, other] = paths as [string, string];
  patch(mine, (bytes) => {
    readFileSync(other).copy(bytes, 60, 60, 100);
    return bytes;
  });
  assert.throws(() => {
    const reader = new SnapshotReader(new NodeDisk(), mine);
    while (reader.nextChunk() !== null);
  }, SnapshotDamaged);
});

test('a damaged newest snapshot falls back to the one before, is put in quarantine, and stays there', async (t) => {
  const folder = temporaryFolder(t);
  const dir = join(folder, 'raft');
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  fill(wal, 1, 30);
  await snapshot(wal, 20);
  fill(wal, 31, 60);
  const path = await snapshot(wal, 50);
  wal.close();
  patch(path, (bytes) => {
    bytes[60] = (bytes[60] as number) ^ 1;
    return bytes;
  });
  for (let round = 0; round < 2; round++) {
    const { wal, state, report } = openWal(dir, { segmentBytes: 2048 });
    assert.equal(state.snapshot?.index, 20);
    assert.deepEqual(
      state.entries.map((one) => one.index),
      Array.from({ length: 40 }, (_, i) => 21 + i),
    );
    assert.equal(report.damagedSnapshots.length, 1);
    assert.equal(report.quarantined.length, round === 0 ? 1 : 0);
    assert.deepEqual(readAll(wal).length, 3);
    wal.close();
  }
  assert.equal(readdirSync(join(dir, 'quarantine')).length, 1);
  // The next snapshot of the same place is no obstacle, and the log reaches back no further than the good ones afterwards.
  const again = openWal(dir, { segmentBytes: 2048 });
  await snapshot(again.wal, 50);
  fill(again.wal, 61, 70);
  again.wal.close();
  assert.equal((outcome(dir) as string[]).length, 20);
});

test('without a whole snapshot that the log reaches back to the node halts and changes nothing', async (t) => {
  const folder = temporaryFolder(t);
  const [dir, copy] = [join(folder, 'raft'), join(folder, 'copy')];
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  fill(wal, 1, 60);
  for (const index of [20, 40]) await snapshot(wal, index);
  fill(wal, 61, 80);
  wal.close();
  const snapshots = readdirSync(dir).filter((name) => name.endsWith('.snap'));
  assert.equal(snapshots.length, 2);
  const damages: [string, (path: string) => void][] = [
    ['cut short', (path) => truncateSync(path, 50)],
    ['missing', (path) => rmSync(path)],
    ['emptied', (path) => truncateSync(path, 0)],
  ];
  for (const [what, damage] of damages) {
    rmSync(copy, { recursive: true, force: true });
    cpSync(dir, copy, { recursive: true });
    for (const name of snapshots) damage(join(copy, name));
    const before = readdirSync(copy);
    assert.equal(outcome(copy), DAMAGED, what);
    assert.deepEqual(readdirSync(copy), before);
  }
  // An older snapshot of another log under the right name is not the one that is pointed at.
  const other = openWal(join(folder, 'other'));
  fill(other.wal, 1, 60);
  for (const index of [20, 40]) await snapshot(other.wal, index);
  other.wal.close();
  for (const name of snapshots) cpSync(join(folder, 'other', name), join(dir, name));
  assert.equal(outcome(dir), DAMAGED);
});

test('a log and no snapshot file at all, never dropped, starts from its first entry', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  fill(wal, 1, 10);
  rmSync(await snapshot(wal, 8));
  wal.close();
  const { wal: again, state } = openWal(dir);
  assert.equal(state.snapshot, null);
  assert.equal(state.entries.length, 10);
  again.close();
});

for (const site of [
  'snap.write=throw@2',
  'snap.sync=throw',
  'snap.durable=throw',
  'disk.renamed=throw',
  'snap.named=throw',
]) {
  test(`a snapshot that is cut off at ${site} leaves the log as it was, and the next one works`, async (t) => {
    const dir = join(temporaryFolder(t), 'raft');
    const { wal } = openWal(dir);
    fill(wal, 1, 10);
    armFailpoints(site);
    try {
      await assert.rejects(async () => snapshot(wal, 8));
    } finally {
      armFailpoints('');
    }
    // As a killed process leaves it: not closed.
    const again = openWal(dir);
    assert.equal(again.state.snapshot, null);
    assert.equal(again.state.entries.length, 10);
    await snapshot(again.wal, 8);
    again.wal.close();
    assert.deepEqual((outcome(dir) as string[]).length, 2);
    if (site === 'snap.named=throw' || site === 'disk.renamed=throw') {
      assert.equal(
        readdirSync(join(dir, 'quarantine')).length,
        1,
        'what nothing pointed at was moved, not overwritten',
      );
    }
  });
}

test('[S8] a full disk in the middle of a snapshot or of its pointer is survived by writing again', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  fill(wal, 1, 10);
  const writer = wal.beginSnapshot({ index: 9, term: 1, meta: META });
  try {
    armFailpoints('snap.write=enospc@1,wal.write=enospc@1');
    assert.throws(() => writer.write(Buffer.from('state')), DiskFull);
    writer.write(Buffer.from('state'));
    await assert.rejects(writer.finish('local'), DiskFull);
    await writer.finish('local');
  } finally {
    armFailpoints('');
  }
  wal.close();
  const again = openWal(dir);
  assert.equal(again.state.snapshot?.index, 9);
  assert.deepEqual(readAll(again.wal), ['state']);
  again.wal.close();
});

test('[S8] a snapshot that is given up because the disk had no space for its pointer takes no space either', async (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir);
  fill(wal, 1, 10);
  await snapshot(wal, 5);
  const before = readdirSync(dir);
  const writer = wal.beginSnapshot({ index: 9, term: 1, meta: META });
  try {
    armFailpoints('wal.write=enospc@1');
    writer.write(Buffer.from('state'));
    await assert.rejects(writer.finish('local'), DiskFull);
  } finally {
    armFailpoints('');
  }
  writer.abort();
  assert.deepEqual(readdirSync(dir), before);
  await snapshot(wal, 9);
  wal.close();
  assert.equal(openWal(dir).state.snapshot?.index, 9);
});

test('the reserve is there, can be given up once, and is taken back', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const options = { reserveBytes: 300_000 };
  const { wal } = openWal(dir, options);
  assert.equal(wal.holdsReserve, true);
  assert.equal(readFileSync(join(dir, 'reserve')).length, 300_000);
  assert.equal(wal.releaseReserve(), true);
  assert.equal(existsSync(join(dir, 'reserve')), false);
  assert.equal(wal.releaseReserve(), false);
  armFailpoints('reserve.write=enospc@2');
  assert.equal(wal.restoreReserve(), false);
  armFailpoints('');
  assert.equal(existsSync(join(dir, 'reserve')), false, 'a part of a reserve is worth nothing');
  assert.equal(wal.restoreReserve(), true);
  wal.close();
  assert.equal(openWal(dir, options).wal.holdsReserve, true);
});

test('[S8] a full disk in an append leaves the log as it was: the same append, or another, follows', (t) => {
  const folder = temporaryFolder(t);
  for (const [site, retried] of [
    ['wal.write=enospc@1', 'same'],
    ['wal.written=enospc@1', 'same'],
    ['wal.written=enospc@1', 'other'],
  ] as const) {
    const dir = join(folder, `${site.slice(0, 11)}-${retried}`);
    const { wal } = openWal(dir, { preallocateBytes: 0 });
    fill(wal, 1, 3);
    const hard = { term: 1, vote: '', commit: 3 };
    armFailpoints(site);
    assert.throws(() => wal.append([entry(4, 2000)], hard), DiskFull);
    armFailpoints('');
    assert.equal(wal.lastIndex, 3);
    wal.append([entry(4, retried === 'same' ? 2000 : 10)], hard);
    wal.append([entry(5, 10)], hard);
    wal.sync();
    wal.close();
    assert.equal(outcome(dir).length, 5);
  }
});

for (const site of ['wal.write=eio@1', 'wal.written=throw@1', 'wal.sync=eio@1', 'wal-roll.sync=eio@1']) {
  test(`[S2] after ${site} the log takes nothing more, though the disk would`, (t) => {
    const dir = join(temporaryFolder(t), 'raft');
    const { wal } = openWal(dir, { segmentBytes: 2048 });
    fill(wal, 1, 3);
    armFailpoints(site);
    let first: unknown;
    assert.throws(
      () => fill(wal, wal.lastIndex + 1, 40),
      (error) => {
        first = error;
        return error instanceof DiskError && !(error instanceof DiskFull);
      },
    );
    armFailpoints('');
    const isSame = (error: unknown): boolean => error === first;
    assert.throws(() => fill(wal, wal.lastIndex + 1, 40), isSame);
    assert.throws(() => wal.sync(), isSame);
  });
}

test('[S8] a full disk in a segment roll leaves the old segment in use', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  let index = 0;
  armFailpoints('wal-roll.write=enospc@1');
  assert.throws(() => {
    for (;;) wal.append([entry(index + 1, 300)], { term: 1, vote: '', commit: index++ });
  }, DiskFull);
  armFailpoints('');
  fill(wal, wal.lastIndex + 1, 20);
  wal.close();
  assert.equal(outcome(dir).length, 20);
});
