/** What production code makes of damaged files, opened in this process: the embedded store and the Raft log. */
import { join } from 'node:path';
import { readNodeIdentity } from '../../src/storage/data-directory.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { laneName, laneOf, numberOf, segmentName } from '../../src/storage/embedded/segment-format.ts';
import { loadSidecar } from '../../src/storage/embedded/sidecar.ts';
import { encodeScanned, listLane, listLanes, scanFile } from '../../src/storage/embedded/sidecar-files.ts';
import { SubjectIndex } from '../../src/storage/embedded/subject-index.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { StartError } from '../../src/storage/start-error.ts';
import { readLog } from '../../src/workers/raft/read-log.ts';
import { readAll } from '../contract/store-support.ts';
import { subjectRef } from '../unit/batch-support.ts';
import type { Damage } from './damage.ts';
import { type Acked, hashOf } from './damage-directory.ts';

const LIMITS = { subjectsMax: 1_000_000, producersMax: 100_000, openPerNodeMax: 100_000 };

/** Where a batch lies: what a damage can hit, and what is lost with it. */
interface Place {
  /** From the data directory. */
  readonly path: string;
  readonly from: number;
  readonly to: number;
  readonly subject: string;
  readonly base: number;
  readonly count: number;
}

/** All batches of a data directory that nothing is wrong with. */
export function placesOf(root: string): Place[] {
  const disk = new NodeDisk();
  const directory = join(root, 'segments');
  const index = new SubjectIndex();
  for (const lane of listLanes(disk, directory)) {
    const files = listLane(disk, directory, lane);
    for (const number of files.numbers) {
      const size = disk.size(join(files.path, segmentName(number)));
      loadSidecar(encodeScanned(lane, number, scanFile(disk, files, number, size)).bytes, index, () => true);
    }
  }
  const places: Place[] = [];
  index.forEach((name, _hash, entries) => {
    const subject = Buffer.from(name).toString();
    for (let i = 0; i < entries.length; i++) {
      const segment = entries.segment(i);
      const path = join('segments', laneName(laneOf(segment)), segmentName(numberOf(segment)));
      const from = entries.offset(i);
      places.push({ path, from, to: from + entries.bytes(i), subject, base: entries.base(i), count: entries.count(i) });
    }
  });
  return places;
}

/** Subjects and ids whose batch a damage has touched, as `subject/id`. */
export function hitIds(places: readonly Place[], { path, from, to }: Damage): Set<string> {
  const hit = places.filter((place) => place.path === path && place.from < to && place.to > from);
  return new Set(
    hit.flatMap(({ subject, base, count }) => Array.from({ length: count }, (_, i) => `${subject}/${base + i}`)),
  );
}

/** How a damage ended: the ids it cost are told, it was noticed and cost nothing, or what is there is what was there. */
export type Ending = 'DATA_LOSS' | 'noticed' | 'refused' | 'harmless';

export interface Verdict {
  readonly ending: Ending;
  /** Empty if the promise was kept. */
  readonly violations: readonly string[];
}

/** What is served, by `subject/id`: the hash of the body, or why there is none. */
export type Served = Map<string, string>;

/** Everything acknowledged is served as it was, but for ids that were hit; nothing else is served. */
export function compareServed(served: Served, acked: Acked, hit: ReadonlySet<string>) {
  const violations: string[] = [];
  let lost = 0;
  const expected = new Set<string>();
  for (const [subject, ids] of acked) {
    for (const [id, hash] of ids) {
      const key = `${subject}/${id}`;
      expected.add(key);
      const found = served.get(key);
      if (found === hash) continue;
      if (found !== undefined && found !== 'damaged') violations.push(`${key} is ${found} and was ${hash}`);
      else if (hit.has(key)) lost += 1;
      else violations.push(`${key} is lost, and its batch was not touched`);
    }
  }
  for (const [key, found] of served) {
    if (!expected.has(key) && found !== 'damaged' && found !== 'void') violations.push(`${key} was never acknowledged`);
  }
  return { lost, violations };
}

/** Opens the store of a damaged directory, and reads all of it. */
export async function judgeStore(root: string, acked: Acked, hit: ReadonlySet<string>): Promise<Verdict> {
  const disk = new NodeDisk();
  const directory = join(root, 'segments');
  const report = sealLanes(disk, directory);
  let damaged = 0;
  const store = new EmbeddedStore({
    directory,
    lane: 0,
    ownsSlot: () => true,
    segmentBytes: 1024 * 1024,
    lowSpaceBytes: 0,
    cacheBytes: 0,
    onFatal: () => undefined,
    onDamage: () => {
      damaged += 1;
    },
    disk,
  });
  const served: Served = new Map();
  for (const subject of acked.keys()) {
    for (const { kind, from, to, bodies } of await readAll(store, subjectRef(subject), 1, 1 << 20)) {
      for (let id = from; id < to; id++) {
        const body = bodies?.[id - from];
        served.set(`${subject}/${id}`, body === undefined ? kind : hashOf(Buffer.from(body, 'latin1')));
      }
    }
  }
  await store.close();
  const { lost, violations } = compareServed(served, acked, hit);
  const { damages, quarantined, torn, scanned } = report;
  // The directory is that of a broker that was stopped: nothing in it can be torn.
  for (const { path, bytes } of torn) violations.push(`${bytes} bytes of ${path} are taken for a torn end`);
  const isNoticed = damages.length + quarantined.length + scanned + damaged > 0;
  return { ending: lost > 0 ? 'DATA_LOSS' : isNoticed ? 'noticed' : 'harmless', violations };
}

/** What a log says: its state machine, its vote. */
export function logState(root: string): string {
  const disk = new NodeDisk();
  const dir = join(root, 'raft');
  const instanceId = readNodeIdentity(disk, root)?.instanceId ?? '';
  const { wal, state } = RaftWal.open(disk, dir, { instanceId });
  wal.close();
  const machine = readLog(disk, dir, instanceId, LIMITS, 'any member');
  return JSON.stringify([machine.index, machine.time, machine.stateHash(), state.hardState]);
}

/** Opens the Raft log of a damaged directory: it says what it said, or it is refused. */
export function judgeLog(root: string, before: string): Verdict {
  const disk = new NodeDisk();
  const quarantined = (): number => {
    const folder = join(root, 'raft', 'quarantine');
    return disk.size(folder) < 0 ? 0 : disk.list(folder).length;
  };
  try {
    const after = logState(root);
    const violations = after === before ? [] : [`the log says ${after}, and said ${before}`];
    return { ending: quarantined() > 0 ? 'noticed' : 'harmless', violations };
  } catch (error) {
    if (!(error instanceof StartError)) return { ending: 'refused', violations: [`no refusal: ${String(error)}`] };
    const says = /\/raft\b/.test(error.message);
    return { ending: 'refused', violations: says ? [] : [`the refusal names no file: ${error.message}`] };
  }
}
