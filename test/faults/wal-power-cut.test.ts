/** Power cuts under the Raft log, on a real ext4: what was acknowledged is there, and the harness notices when syncs are left out. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import type { WalState } from '../../src/storage/raft-wal/types.ts';
import { PowerCutDisk } from '../support/power-cut.ts';
import { requireTool } from '../support/tools.ts';
import { entry, plain } from '../unit/raft-wal-support.ts';
import type { ChildOptions } from './wal-child.ts';
import { type Said, startChild } from './wal-support.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';

/** Runs the child until it said `until`, cuts the power, restores it, and opens the log. */
async function cutAt(
  options: Omit<ChildOptions, 'dir'>,
  until: string,
  then: 'stands' | number = 0,
): Promise<{ said: Said; state: WalState | string }> {
  using disk = PowerCutDisk.create({ bytes: 64 * 1024 * 1024 });
  const dir = join(disk.path, 'raft');
  const running = startChild({ ...options, dir });
  let at: bigint;
  try {
    await running.line(until);
    if (then === 'stands') await running.quiet(60);
    else await new Promise((resolve) => setTimeout(resolve, then));
    at = disk.cut();
  } finally {
    running.child.kill('SIGKILL');
  }
  const said = await running.finished(at);
  disk.restore();
  try {
    const { wal, state } = RaftWal.open(new NodeDisk(), dir, { reserveBytes: 0 });
    wal.close();
    return { said, state };
  } catch (error) {
    return { said, state: `${(error as Error).name}: ${(error as Error).message}` };
  }
}

/** Everything that was said is still so. */
function check({ said, state }: { said: Said; state: WalState | string }, bytes: number): void {
  assert.ok(typeof state !== 'string', String(state));
  const first = (state.snapshot?.index ?? 0) + 1;
  const last = first + state.entries.length - 1;
  assert.ok(last >= said.acked, `acknowledged up to ${said.acked}, there up to ${last}`);
  assert.deepEqual(plain(state.entries), plain(state.entries.map((_, i) => entry(first + i, bytes))));
  const newest = Math.max(0, ...said.votes.keys());
  assert.ok(state.hardState.term >= newest, `voted in term ${newest}, the disk says ${state.hardState.term}`);
  const vote = said.votes.get(state.hardState.term);
  if (vote !== undefined) assert.equal(state.hardState.vote, vote, 'one vote per term');
}

const SHAPES: readonly Omit<ChildOptions, 'dir'>[] = [
  { appends: 100_000, bytes: 100, sync: 'sync', preallocateBytes: 0 },
  { appends: 100_000, bytes: 1500, sync: 'sync' },
  { appends: 100_000, bytes: 700, sync: 'async', segmentBytes: 8192 },
  { appends: 100_000, bytes: 300, sync: 'sync', segmentBytes: 4096, snapshotEvery: 7 },
  // Every group begins a segment in its midst, so its first entries are in a file that is no longer open when it is synced.
  { appends: 100_000, bytes: 900, sync: 'sync', segmentBytes: 4096, group: 4 },
];

for (const [i, shape] of SHAPES.entries()) {
  const { bytes, sync, segmentBytes, snapshotEvery, group } = shape;
  const name = `${bytes} B, ${sync}, segments of ${segmentBytes ?? 65536}, a snapshot every ${snapshotEvery ?? 0}, groups of ${group ?? 1}`;
  test(`[S1, R3, R4] a power cut at a random instant loses no acknowledged entry or vote: ${name}`, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    for (let round = 0; round < (LONG ? 25 : 1); round++)
      check(await cutAt(shape, 'ack 20', (i * 37 + round * 23) % 150), bytes);
  });
}

test('[S1, R3, R4] the same harness with every sync left out loses acknowledged entries or votes', async (t) => {
  if (!requireTool(t, 'loop-devices')) return;
  const result = await cutAt({ appends: 300, bytes: 1500, sync: 'off', stay: true }, 'done');
  assert.equal(result.said.acked, 300);
  assert.throws(() => check(result, 1500), /acknowledged up to 300|voted in term/);
});

test('[R4, R7] what recovery hands out after a kill -9 survives a power cut right behind it', async (t) => {
  if (!requireTool(t, 'loop-devices')) return;
  using disk = PowerCutDisk.create({ bytes: 64 * 1024 * 1024 });
  const dir = join(disk.path, 'raft');
  // Nothing of what this process wrote is on the disk, all of it is in the page cache.
  const running = startChild({ dir, appends: 40, bytes: 900, sync: 'off', stay: true });
  await running.line('done');
  running.child.kill('SIGKILL');
  await running.finished();
  const before = RaftWal.open(new NodeDisk(), dir, { reserveBytes: 0 });
  assert.equal(before.state.entries.length, 40);
  disk.cut();
  before.wal.close();
  disk.restore();
  const after = RaftWal.open(new NodeDisk(), dir, { reserveBytes: 0 });
  after.wal.close();
  assert.deepEqual(plain(after.state.entries), plain(before.state.entries));
  assert.deepEqual(after.state.hardState, before.state.hardState);
});

for (const site of LONG ? ['wal.write', 'wal.written', 'wal.sync', 'wal.synced'] : ['wal.written', 'wal.synced']) {
  test(`[R3, R4] a power cut while the log stands at ${site} loses nothing acknowledged`, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    // Stands for an hour at the 30th hit, about entry 24, and never comes back.
    const options = { appends: 1000, bytes: 600, sync: 'sync', failpoints: `${site}=sleep:3600000@30` } as const;
    const result = await cutAt(options, 'ack 20', 'stands');
    assert.ok(result.said.acked < 40);
    check(result, 600);
  });
}

const ROLL_SITES = ['wal-roll.named', 'disk.renamed', 'wal-roll.ready', 'wal.written'];
const ROLL_SITES_LONG = [...ROLL_SITES, 'wal-roll.write', 'wal-roll.sync', 'disk.rename', 'disk.dirsync'];

for (const site of LONG ? ROLL_SITES_LONG : ROLL_SITES) {
  test(`[S4] a power cut in a segment roll at ${site}, or right after it, loses nothing acknowledged`, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    const options = { appends: 1000, bytes: 900, sync: 'sync', segmentBytes: 8192 } as const;
    const hit = site === 'wal.written' ? 12 : 2;
    check(await cutAt({ ...options, failpoints: `${site}=sleep:3600000@${hit}` }, 'ack 5', 'stands'), 900);
  });
}

const SNAPSHOT_SITES = ['snap.durable', 'disk.renamed', 'snap.pointed'];

for (const site of LONG ? [...SNAPSHOT_SITES, 'snap.named', 'disk.unlink'] : SNAPSHOT_SITES) {
  test(`[S4] a power cut in a snapshot at ${site} leaves this snapshot or the one before`, async (t) => {
    if (!requireTool(t, 'loop-devices')) return;
    const options = { appends: 1000, bytes: 900, sync: 'sync', segmentBytes: 1 << 20, snapshotEvery: 10 } as const;
    const hit = site === 'disk.unlink' ? 1 : 3;
    // The first one is there: a slow disk is silent for longer than what stands at a failpoint has to be.
    const result = await cutAt({ ...options, failpoints: `${site}=sleep:3600000@${hit}` }, 'snapshot 10', 'stands');
    check(result, 900);
    assert.ok(typeof result.state !== 'string' && result.state.snapshot !== null);
    const published = Math.max(
      ...result.said.lines.filter((one) => one.startsWith('snapshot')).map((one) => Number(one.slice(9))),
    );
    assert.ok(result.state.snapshot.index >= published);
  });
}
