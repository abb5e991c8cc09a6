/** Raft state of a node that begins with a state machine that is not empty: what `cluster recover` leaves for the first start. */
import type { AllotMachine } from '../../allot/allot-machine.ts';
import type { Disk } from '../../storage/disk.ts';
import { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import { encodeSnapshotMeta } from './snapshot-meta.ts';

const CHUNK_BYTES = 256 * 1024;
/** Of the lone founding member (MemoryRaftStorage.bootstrap). */
const BIRTH_TERM = 1;

/** Writes a snapshot of `machine` with `node` as the only voter into `path`, which must be empty or absent; durable when it resolves. Throws DiskError. */
export async function writeBirthState(
  disk: Disk,
  path: string,
  node: { readonly nodeId: string; readonly instanceId: string },
  machine: AllotMachine,
): Promise<void> {
  const { wal } = RaftWal.open(disk, path, { instanceId: node.instanceId });
  try {
    const { index } = machine;
    // Its row is written at its first start with a Raft port: where that is reached nobody has said yet.
    const meta = encodeSnapshotMeta({ config: { voters: [node.nodeId], learners: [] }, members: [] });
    const file = wal.beginSnapshot({ index, term: BIRTH_TERM, meta });
    const state = machine.beginSnapshot();
    for (let chunk = state.nextChunk(CHUNK_BYTES); chunk !== null; chunk = state.nextChunk(CHUNK_BYTES)) {
      file.write(chunk);
    }
    await file.finish('installed');
    // What is in the snapshot is committed: without this the log would say that it is not.
    wal.append([], { term: BIRTH_TERM, vote: '', commit: index });
    wal.sync();
  } finally {
    wal.close();
  }
}
