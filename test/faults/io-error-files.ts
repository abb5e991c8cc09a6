/** All that a broker writes to its data directory, by its own code in this process, while one call fails; then what a start finds. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { BrokerError } from '../../src/base/errors.ts';
import { readClusterMarker, writeClusterMarker } from '../../src/storage/cluster-marker.ts';
import { openDataDirectory } from '../../src/storage/data-directory.ts';
import { type Disk, DiskError, DiskFull, NodeDisk } from '../../src/storage/disk.ts';
import { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { replaceFile } from '../../src/storage/small-file.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { readAll } from '../contract/store-support.ts';
import { dataBatch, subjectRef } from '../unit/batch-support.ts';
import { entry, plain } from '../unit/raft-wal-support.ts';
import { type CallCounts, FailingCalls, type IoFault } from './failing-calls.ts';

const APPENDS = 60;
const GROUPS = 60;
const SNAPSHOT_EVERY = 15;
const SUBJECT = subjectRef('io.errors');
const WAL_OPTIONS = { segmentBytes: 8_192, preallocateBytes: 2_048, reserveBytes: 4_096 };
/** A call that does not come back hangs the broker. */
const HANG_MS = 10_000;

/** What kind of a file a path is; a temporary file is of the kind that it becomes. */
function kindOf(path: string): string {
  const name = basename(path).replace(/\.tmp$/, '');
  if (name === 'raft' || name === 'segments' || name.startsWith('lane-')) return name.replace(/-\d+$/, '');
  if (/^(wal.*|wal)$/.test(name)) return 'log';
  if (/^snap/.test(name)) return 'snapshot';
  if (name.endsWith('.seg')) return 'segment';
  if (name.endsWith('.idx')) return 'sidecar';
  if (name === 'end') return 'log end';
  return ['reserve', 'node.json', 'CLUSTER', 'STORE'].includes(name) ? name : 'data directory';
}

/** What was promised: each only when the call that makes it true had come back. */
interface Promised {
  instance: string;
  marker: string;
  /** Entries of the log, and the term that it has voted in. */
  entries: number;
  term: number;
  /** Bases of stored batches. */
  readonly batches: number[];
  /** Something had to end the process: nothing may be promised behind it. */
  fatal: unknown;
  /** Refusals of a full disk. */
  refused: number;
  /** Log lines about what can be made again. */
  told: number;
}

export interface IoVerdict {
  /** `ended`: the process had to end; `refused`: what did not fit was refused; `told`: it went on without an index; `went on`: a short write, or room that can be done without. */
  readonly ending: 'ended' | 'refused' | 'told' | 'went on' | 'not reached';
  readonly violations: readonly string[];
  readonly counts: CallCounts;
}

