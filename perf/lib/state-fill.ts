/** A state machine filled with subjects in this process, and what its snapshot costs. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import type { AllotLimits } from '../../src/allot/allot-state.ts';
import {
  closeSize,
  NODE_STARTED_BYTES,
  openSize,
  originSize,
  writeClose,
  writeNodeStarted,
  writeOpen,
  writeOrigin,
} from '../../src/allot/commands.ts';
import { type AllotSink, AllotVerdict } from '../../src/allot/verdicts.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { makeDataDirectory } from '../../test/support/broker.ts';

/** As SnapshotJob takes them. */
const CHUNK_BYTES = 256 * 1024;
const COMMANDS_PER_ENTRY = 256;
const NODE = Buffer.from('perf');

const ignore = (): void => undefined;
const SILENT: AllotSink = {
  moved: () => undefined,
  born: () => undefined,
  origin: ignore,
  opened: ignore,
  openRefused(_shard, _counter, reasonCode) {
    throw new Error(`an open was refused with reason ${reasonCode}`);
  },
  partsOpened: ignore,
  producerOpened: ignore,
  verdict: ignore,
  nodeStarted: ignore,
  trimmed: ignore,
};

/** A machine with so many subjects, each with one id that is stored. */
export function fillMachine(limits: AllotLimits, subjects: number, name: (index: number) => string): AllotMachine {
  const machine = new AllotMachine(limits);
  const bytes = new Uint8Array(originSize(NODE.length) + COMMANDS_PER_ENTRY * 512);
  const view = new DataView(bytes.buffer);
  let index = 0;
  const apply = (write: (at: number) => number): void => {
    index += 1;
    machine.apply(index, 1, bytes.subarray(0, write(writeOrigin(view, bytes, 0, NODE, 1, 1))), SILENT);
  };
  apply((at) => {
    writeNodeStarted(view, at, true);
    return at + NODE_STARTED_BYTES;
  });
  for (let from = 0; from < subjects; from += COMMANDS_PER_ENTRY) {
    const names = Array.from({ length: Math.min(COMMANDS_PER_ENTRY, subjects - from) }, (_, i) =>
      Buffer.from(name(from + i)),
    );
    apply((start) =>
      names.reduce((at, each) => {
        writeOpen(view, bytes, at, each, subjectHash(each, 0, each.length), 0, 1, 1, 300, 0, -1);
        return at + openSize(each.length, false);
      }, start),
    );
    apply((start) =>
      names.reduce((at, each) => {
        writeClose(view, bytes, at, each, subjectHash(each, 0, each.length), 1, AllotVerdict.STORED);
        return at + closeSize(each.length);
      }, start),
    );
  }
  return machine;
}

export interface SnapshotCost {
  /** Until the snapshot is durable. */
  readonly takeSeconds: number;
  /** The longest that a chunk held up the thread. */
  readonly longestChunkMs: number;
  /** From opening the log to the machine. */
  readonly restoreSeconds: number;
  readonly fileBytes: number;
}

/** Takes a snapshot to the disk, and starts from it. Throws if another state comes back. */
export async function measureSnapshot(machine: AllotMachine, limits: AllotLimits): Promise<SnapshotCost> {
  const parent = makeDataDirectory('broker-perf-state-');
  try {
    const folder = join(parent, 'raft');
    const { wal } = RaftWal.open(new NodeDisk(), folder);
    const startedAt = performance.now();
    let longestChunkMs = 0;
    const state = machine.beginSnapshot();
    const file = wal.beginSnapshot({ index: machine.index, term: 1, meta: new Uint8Array(0) });
    for (;;) {
      const chunkAt = performance.now();
      const chunk = state.nextChunk(CHUNK_BYTES);
      if (chunk === null) break;
      file.write(chunk);
      longestChunkMs = Math.max(longestChunkMs, performance.now() - chunkAt);
    }
    await file.flush();
    const { bytes } = await file.finish('installed');
    const takeSeconds = (performance.now() - startedAt) / 1_000;
    wal.close();

    const restoreAt = performance.now();
    const again = RaftWal.open(new NodeDisk(), folder).wal;
    const reader = again.readSnapshot();
    if (reader === null) throw new Error('the snapshot is gone');
    const restored = AllotMachine.restore(reader.chunks(), limits);
    const restoreSeconds = (performance.now() - restoreAt) / 1_000;
    again.close();
    if (restored.hash() !== machine.hash() || restored.counts().subjects !== machine.counts().subjects) {
      throw new Error('another state came back from the snapshot');
    }
    return { takeSeconds, longestChunkMs, restoreSeconds, fileBytes: bytes };
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
}
