/** Torn writes, damage and old data on the disk: what recovery cuts, and what it refuses. */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { temporaryFolder } from '../support/temporary.ts';
import { DAMAGED, entry, newestSegment, openWal, outcome, patch, plain, segmentNames } from './raft-wal-support.ts';

const SECTOR = 512;

/** A log of synced appends of one entry each; returns where each record begins, and the end. */
function writeLog(dir: string, sizes: readonly number[], preallocateBytes = 0): number[] {
  const { wal } = openWal(dir, { preallocateBytes: 0 });
  const starts: number[] = [];
  sizes.forEach((bytes, i) => {
    starts.push(statSync(newestSegment(dir)).size);
    wal.append([entry(i + 1, bytes)], { term: 1, vote: 'a', commit: i });
    wal.sync();
  });
  wal.close();
  const end = statSync(newestSegment(dir)).size;
  if (preallocateBytes > 0)
    patch(newestSegment(dir), (bytes) => Buffer.concat([bytes, Buffer.alloc(preallocateBytes)]));
  return [...starts, end];
}

function expected(count: number, bytes: number): string[] {
  return plain(Array.from({ length: count }, (_, i) => entry(i + 1, bytes)));
}

for (const tail of [0, 4096]) {
  test(`[S5] a flipped bit in any byte of a log of 3 records is refused, ${tail} bytes of zeros behind it`, (t) => {
    const dir = join(temporaryFolder(t), 'raft');
    const ends = writeLog(dir, [40, 40, 40], tail);
    const path = newestSegment(dir);
    const good = readFileSync(path);
    const end = ends.at(-1) as number;
    for (let at = 0; at < end; at++) {
      for (const bit of [0, 7]) {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] as number) ^ (1 << bit);
        writeFileSync(path, bad);
        assert.equal(outcome(dir), DAMAGED, `byte ${at} bit ${bit}`);
        assert.deepEqual(readFileSync(path), bad, 'a refused log is left as it is');
      }
    }
    writeFileSync(path, good);
    assert.deepEqual(outcome(dir), expected(3, 40));
  });
}

test('[S5] a flipped bit in a record of 3 sectors is refused, the last record included', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [1500], 4096);
  const path = newestSegment(dir);
  const good = readFileSync(path);
  for (let at = ends[0] as number; at < (ends[1] as number); at += 7) {
    const bad = Buffer.from(good);
    bad[at] = (bad[at] as number) ^ 0x10;
    writeFileSync(path, bad);
    assert.equal(outcome(dir), DAMAGED, `byte ${at}`);
  }
});

test('[S5] 4 KiB of zeros end the log, and it goes on there', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  writeLog(dir, [40, 40, 40], 4096);
  const { wal, report } = openWal(dir);
  assert.equal(report.cut, null);
  wal.append([entry(4, 40)], null);
  wal.sync();
  wal.close();
  assert.deepEqual(outcome(dir), expected(4, 40));
});

test('[R24] a log that ends at any byte of its last record loses that record only', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [700, 700, 700]);
  const path = newestSegment(dir);
  const good = readFileSync(path);
  for (let size = ends[2] as number; size <= (ends[3] as number); size += 1) {
    writeFileSync(path, good.subarray(0, size));
    const whole = size === ends[3];
    assert.deepEqual(outcome(dir), expected(whole ? 3 : 2, 700), `cut at ${size}`);
  }
});

test('[R24] a last record of which any one sector never came to the disk is cut, and the log goes on', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [700, 700, 1800], 4096);
  const path = newestSegment(dir);
  const good = readFileSync(path);
  const [start, end] = [ends[2] as number, ends[3] as number];
  for (let sector = Math.floor(start / SECTOR); sector * SECTOR < end; sector++) {
    const torn = Buffer.from(good);
    torn.fill(0, Math.max(start, sector * SECTOR), (sector + 1) * SECTOR);
    writeFileSync(path, torn);
    const { wal, state, report } = openWal(dir, { preallocateBytes: 0 });
    assert.deepEqual(plain(state.entries), expected(2, 700), `sector ${sector}`);
    assert.equal(report.cut?.position, start);
    wal.append([entry(3, 100)], null);
    wal.sync();
    wal.close();
    assert.deepEqual(outcome(dir), [...expected(2, 700), ...plain([entry(3, 100)])]);
  }
});