/** Runs the whole workload with this fault (null: none), and judges what is left. */
export async function ioRun(fault: IoFault | null): Promise<IoVerdict> {
  const root = mkdtempSync(join(tmpdir(), 'io-errors-'));
  const calls = new FailingCalls(fault, kindOf);
  const promised: Promised = {
    instance: '',
    marker: '',
    entries: 0,
    term: 0,
    batches: [],
    fatal: null,
    refused: 0,
    told: 0,
  };
  const violations: string[] = [];
  try {
    const made = (): number => [...calls.counts.values()].reduce((sum, count) => sum + count, 0);
    const hung = await withinHang(workload(new NodeDisk(calls.calls), root, promised, violations), made);
    if (hung) violations.push(`it hangs: no call was made for ${HANG_MS} ms`);
    else violations.push(...(await leftBehind(root, promised).catch(asViolation)));
    // A short write that is gone on with is no fault, and the index of a full disk can be made again.
    const ending = !calls.happened
      ? 'not reached'
      : promised.fatal !== null
        ? 'ended'
        : promised.refused > 0
          ? 'refused'
          : promised.told > 0
            ? 'told'
            : 'went on';
    if (ending === 'went on' && mustTell(fault)) violations.push('nobody was told of the error');
    if (fault?.error === 'short' && ending === 'ended') violations.push(`a short write ends it: ${promised.fatal}`);
    return { ending, violations, counts: calls.counts };
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** On a full disk these can be done without: room ahead of the log and of its end, the mark of a good end. */
const OPTIONAL = ['log', 'reserve', 'log end'];

function mustTell(fault: IoFault | null): boolean {
  if (fault === null || fault.error === 'short') return false;
  return fault.error !== 'ENOSPC' || !OPTIONAL.includes(fault.file);
}

/** A start that is refused has lost something too. */
function asViolation(error: unknown): string[] {
  return [`the next start: ${String(error)}`];
}

/** `made`: calls so far. As long as they become more it goes on, however slow the disk is. */
async function withinHang(work: Promise<void>, made: () => number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  let seen = -1;
  const late = new Promise<true>((resolve) => {
    timer = setInterval(() => {
      const now = made();
      if (now === seen) resolve(true);
      seen = now;
    }, HANG_MS);
  });
  const hung = await Promise.race([work.then(() => false), late]);
  clearInterval(timer);
  return hung;
}

/** Each part stands for a thread of the broker: an error that is no refusal ends all. */
async function workload(disk: Disk, root: string, promised: Promised, violations: string[]): Promise<void> {
  const parts = [
    () => smallFiles(disk, root, promised),
    () => log(disk, root, promised),
    () => store(disk, root, promised, violations),
  ];
  for (const part of parts) {
    try {
      await part();
    } catch (error) {
      promised.fatal ??= error;
      if (!(error instanceof DiskError || error instanceof StartError)) violations.push(`it threw ${error}`);
    }
    if (promised.fatal !== null) return;
  }
}

function smallFiles(disk: Disk, root: string, promised: Promised): Promise<void> {
  const data = join(root, 'data');
  const opened = openDataDirectory(disk, data, { clusterName: 'c', nodeId: 'n', now: Date.now() });
  opened.close();
  promised.instance = opened.node.instanceId;
  for (let i = 0; i < 12; i++) {
    const raft = `host:${i + 1}`;
    writeClusterMarker(disk, data, {
      state: 'member',
      members: [{ node: 'n', instance: 'i', raft, grpc: 'g:1', protocol: 1 }],
    });
    promised.marker = raft;
    replaceFile(disk, join(data, 'STORE'), Buffer.from('postgres\n'));
  }
  return Promise.resolve();
}

async function log(disk: Disk, root: string, promised: Promised): Promise<void> {
  const dir = join(root, 'data', 'raft');
  const { wal } = RaftWal.open(disk, dir, WAL_OPTIONS);
  for (let index = 1; index <= APPENDS; index++) {
    const hardState = { term: index, vote: `c-${index}`, commit: index - 1 };
    await again(promised, wal, () => {
      wal.append([entry(index, 30 + ((index * 97) % 900))], hardState);
    });
    if (index % 2 === 0) wal.sync();
    else await wal.syncAsync();
    promised.entries = index;
    promised.term = index;
    if (index % SNAPSHOT_EVERY === 0) await snapshot(wal, index, promised);
  }
  wal.sync();
  wal.markEnd();
  wal.close();
}

/** A full disk leaves the log as it was: the reserve goes, and the same is written again. */
async function again(promised: Promised, wal: RaftWal, write: () => unknown): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!(error instanceof DiskFull)) throw error;
    promised.refused += 1;
    wal.releaseReserve();
    await write();
  }
}

async function snapshot(wal: RaftWal, index: number, promised: Promised): Promise<void> {
  let writer: ReturnType<RaftWal['beginSnapshot']> | null = null;
  try {
    writer = wal.beginSnapshot({ index, term: 1, meta: Buffer.from('meta') });
    writer.write(Buffer.alloc(2_000, index));
    await writer.finish('local');
  } catch (error) {
    if (!(error instanceof DiskFull)) throw error;
    promised.refused += 1;
    writer?.abort();
  }
}

