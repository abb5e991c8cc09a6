/** What the log of a node that does not run says, for tools. The caller holds the lock of the data directory. */
import { AllotMachine } from '../../allot/allot-machine.ts';
import type { AllotLimits } from '../../allot/allot-state.ts';
import { NO_SINK } from '../../allot/verdicts.ts';
import { assert } from '../../base/assert.ts';
import { ENTRY_NORMAL } from '../../raft/messages.ts';
import { ENTRY_KIND_ALLOT, ENTRY_KIND_MEMBER } from '../../replica/entry-kinds.ts';
import type { Disk } from '../../storage/disk.ts';
import { EnvelopeCodec } from '../../storage/raft-wal/envelope.ts';
import { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import { StartError } from '../../storage/start-error.ts';
import { decodeSnapshotMeta } from './snapshot-meta.ts';

/**
 * The state behind the last entry. Of a lone node only: what its log has is committed, which the log of one of several members does not
 * know of itself. `of` any member: entries that may not be committed count too, for whoever wants no id that was ever asked for. Throws StartError, as a start does; a torn end is
 * cut off, as a start does.
 */
export function readLog(
  disk: Disk,
  raftPath: string,
  instanceId: string,
  limits: AllotLimits,
  of: 'lone node' | 'any member' = 'lone node',
): AllotMachine {
  const { wal, state } = RaftWal.open(disk, raftPath, { instanceId });
  try {
    const { snapshot, entries } = state;
    const reader = wal.readSnapshot();
    if (snapshot === null || reader === null) {
      throw new StartError('RAFT_LOG_DAMAGED', `${raftPath} has no snapshot: no broker has started there yet`);
    }
    const { voters, learners } = decodeSnapshotMeta(snapshot.meta).config;
    const isAlone = voters.length === 1 && learners.length === 0;
    assert(isAlone || of === 'any member', 'the log of one of several members');
    const machine = AllotMachine.restore(reader.chunks(), limits);
    const envelopes = new EnvelopeCodec();
    for (const { index, type, data } of entries) {
      if (type !== ENTRY_NORMAL || data.length === 0 || index <= machine.index) continue;
      const { kind, time, payload } = envelopes.decode(data);
      if (kind === ENTRY_KIND_MEMBER) continue;
      assert(kind === ENTRY_KIND_ALLOT, () => `log entry of unknown kind ${kind}`);
      machine.apply(index, time, payload, NO_SINK);
    }
    return machine;
  } finally {
    wal.close();
  }
}
