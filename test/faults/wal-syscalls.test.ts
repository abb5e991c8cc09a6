/** Errors and lies of system calls under the Raft log, made by strace in a real process. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { DAMAGED, entry, openWal, outcome, plain } from '../unit/raft-wal-support.ts';
import { startChild } from './wal-support.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

for (const n of LONG ? range(50) : [1, 2, 3, 7, 20]) {
  for (const sync of LONG || n === 7 ? (['sync', 'async'] as const) : (['sync'] as const)) {
    test(`[S2] EIO from fdatasync number ${n} (${sync}): no acknowledgement after it, and the process ends within 1 s`, async (t) => {
      if (!requireTool(t, 'strace')) return;
      const dir = join(temporaryFolder(t), 'raft');
      const said = await startChild({ dir, appends: 60, bytes: 100, sync }, [
        `fdatasync:error=EIO:when=${n}`,
      ]).finished();
      assert.equal(said.exitCode, 70);
      assert.match(said.errors, /fatal SyncFailed EIO cannot fdatasync .*the process must end/);
      assert.ok(said.dyingMs < (await onThisMachine(1_000)), `${said.dyingMs} ms`);
      // One sync per vote and per entry, behind that of the segment's head, which is always synchronous.
      const before = n === 1 || sync === 'async' ? n - 1 : n - 2;
      const spoken = said.lines.filter((line) => /^(ack|vote)/.test(line));
      assert.equal(spoken.length, before, said.lines.join(' '));
    });
  }
}

for (const n of [1, 3, 9]) {
  test(`[S7] a write that says 10 bytes and writes none (number ${n} of the log's) is never taken for a record`, async (t) => {
    if (!requireTool(t, 'strace')) return;
    const dir = join(temporaryFolder(t), 'raft');
    const child = startChild({ dir, appends: 20, bytes: 300, sync: 'sync', preallocateBytes: 0 }, [
      `pwrite64:retval=10:when=${n}`,
    ]);
    const said = await child.finished();
    // libuv continues behind the 10 bytes by itself, so nobody can notice while writing; an honest kernel did write them.
    assert.equal(said.acked, 20);
    assert.equal(outcome(dir), DAMAGED);
  });
}

test('[S8] ENOSPC from a write: nothing half-written is acknowledged, and the reserve lets the log go on', async (t) => {
  if (!requireTool(t, 'strace')) return;
  for (const useReserve of [false, true]) {
    const dir = join(temporaryFolder(t), 'raft');
    const options = {
      dir,
      appends: 20,
      bytes: 300,
      sync: 'sync',
      preallocateBytes: 0,
      reserveBytes: 65_536,
      useReserve,
    } as const;
    const said = await startChild(options, ['pwrite64:error=ENOSPC:when=9']).finished();
    if (useReserve) assert.ok(said.lines.includes('reserve released') && said.acked === 20, said.errors);
    else assert.match(said.errors, /fatal DiskFull ENOSPC/);
    const { wal, state } = openWal(dir);
    wal.close();
    assert.deepEqual(plain(state.entries), plain(range(said.acked).map((i) => entry(i, 300))));
  }
});

/** A file system of its own that can be filled without harm. */
function tinyDisk(t: TestContext, bytes: number): string {
  const path = mkdtempSync(join(tmpdir(), 'tiny-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path]);
  t.after(() => {
    execFileSync('umount', ['-l', path]);
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

test('[S8] a disk that is really full: the append is refused, the reserve takes closes and a snapshot, space comes back, all is there', async (t) => {
  if (!requireTool(t, 'tmpfs')) return;
  const root = tinyDisk(t, 3 * 1024 * 1024);
  const disk = new NodeDisk();
  const dir = join(root, 'raft');
  const options = { segmentBytes: 256 * 1024, preallocateBytes: 16_384, reserveBytes: 512 * 1024 };
  const { wal } = RaftWal.open(disk, dir, options);
  assert.equal(wal.holdsReserve, true);
  // Another writer takes what is left but a little.
  mkdirSync(join(root, 'segments'));
  const filler = disk.createExclusive(join(root, 'segments', 'filler'));
  filler.preallocate(0, disk.freeBytes(root) - 128 * 1024);
  let refused = 0;
  let index = 0;
  const append = (bytes: number): void => {
    wal.append([entry(index + 1, bytes)], { term: 1, vote: '', commit: index });
    wal.sync();
    index += 1;
  };
  while (refused === 0) {
    try {
      append(5000);
    } catch (error) {
      assert.equal((error as Error).name, 'DiskFull');
      refused += 1;
    }
  }
  assert.throws(() => append(5000), { name: 'DiskFull' }, 'still full, and still no harm');
  assert.equal(wal.releaseReserve(), true);
  for (let i = 0; i < 40; i++) append(100);
  const writer = wal.beginSnapshot({ index, term: 1, meta: new Uint8Array(0) });
  for (let i = 0; i < 8; i++) writer.write(Buffer.alloc(16_384, 1));
  await writer.finish('local');
  assert.equal(wal.restoreReserve(), false, 'the disk is still full');
  filler.truncate(0);
  filler.close();
  assert.equal(wal.restoreReserve(), true);
  append(5000);
  wal.close();
  const again = RaftWal.open(disk, dir, options);
  assert.equal(again.state.snapshot?.index, index - 1);
  assert.deepEqual(plain(again.state.entries), plain([entry(index, 5000)]));
  again.wal.close();
});