async function store(disk: Disk, root: string, promised: Promised, violations: string[]): Promise<void> {
  const directory = join(root, 'data', 'segments');
  sealLanes(disk, directory);
  let failure: unknown = null;
  const opened = openStore(
    disk,
    directory,
    (error) => {
      failure ??= error;
    },
    () => {
      promised.told += 1;
    },
  );
  for (let base = 1; base <= GROUPS; base++) {
    const body = Buffer.alloc(20 + ((base * 131) % 1_500), base);
    try {
      await opened.append([dataBatch(SUBJECT, [{ body, headers: [], expirationSeconds: 0 }], { base })]);
      if (failure !== null) violations.push(`batch ${base} is acknowledged behind ${failure}`);
      promised.batches.push(base);
    } catch (error) {
      if (failure !== null) throw failure;
      if (!(error instanceof BrokerError)) throw error;
      promised.refused += 1;
    }
  }
  await opened.close();
  if (failure !== null) throw failure;
}

function openStore(
  disk: Disk,
  directory: string,
  onFatal: (error: unknown) => void,
  onNotice: () => void = () => undefined,
): EmbeddedStore {
  return new EmbeddedStore({
    directory,
    lane: 0,
    ownsSlot: () => true,
    segmentBytes: 16_384,
    lowSpaceBytes: 0,
    cacheBytes: 0,
    onFatal,
    onNotice,
    disk,
  });
}

/** What a start with a good disk finds, held against what was promised. */
async function leftBehind(root: string, promised: Promised): Promise<string[]> {
  const disk = new NodeDisk();
  const data = join(root, 'data');
  const violations: string[] = [];
  const opened = openDataDirectory(disk, data, { clusterName: 'c', nodeId: 'n', now: Date.now() });
  opened.close();
  if (promised.instance !== '' && opened.node.instanceId !== promised.instance) violations.push('another instance');
  const marked = readClusterMarker(disk, data)?.members[0]?.raft ?? '';
  const next = promised.marker === '' ? 'host:1' : `host:${Number(promised.marker.split(':')[1]) + 1}`;
  if (marked !== promised.marker && marked !== next) violations.push(`CLUSTER says ${marked} for ${promised.marker}`);
  if (disk.size(join(data, 'raft')) >= 0) violations.push(...logLeft(disk, data, promised));
  const report = sealLanes(disk, join(data, 'segments'));
  if (report.damages.length > 0) violations.push(`segments are damaged: ${JSON.stringify(report.damages[0])}`);
  const again = openStore(disk, join(data, 'segments'), () => undefined);
  const found = new Map((await readAll(again, SUBJECT)).map((item) => [item.from, item]));
  for (const base of promised.batches) {
    const body = String.fromCharCode(base).repeat(20 + ((base * 131) % 1_500));
    if (found.get(base)?.bodies?.[0] !== body)
      violations.push(`batch ${base} was stored and is ${found.get(base)?.kind}`);
  }
  await again.close();
  return violations;
}

function logLeft(disk: Disk, data: string, promised: Promised): string[] {
  const { wal, state } = RaftWal.open(disk, join(data, 'raft'), WAL_OPTIONS);
  const { lastIndex } = wal;
  wal.close();
  const violations: string[] = [];
  if (lastIndex < promised.entries) violations.push(`the log ends at ${lastIndex}, ${promised.entries} was durable`);
  if (state.hardState.term < promised.term) violations.push(`term ${state.hardState.term}, voted in ${promised.term}`);
  const right = state.entries.map(({ index }) => entry(index, 30 + ((index * 97) % 900)));
  if (plain(state.entries).join() !== plain(right).join()) violations.push('an entry of the log is another');
  return violations;
}