test('[R24] a sector of zeros in an earlier, acknowledged record is damage and not a torn write', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [700, 1800, 700], 4096);
  const path = newestSegment(dir);
  const good = readFileSync(path);
  const [start, end] = [ends[1] as number, ends[2] as number];
  for (let sector = Math.floor(start / SECTOR); (sector + 1) * SECTOR < end; sector++) {
    const bad = Buffer.from(good);
    bad.fill(0, Math.max(start, sector * SECTOR), (sector + 1) * SECTOR);
    writeFileSync(path, bad);
    assert.equal(outcome(dir), DAMAGED, `sector ${sector}`);
  }
});

test('[R24] several appends that one power cut tore are cut from the first bad one on', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  writeLog(dir, [40], 0);
  const { wal } = openWal(dir, { preallocateBytes: 8192 });
  const start = readFileSync(newestSegment(dir)).length;
  for (let i = 2; i <= 6; i++) wal.append([entry(i, 600)], null);
  wal.close();
  patch(newestSegment(dir), (bytes) => {
    const sector = Math.ceil((start + 700) / SECTOR);
    return bytes.fill(0, sector * SECTOR, (sector + 1) * SECTOR);
  });
  assert.deepEqual(outcome(dir), [...expected(1, 40), ...plain([entry(2, 600)])]);
});

test('[S6] an old chunk of 512 to 8192 bytes that is put back is detected once the log has gone on behind it', (t) => {
  const folder = temporaryFolder(t);
  const dir = join(folder, 'raft');
  for (const chunk of [512, 4096, 8192]) {
    for (const offset of [0, chunk, 3 * chunk]) {
      rmSync(dir, { recursive: true, force: true });
      const { wal } = openWal(dir, { preallocateBytes: 64 * 1024 });
      let index = 0;
      const appendUpTo = (bytes: number): void => {
        for (let written = 0; written < bytes; written += 260) {
          index += 1;
          wal.append([entry(index, 200)], null);
          wal.sync();
        }
      };
      appendUpTo(offset + chunk / 2);
      const path = newestSegment(dir);
      const old = readFileSync(path).subarray(offset, offset + chunk);
      appendUpTo(chunk * 2);
      wal.close();
      const bytes = readFileSync(path);
      assert.notDeepEqual(bytes.subarray(offset, offset + chunk), old);
      old.copy(bytes, offset);
      writeFileSync(path, bytes);
      assert.equal(outcome(dir), DAMAGED, `chunk of ${chunk} at ${offset}`);
    }
  }
});

test('[S6] a record, a chunk and a segment of another log, all with right checksums, are refused', (t) => {
  const folder = temporaryFolder(t);
  const [mine, other] = [join(folder, 'mine'), join(folder, 'other')];
  for (const dir of [mine, other]) writeLog(dir, [400, 400, 400, 400]);
  const ends = writeLog(join(folder, 'third'), [400, 400, 400, 400]);
  const [path, from] = [newestSegment(mine), readFileSync(newestSegment(other))];
  const good = readFileSync(path);
  for (const [start, end] of [
    [ends[1] as number, ends[2] as number],
    [ends[3] as number, ends[4] as number],
    [0, SECTOR],
    [SECTOR, 2 * SECTOR],
  ]) {
    const mixed = Buffer.from(good);
    from.copy(mixed, start as number, start as number, end as number);
    writeFileSync(path, mixed);
    assert.equal(outcome(mine), DAMAGED, `bytes ${start} to ${end}`);
  }
});

test('[S6] a record of an earlier life of the same segment, with a right checksum, is refused', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [400, 400]);
  const path = newestSegment(dir);
  const old = readFileSync(path).subarray(ends[1] as number);
  // The second record was torn, so it was cut and another one took its place.
  patch(path, (bytes) => bytes.subarray(0, bytes.length - 8));
  const { wal } = openWal(dir, { preallocateBytes: 0 });
  wal.append([entry(2, 'x'.repeat(400))], { term: 1, vote: 'a', commit: 1 });
  wal.append([entry(3, 400)], null);
  wal.append([], { term: 1, vote: 'a', commit: 2 });
  wal.sync();
  wal.close();
  const good = readFileSync(path);
  assert.equal(outcome(dir).length, 3);
  const mixed = Buffer.from(good);
  old.copy(mixed, ends[1] as number);
  writeFileSync(path, mixed);
  assert.equal(outcome(dir), DAMAGED);
});

