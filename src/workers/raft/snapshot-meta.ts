import { Packr } from 'msgpackr';
import type { ConfigState } from '../../raft/messages.ts';

/** What a snapshot says beside the state itself. Versioned: it is stored. */
interface SnapshotMeta {
  readonly config: ConfigState;
}

const VERSION = 1;

export function encodeSnapshotMeta(meta: SnapshotMeta): Uint8Array {
  return new Packr({ useRecords: false }).pack({
    v: VERSION,
    voters: meta.config.voters,
    learners: meta.config.learners,
  });
}

/** Throws for a version that this program does not know. */
export function decodeSnapshotMeta(bytes: Uint8Array): SnapshotMeta {
  const { v, voters, learners } = new Packr({ useRecords: false }).unpack(bytes) as {
    v: number;
    voters: string[];
    learners: string[];
  };
  if (v !== VERSION) throw new Error(`snapshot metadata of version ${v}: this program knows version ${VERSION} only`);
  return { config: { voters, learners } };
}
