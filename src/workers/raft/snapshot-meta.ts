import { Packr } from 'msgpackr';
import type { ConfigState } from '../../raft/messages.ts';
import type { Member } from '../../replica/types.ts';

/** What a snapshot says beside the state itself. Versioned: it is stored. */
interface SnapshotMeta {
  readonly config: ConfigState;
  readonly members: readonly Member[];
}

/** 1 had no members. */
const VERSION = 2;
const WITHOUT_MEMBERS = 1;

export function encodeSnapshotMeta(meta: SnapshotMeta): Uint8Array {
  const { config, members } = meta;
  const rows = members.map(({ node, instance, raft, grpc, protocol }) => [node, instance, raft, grpc, protocol]);
  const { voters, learners } = config;
  return new Packr({ useRecords: false }).pack({ v: VERSION, voters, learners, members: rows });
}

/** Throws for a version that this program does not know. */
export function decodeSnapshotMeta(bytes: Uint8Array): SnapshotMeta {
  const { v, voters, learners, members } = new Packr({ useRecords: false }).unpack(bytes) as {
    v: number;
    voters: string[];
    learners: string[];
    members?: [string, string, string, string, number][];
  };
  if (v !== VERSION && v !== WITHOUT_MEMBERS) {
    throw new Error(`snapshot metadata of version ${v}: this program knows versions up to ${VERSION}`);
  }
  const rows = (members ?? []).map(([node, instance, raft, grpc, protocol]) => ({
    node,
    instance,
    raft,
    grpc,
    protocol,
  }));
  return { config: { voters, learners }, members: rows };
}