test('[S6] a last record with another epoch, position or predecessor, and right checksums, is refused', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const ends = writeLog(dir, [400, 400]);
  const path = newestSegment(dir);
  const good = readFileSync(path);
  const start = ends[1] as number;
  for (const field of [16, 20, 24]) {
    const bad = Buffer.from(good);
    bad.writeUInt32LE(bad.readUInt32LE(start + field) + 8, start + field);
    const previous = bad.readUInt32LE(start + 20);
    bad.writeUInt32LE(crc32(bad.subarray(start + 32), previous), start + 4);
    bad.writeUInt32LE(crc32(bad.subarray(start + 4, start + 32)), start);
    writeFileSync(path, bad);
    assert.equal(outcome(dir), DAMAGED, `field at ${field}`);
  }
});

test('[R24] a torn tail of a segment that has a successor is damage', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { segmentBytes: 2048 });
  for (let i = 1; i <= 10; i++) wal.append([entry(i, 600)], null);
  wal.sync();
  wal.close();
  const first = join(dir, segmentNames(readdirSync(dir))[0] as string);
  patch(first, (bytes) => bytes.subarray(0, 1200));
  assert.throws(() => openWal(dir), /runs past the end of the file, but newer segments follow/);
});

test('[S6] a whole older copy of one segment is refused', (t) => {
  const folder = temporaryFolder(t);
  const dir = join(folder, 'raft');
  const options = { segmentBytes: 4096, preallocateBytes: 0 };
  const { wal } = openWal(dir, options);
  for (let i = 1; i <= 5; i++) wal.append([entry(i, 400)], null);
  wal.sync();
  copyFileSync(newestSegment(dir), join(folder, 'old'));
  const name = newestSegment(dir);
  for (let i = 6; i <= 30; i++) wal.append([entry(i, 400)], null);
  wal.sync();
  wal.close();
  assert.equal(outcome(dir, options).length, 30);
  copyFileSync(join(folder, 'old'), name);
  assert.equal(outcome(dir, options), DAMAGED);
});

test('a missing, renamed or headless segment, or one of another instance, is refused', (t) => {
  const folder = temporaryFolder(t);
  const [dir, copy] = [join(folder, 'raft'), join(folder, 'copy')];
  const options = { segmentBytes: 2048, instanceId: '0123456789abcdef0123456789abcdef' };
  const { wal } = openWal(dir, options);
  for (let i = 1; i <= 20; i++) wal.append([entry(i, 300)], null);
  wal.sync();
  wal.close();
  const names = segmentNames(readdirSync(dir));
  assert.ok(names.length >= 4);
  const damages: [string, (at: string) => void][] = [
    ['middle one missing', () => rmSync(join(copy, names[1] as string))],
    ['oldest missing', () => rmSync(join(copy, names[0] as string))],
    ['renamed', () => renameSync(join(copy, names[3] as string), join(copy, 'wal-0000000000000099-00000004.log'))],
    ['newest emptied', () => writeFileSync(join(copy, names.at(-1) as string), '')],
    ['newest zeroed', () => patch(join(copy, names.at(-1) as string), (bytes) => bytes.fill(0))],
  ];
  for (const [what, damage] of damages) {
    rmSync(copy, { recursive: true, force: true });
    cpSync(dir, copy, { recursive: true });
    damage(copy);
    assert.equal(outcome(copy, options), DAMAGED, what);
    if (what === 'middle one missing') assert.throws(() => openWal(copy, options), /segment 2 is missing/);
  }
  assert.equal(outcome(dir, { ...options, instanceId: 'ff'.repeat(16) }), DAMAGED);
  assert.equal(outcome(dir, options).length, 20);
});

test('files that are not ours stay where they are, temporary ones are emptied only when they are needed', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  writeLog(dir, [40]);
  for (const name of ['notes.txt', 'wal.tmp', 'snap.tmp', 'wal-1-1.log.bak']) writeFileSync(join(dir, name), 'x');
  mkdirSync(join(dir, 'folder'));
  const { wal, report } = openWal(dir);
  wal.close();
  assert.deepEqual([...report.ignored].sort(), ['folder', 'notes.txt', 'snap.tmp', 'wal-1-1.log.bak', 'wal.tmp']);
  for (const name of report.ignored) assert.ok(statSync(join(dir, name)));
});

test('a log of a newer format is refused by name and left as it is', (t) => {
  const dir = join(temporaryFolder(t), 'raft');
  writeLog(dir, [40]);
  patch(newestSegment(dir), (bytes) => {
    bytes[15] = 2;
    bytes.writeUInt32LE(crc32(bytes.subarray(4, 32)), 0);
    return bytes;
  });
  assert.equal(outcome(dir), 'StartError RAFT_LOG_VERSION');
});
