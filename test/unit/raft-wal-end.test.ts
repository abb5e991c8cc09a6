/** The mark of a log that was closed in good order: what a power cut and a damage of its end have in common is told apart by it. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { DAMAGED, entry, newestSegment, openWal, outcome, patch, plain } from './raft-wal-support.ts';

const SECTOR = 512;

/** A log of three durable entries, closed in good order; returns where the last record begins. */
function closedLog(t: TestContext): { readonly dir: string; readonly lastStart: number; readonly end: string } {
  const dir = join(temporaryFolder(t), 'raft');
  const { wal } = openWal(dir, { preallocateBytes: 0 });
  let lastStart = 0;
  for (let i = 1; i <= 3; i++) {
    lastStart = readFileSync(newestSegment(dir)).length;
    wal.append([entry(i, 1_200)], { term: 1, vote: 'a', commit: i - 1 });
    wal.sync();
  }
  wal.markEnd();
  wal.close();
  return { dir, lastStart, end: join(dir, 'end') };
}

const right = (count: number): string[] => plain(Array.from({ length: count }, (_, index) => entry(index + 1, 1_200)));

for (const kind of ['zeros in a sector of it', 'zeros over all of it', 'a cut before it', 'a cut in it'] as const) {
  test(`[R24, S5] ${kind}: the last record of a log that was closed is damage, and without the mark a torn write`, (t) => {
    const { dir, lastStart, end } = closedLog(t);
    const path = newestSegment(dir);
    const sector = Math.ceil(lastStart / SECTOR) * SECTOR;
    if (kind === 'a cut before it') truncateSync(path, lastStart);
    else if (kind === 'a cut in it') truncateSync(path, sector);
    else patch(path, (bytes) => bytes.fill(0, kind === 'zeros over all of it' ? lastStart : sector, sector + SECTOR));
    if (kind === 'zeros over all of it') patch(path, (bytes) => bytes.fill(0, lastStart));
    const before = readFileSync(path);
    assert.equal(outcome(dir), DAMAGED);
    assert.deepEqual(readFileSync(path), before, 'a refused log is left as it is');
    rmSync(end);
    assert.deepEqual(outcome(dir), right(2));
  });
}

test('[R24] a log without its last segments, or without any, is damage as long as the mark is there', (t) => {
  const { dir, end } = closedLog(t);
  rmSync(newestSegment(dir));
  assert.equal(outcome(dir), DAMAGED);
  rmSync(end);
  assert.deepEqual(outcome(dir), []);
});

test('the mark goes before the first write, and a log that is only looked at keeps it', (t) => {
  const { dir, end } = closedLog(t);
  assert.deepEqual(outcome(dir), right(3));
  assert.ok(existsSync(end));
  const { wal } = openWal(dir);
  wal.append([entry(4, 1_200)], null);
  assert.ok(!existsSync(end));
  wal.markEnd();
  assert.ok(!existsSync(end), 'nothing is said of what is not durable');
  wal.sync();
  wal.markEnd();
  wal.close();
  assert.deepEqual(outcome(dir), right(4));
});

test('[R24] a sector of the log that cannot be read is damage, and the file is named', (t) => {
  const { dir } = closedLog(t);
  const path = newestSegment(dir);
  const readSync = (() => {
    throw Object.assign(new Error('EIO: made by the test'), { code: 'EIO' });
  }) as typeof fs.readSync;
  const disk = new NodeDisk({ ...fs, readSync });
  rmSync(join(dir, 'end'));
  assert.throws(() => RaftWal.open(disk, dir), { code: 'RAFT_LOG_DAMAGED', path });
});

test('[S6, S9] a damaged mark, and one of an earlier end, go into quarantine, and the log is read as it is', (t) => {
  const { dir, end } = closedLog(t);
  const old = readFileSync(end);
  const { wal } = openWal(dir);
  wal.append([entry(4, 1_200)], null);
  wal.sync();
  wal.close();
  const flipped = Buffer.from(old);
  flipped[20] = (flipped[20] as number) ^ 1;
  for (const bytes of [old, flipped, Buffer.alloc(32), old.subarray(0, 7), Buffer.alloc(0)]) {
    writeFileSync(end, bytes);
    const { wal: again, state, report } = openWal(dir);
    again.close();
    assert.deepEqual(plain(state.entries), right(4));
    assert.equal(report.quarantined.length, 1);
    assert.deepEqual(readFileSync(report.quarantined[0] as string), Buffer.from(bytes));
    assert.ok(!existsSync(end));
  }
});
