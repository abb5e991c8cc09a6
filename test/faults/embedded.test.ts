/** The embedded store in a real process under a kernel that fails, lies, fills up and loses power. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PowerCutDisk } from '../support/power-cut.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { found, startChild } from './embedded-support.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

for (const n of LONG ? range(50) : [1, 2, 3, 8]) {
  test(`[S2] EIO from fdatasync number ${n} of a segment: no acknowledgement after it, and the process ends within 1 s`, async (t) => {
    if (!requireTool(t, 'strace')) return;
    const dir = join(temporaryFolder(t), 'segments');
    const child = startChild({ dir, groups: 60, bytes: 100, inFlight: 2 }, [`fdatasync:error=EIO:when=${n}`]);
    const said = await child.finished();
    assert.equal(said.exitCode, 70);
    assert.match(said.errors, /fatal SyncFailed EIO cannot fdatasync .*the process must end/);
    assert.ok(said.dyingMs < (await onThisMachine(1_000)), `${said.dyingMs} ms`);
    // The first sync is that of the segment's header.
    assert.deepEqual(said.acked, range(Math.max(0, n - 2)));
    const { items } = await found(dir);
    assert.deepEqual(
      items.slice(0, said.acked.length),
      said.acked.map((base) => `data ${base}`),
    );
  });
}

for (const [n, bytes] of [
  [3, 300],
  [5, 100_000],
] as const) {
  test(`[S7] a short write (10 bytes, group of ${bytes}) is continued; what the kernel then did not write is found`, async (t) => {
    if (!requireTool(t, 'strace')) return;
    const dir = join(temporaryFolder(t), 'segments');
    const child = startChild({ dir, groups: 12, bytes }, [`pwrite64,write,pwritev,writev:retval=10:when=${n}`]);
    const said = await child.finished();
    // strace's lie writes nothing and says 10, so the first 10 bytes of one group are zeros or old on the disk.
    assert.equal(said.acked.length, 12, said.errors);
    rmSync(join(dir, 'lane-000', '00000001.idx'));
    const { report, items } = await found(dir);
    assert.ok(report.damages.length > 0, 'the hole is noticed');
    assert.equal(items.length, 12, 'and every batch around it is there: the hole is in a group header');
  });
}

test('[S8] ENOSPC from a write: refused, nothing of it is readable, and the next group is taken', async (t) => {
  if (!requireTool(t, 'strace')) return;
  for (const bytes of [300, 100_000]) {
    const dir = join(temporaryFolder(t), 'segments');
    const said = await startChild({ dir, groups: 20, bytes }, ['pwrite64,pwritev:error=ENOSPC:when=5']).finished();
    assert.equal(said.exitCode, 0, said.errors);
    const refused = said.lines.filter((line) => line.startsWith('refused STORE_FULL'));
    assert.equal(refused.length, 1, said.lines.join('; '));
    const { items, report } = await found(dir);
    const at = Number(refused[0]?.split(' ')[2]);
    assert.deepEqual(
      items,
      range(20).map((base) => `${base === at ? 'void' : 'data'} ${base}`),
    );
    assert.deepEqual(report.damages, []);
  }
});

test('[S8] a full disk (tmpfs of 8 MiB): publishes are refused, reads go on, space brings it back, and a restart finds exactly that', async (t) => {
  if (!requireTool(t, 'tmpfs')) return;
  const mount = mkdtempSync(join(tmpdir(), 'full-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', mount]);
  t.after(() => {
    execFileSync('umount', ['-l', mount]);
    rmSync(mount, { recursive: true });
  });
  for (const lowSpaceBytes of [0, 1024 * 1024]) {
    const dir = join(mount, `segments-${lowSpaceBytes}`);
    const ballast = join(mount, 'ballast');
    writeFileSync(ballast, Buffer.alloc(6.5 * 1024 * 1024));
    const options = { dir, groups: 60, bytes: 50_000, segmentBytes: 512 * 1024, lowSpaceBytes, ballast };
    const said = await startChild(options).finished();
    assert.equal(said.exitCode, 0, said.errors);
    const refused = said.lines.flatMap((line) =>
      line.startsWith('refused STORE_FULL ') ? [Number(line.split(' ')[2])] : [],
    );
    assert.ok(refused.length >= 1 && refused.length <= 25, said.lines.join('; '));
    const firstRead = Number(said.lines.find((line) => line.startsWith('read'))?.split(' ')[1]);
    assert.equal(firstRead, said.acked.filter((base) => base < (refused[0] as number)).length, 'reads went on');
    assert.equal(said.acked.length + refused.length, 60);
    const { items } = await found(dir);
    assert.deepEqual(
      items,
      range(60).map((base) => `${refused.includes(base) ? 'void' : 'data'} ${base}`),
    );
    rmSync(dir, { recursive: true });
  }
});

for (const withoutSync of [false, true]) {
  const title = withoutSync
    ? 'control group: without fdatasync a power cut loses acknowledged groups'
    : '[S1][S4] a power cut right after acknowledgements and segment rolls: every acknowledged group is there';
  test(title, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    using disk = PowerCutDisk.create({ bytes: 32 * 1024 * 1024 });
    let lost = 0;
    for (let round = 1; round <= (LONG ? 10 : 3); round++) {
      const dir = join(disk.path, `segments-${round}`);
      // 10 bytes to 40 KiB; several segments.
      const options = { dir, groups: 25, bytes: 10 ** round + 10, segmentBytes: 8192 * round, stay: true, withoutSync };
      const running = startChild(options);
      await running.line('done');
      disk.cut();
      running.child.kill('SIGKILL');
      const said = await running.finished();
      assert.equal(said.acked.length, 25);
      disk.restore();
      const { items, report } = await found(dir);
      lost += said.acked.filter((base) => !items.includes(`data ${base}`)).length;
      if (!withoutSync) assert.deepEqual(report.damages, []);
    }
    if (withoutSync) assert.ok(lost > 0, 'the cut is real');
    else assert.equal(lost, 0);
  });
}

test('[S3] a power cut at the end of a slow fdatasync: only what was written before the call was acknowledged', async (t) => {
  if (!requireTool(t, 'loop-devices') || !requireTool(t, 'strace')) return;
  using disk = PowerCutDisk.create({ bytes: 32 * 1024 * 1024 });
  const dir = join(disk.path, 'segments');
  // Each sync of the segment takes 100 ms longer, while further groups arrive.
  const running = startChild({ dir, groups: 400, bytes: 500, inFlight: 8 }, ['fdatasync:delay_exit=100000']);
  await running.line('ack 4');
  const cutAt = disk.cut();
  running.child.kill('SIGKILL');
  const said = await running.finished();
  disk.restore();
  const { items, report } = await found(dir);
  const promised = said.ackedBefore(cutAt);
  assert(promised.length >= 4);
  const missing = promised.filter((base) => !items.includes(`data ${base}`));
  assert.deepEqual(missing, [], `acknowledged ${promised.length}, found ${items.length}`);
  assert.deepEqual(report.damages, []);
});

for (const site of [
  'segment.written',
  'segment.synced',
  'segment.sync',
  'disk.dirsync',
  'disk.create',
  'sidecar.written',
  'disk.renamed',
]) {
  test(`killed at ${site}: what was acknowledged is there, no group in part, and writing goes on`, async (t) => {
    const dir = join(temporaryFolder(t), 'segments');
    let acked: number[] = [];
    for (const hit of LONG ? range(12) : [1, 3]) {
      const options = { dir, groups: 30, bytes: 700, segmentBytes: 6000, failpoints: `${site}=kill@${hit}` };
      const said = await startChild(options).finished();
      acked = [...acked, ...said.acked];
      const { items, report } = await found(dir);
      assert.deepEqual(report.damages, []);
      for (const base of acked) assert.ok(items.includes(`data ${base}`), `${base} was acknowledged`);
      assert.deepEqual(
        items,
        range(items.length).map((base) => `data ${base}`),
      );
      acked = range(items.length);
    }
  });
}
