/** The parts of `cluster recover`, `backup` and `restore` that need no broker. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { types } from 'cassandra-driver';
import type { AllotMachine } from '../../src/allot/allot-machine.ts';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import { BrokerError } from '../../src/base/errors.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { defaultConfig } from '../../src/config/load.ts';
import { KnownHeads, RECOVERY_GAP } from '../../src/recovery/known-heads.ts';
import { copyFile, type Manifest, readManifest, writeManifest } from '../../src/recovery/manifest.ts';
import { recover } from '../../src/recovery/recover.ts';
import { recovery } from '../../src/recovery/run.ts';
import { readState, writeState } from '../../src/recovery/state-file.ts';
import { newestOfAll } from '../../src/storage/cassandra/newest-of-all.ts';
import { readClusterMarker, writeClusterMarker } from '../../src/storage/cluster-marker.ts';
import { openDataDirectory, openRecoveringDirectory } from '../../src/storage/data-directory.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { readMarker, removeMarker, writeMarker } from '../../src/storage/recovery-marker.ts';
import { decideStart } from '../../src/workers/membership/start-decision.ts';
import { writeBirthState } from '../../src/workers/raft/birth-state.ts';
import { readLog } from '../../src/workers/raft/read-log.ts';
import { temporaryFolder } from '../support/temporary.ts';

const LIMITS = { subjectsMax: 100_000, producersMax: 10, openPerNodeMax: 10 };
const TIME = 1_700_000_000_000;
const text = (name: string): Uint8Array => new TextEncoder().encode(name);

function numberOf(machine: AllotMachine, subject: string): number {
  const bytes = text(subject);
  return machine.find(bytes, 0, bytes.length, subjectHash(bytes, 0, bytes.length));
}

function headOf(machine: AllotMachine, subject: string): number {
  return machine.head(numberOf(machine, subject));
}

function verdicts(machine: AllotMachine, subject: string, ids: readonly number[]): string[] {
  const number = numberOf(machine, subject);
  const names = Object.entries(AllotVerdict);
  return ids.map((id) => names.find(([, value]) => value === machine.verdictOf(number, id))?.[0] ?? '?');
}

test('heads: every one moves by the gap behind the last id of store and log, and what was not found begins at the largest', () => {
  const heads = new KnownHeads();
  heads.addStored(text('a'), 10);
  heads.addStored(text('b'), 3);
  const machine = heads.build(LIMITS, 'node', TIME, 0);
  assert.deepEqual([headOf(machine, 'a'), headOf(machine, 'b')], [10 + RECOVERY_GAP, 3 + RECOVERY_GAP]);
  assert.deepEqual(
    [machine.floor, machine.time, heads.largestHead, heads.largestSubject],
    [10 + RECOVERY_GAP, TIME, 10, { tenant: '', subject: 'a' }],
  );
  assert.deepEqual(verdicts(machine, 'a', [10, 11, 10 + RECOVERY_GAP]), ['SETTLED', 'VOID', 'VOID']);
  assert.equal(machine.counts().open + machine.counts().revoked, 0);

  // An older dump of the database beside that log, and a subject of which it has nothing any more.
  const again = new KnownHeads();
  again.addStored(text('a'), 8);
  again.addStored(text('new'), 1);
  again.addLog(machine);
  const next = again.build(LIMITS, 'node', TIME, 0);
  assert.deepEqual(
    ['a', 'b', 'new'].map((subject) => headOf(next, subject)),
    [10 + 2 * RECOVERY_GAP, 3 + 2 * RECOVERY_GAP, 1 + RECOVERY_GAP],
  );
  assert.equal(next.floor, 10 + 2 * RECOVERY_GAP);
  assert.deepEqual(verdicts(next, 'a', [8, 9]), ['SETTLED', 'VOID']);
  assert.equal(again.idsBeyondStore, 10 + RECOVERY_GAP - 8 + 3 + RECOVERY_GAP);
});

test('heads: a floor that an operator names holds for every subject; one of before is never undercut; without subjects there is none', () => {
  assert.equal(new KnownHeads().build(LIMITS, 'node', TIME, 0).floor, 0);
  const named = new KnownHeads();
  named.addStored(text('a'), 10);
  const wanted = 5 * RECOVERY_GAP;
  const machine = named.build(LIMITS, 'node', TIME, wanted);
  assert.deepEqual([headOf(machine, 'a'), machine.floor], [wanted, wanted]);
  const after = new KnownHeads();
  after.addLog(new KnownHeads().build(LIMITS, 'node', TIME, wanted));
  assert.equal(after.build(LIMITS, 'node', TIME, 0).floor, wanted + RECOVERY_GAP);
});

test('heads: more subjects than one entry holds, with names of every length', () => {
  const heads = new KnownHeads();
  const names = Array.from({ length: 30_000 }, (_, i) => `${i}.`.padEnd(5 + (i % 251), 'x'));
  names.forEach((name, i) => void heads.addStored(text(name), i + 1));
  const machine = heads.build(LIMITS, 'n'.repeat(255), TIME, 0);
  assert.equal(machine.counts().subjects, names.length);
  assert.ok(machine.index > 1, 'it fits one entry');
  for (const i of [0, 1, 15_000, 29_999]) assert.equal(headOf(machine, names[i] as string), i + 1 + RECOVERY_GAP);
});

test('state: what a recovery writes is the log of a lone node that a start reads; a backup of it is the same state', async (t) => {
  const folder = temporaryFolder(t);
  const disk = new NodeDisk();
  const heads = new KnownHeads();
  for (let i = 1; i <= 1_000; i++) heads.addStored(text(`s.${i}`), i);
  const machine = heads.build(LIMITS, 'node', TIME, 0);
  const instanceId = 'ab'.repeat(16);
  const path = join(folder, 'raft');
  await writeBirthState(disk, path, { nodeId: 'node', instanceId }, machine);
  const { wal, state } = RaftWal.open(disk, path, { instanceId });
  wal.close();
  assert.deepEqual(state.hardState, { term: 1, vote: '', commit: machine.index });
  const found = readLog(disk, path, instanceId, LIMITS);
  assert.equal(found.stateHash(), machine.stateHash());
  assert.throws(() => readLog(disk, path, 'cd'.repeat(16), LIMITS), /instance/);
  const file = join(folder, 'state');
  const written = writeState(disk, file, machine);
  assert.deepEqual(await copyFile(disk, file, null, () => undefined), written);
  assert.equal(readState(disk, file, LIMITS).stateHash(), machine.stateHash());
});

test('backup: one that is interrupted says what to do, and that helps', async (t) => {
  const disk = new NodeDisk();
  const dataDir = join(temporaryFolder(t), 'data');
  openDataDirectory(disk, dataDir, { clusterName: 'broker', nodeId: 'a', now: TIME }).close();
  const config = { ...defaultConfig(), dataDir };
  const open = { config, interrupt: new AbortController().signal, onProgress: () => undefined };
  await recover({ ...open, apply: true, discardState: false, floor: 0 });
  const [first, second] = ['backup-1', 'backup-2'].map((name) => join(temporaryFolder(t), name)) as [string, string];
  const cut = await recovery('').backup({ ...open, to: first, interrupt: AbortSignal.abort() });
  const next = 'run the command again with another folder: --to FOLDER';
  assert.deepEqual(cut, { kind: 'refused', message: 'interrupted', next });
  const again = await recovery('').backup({ ...open, to: first });
  assert.match(again.kind === 'refused' ? again.message : again.kind, /is not empty/);
  assert.equal((await recovery('').backup({ ...open, to: second })).kind, 'done');
});

const MANIFEST: Omit<Manifest, 'format' | 'version'> = {
  createdAt: '2026-01-01T00:00:00.000Z',
  clusterId: 'c',
  clusterName: 'broker',
  nodeId: 'a',
  store: 'embedded',
  logIndex: 1,
  logTime: TIME,
  subjects: 1,
  producers: 0,
  files: [
    { path: 'state', bytes: 1, crc32: 2 },
    { path: 'segments/lane-000/00000001.seg', bytes: 3, crc32: 4 },
  ],
};

test('manifest: read as written; one that is missing, cut, changed, newer, or names files outside is refused by name', (t) => {
  const folder = temporaryFolder(t);
  const disk = new NodeDisk();
  const path = join(folder, 'manifest.json');
  assert.throws(() => readManifest(disk, folder), /has no manifest\.json/);
  writeManifest(disk, folder, MANIFEST);
  assert.deepEqual(readManifest(disk, folder), { format: 'broker-backup', version: 1, ...MANIFEST });
  const whole = readFileSync(path, 'utf8');
  const spoilt = (text: string, why: RegExp): void => {
    writeFileSync(path, text);
    assert.throws(() => readManifest(disk, folder), why);
  };
  spoilt(whole.slice(0, -20), /is damaged: it is not JSON/);
  spoilt(whole.replace('"bytes": 3', '"bytes": 5'), /its checksum is wrong/);
  spoilt(whole.replace('"version": 1', '"version": 2'), /is of version 2/);
  spoilt('{"format":"x","version":1}', /it is not a broker-backup/);
  for (const outside of ['../x', 'segments/../../x', '/etc/x', 'segments/./x', 'node.json', 'segments']) {
    writeManifest(disk, folder, { ...MANIFEST, files: [{ path: outside, bytes: 1, crc32: 1 }] });
    assert.throws(() => readManifest(disk, folder), /is damaged: it names/, outside);
  }
});

test('marker: no broker starts in a directory in which a recovery was cut off; a recovery does, also if nothing else is there yet', (t) => {
  const disk = new NodeDisk();
  const root = join(temporaryFolder(t), 'data');
  const fresh = openRecoveringDirectory(disk, root);
  assert.deepEqual([fresh.marker, fresh.node], [null, null]);
  const node = {
    version: 1,
    clusterId: 'new',
    clusterName: 'broker',
    nodeId: 'a',
    instanceId: 'ab'.repeat(16),
    createdAt: '2026-01-01T00:00:00.000Z',
  };
  const marker = writeMarker(disk, root, { kind: 'recover', node, replaces: 'old', discarded: null });
  fresh.close();
  const start = { clusterName: 'broker', nodeId: 'a', now: TIME };
  assert.throws(() => openDataDirectory(disk, root, start), { code: 'RECOVERY_UNFINISHED' });
  const again = openRecoveringDirectory(disk, root);
  assert.deepEqual(again.marker, marker);
  removeMarker(disk, root);
  again.close();
  openDataDirectory(disk, root, start).close();
  writeFileSync(join(root, 'RECOVERY'), '{"version":1');
  assert.throws(() => readMarker(disk, root), /damaged/);
  // What is not ours stays untouched.
  const foreign = join(root, '..', 'foreign');
  mkdirSync(foreign);
  writeFileSync(join(foreign, 'letter.txt'), '');
  assert.throws(() => openRecoveringDirectory(disk, foreign), { code: 'DATA_DIRECTORY_FOREIGN' });
});

test('cassandra: the last id of a subject is in its highest partition that still has rows, wherever pages break', async () => {
  const last = new Map([
    ['a 0', { lastId: 900, publishedAt: 5 }],
    ['a 2', { lastId: 3_000, publishedAt: 7 }],
    ['b 0', { lastId: 4, publishedAt: 9 }],
  ]);
  // Of partition 7 all rows have gone; nothing is left of subject c.
  const keys = ['a 7', 'c 1', 'b 0', 'a 0', 'a 2'];
  let failures = 2;
  const found = new Map<string, number>();
  const time = await newestOfAll({
    async pages(from) {
      if (failures > 0) {
        failures -= 1;
        throw new BrokerError('STORE_UNAVAILABLE');
      }
      const at = Number(from ?? 0);
      const rows = keys.slice(at, at + 2).map((key) => {
        const [subject, bucket] = key.split(' ') as [string, string];
        return { get: (column: string) => (column === 'subject' ? Buffer.from(subject) : bucket) };
      });
      const pageState = at + 2 < keys.length ? String(at + 2) : null;
      return { rows, pageState } as unknown as types.ResultSet;
    },
    newestOf: async (subject, bucket) => last.get(`${subject} ${bucket}`) ?? null,
    visit: (subject, lastId) => void found.set(Buffer.from(subject).toString(), lastId),
    atOnce: 2,
  });
  assert.deepEqual([...found].sort(), [
    ['a', 3_000],
    ['b', 4],
  ]);
  assert.equal(time, 9);
});

test('cluster: a directory that was a member, or about to be one, begins a new cluster; one without peers stays so', async (t) => {
  const disk = new NodeDisk();
  const peer = { node: 'n2', instance: 'cd'.repeat(16), raft: 'h:1', grpc: 'h:2', protocol: 1 };
  const cases = [
    [{ state: 'member', members: [] }, 'member'],
    [{ state: 'joining', members: [] }, 'member'],
    [{ state: 'joined', members: [peer] }, 'member'],
    [null, null],
  ] as const;
  for (const [before, after] of cases) {
    const dataDir = join(temporaryFolder(t), 'data');
    openDataDirectory(disk, dataDir, { clusterName: 'broker', nodeId: 'a', now: TIME }).close();
    if (before !== null) writeClusterMarker(disk, dataDir, before);
    const config = { ...defaultConfig(), dataDir };
    const interrupt = new AbortController().signal;
    const rest = { config, interrupt, apply: true, discardState: false, floor: 0, onProgress: () => undefined };
    const { cluster, nodeId } = await recover(rest);
    assert.equal(readClusterMarker(disk, dataDir)?.state ?? null, after);
    assert.deepEqual(readClusterMarker(disk, dataDir)?.members ?? [], []);
    const expect = 'off' as const;
    const facts = { nodeId, clusterId: cluster ?? '', clusterName: 'broker', instanceId: '', row: null, expect };
    const start = decideStart({ ...facts, marker: after, hasLog: true, bootstrap: false, hasSeeds: false });
    assert.deepEqual(start, { kind: 'serve', isClustered: before !== null, note: '' });
  }
});
