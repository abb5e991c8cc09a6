import { assert } from '../base/assert.ts';
import type { ConfigState, NodeId } from './messages.ts';

/**
 * Membership changes, one node at a time (Raft thesis 4.1). A change is in force on a node when that node applies it,
 * as in etcd-io/raft, and not already when it is in the log, as in the thesis. That is safe because of three rules,
 * each of which has its guard and its test:
 *
 * 1. The leader takes a change only when it has applied the one before, and has committed an entry of its own term
 *    (thesis erratum: without it rival leaders can make two changes whose majorities do not meet).
 * 2. A node does not campaign while it knows a committed change that it has not applied.
 * 3. A node that holds change n+1 in its log knows that change n is committed: the append that brought n+1 said so, and
 *    both come to disk in one write (HardState.commit). With rule 2 no two nodes act on members two changes apart.
 */
export type ConfigChangeKind = 'add-voter' | 'add-learner' | 'remove';

export interface ConfigChange {
  /** `add-voter` also makes a learner a voter, `add-learner` a voter a learner. */
  readonly kind: ConfigChangeKind;
  readonly node: NodeId;
  /** Opaque to the core (addresses, instance id): the state machine finds it in the entry. */
  readonly context: Uint8Array;
}

/** Stored in the log: append-only. */
const VERSION = 1;
const KIND_CODES: Readonly<Record<ConfigChangeKind, number>> = { 'add-voter': 1, 'add-learner': 2, remove: 3 };
const KINDS: readonly (ConfigChangeKind | undefined)[] = [undefined, 'add-voter', 'add-learner', 'remove'];

/*
 * Data of an ENTRY_CONFIG:   0        1      2            3           3+n
 *                            +--------+------+------------+-----------+-----------------+
 *                            | version| kind | n: id bytes| id (UTF-8)| context, to end |
 *                            +--------+------+------------+-----------+-----------------+
 */
const HEADER_BYTES = 3;
export const NODE_ID_BYTES_MAX = 255;

export function encodeConfigChange(change: ConfigChange): Uint8Array {
  const id = new TextEncoder().encode(change.node);
  assert(id.length > 0 && id.length <= NODE_ID_BYTES_MAX, 'a node id has 1 to 255 bytes');
  const data = new Uint8Array(HEADER_BYTES + id.length + change.context.length);
  data[0] = VERSION;
  data[1] = KIND_CODES[change.kind];
  data[2] = id.length;
  data.set(id, HEADER_BYTES);
  data.set(change.context, HEADER_BYTES + id.length);
  return data;
}

/** The entry comes from our own log, so damage is a broken invariant. */
export function decodeConfigChange(data: Uint8Array): ConfigChange {
  assert(data.length > HEADER_BYTES && data[0] === VERSION, 'not a config change of a known version');
  const kind = KINDS[data[1] as number];
  assert(kind !== undefined, 'unknown kind of config change');
  const end = HEADER_BYTES + (data[2] as number);
  assert(end > HEADER_BYTES && end <= data.length, 'config change is cut short');
  const node = new TextDecoder('utf-8', { fatal: true }).decode(data.subarray(HEADER_BYTES, end));
  return { kind, node, context: data.subarray(end) };
}

export type ConfigRefusal =
  /** The node is what the change would make it. */
  | 'no-change'
  /** Nobody would be left to decide. */
  | 'zero-voters';

/** The members after a change, or why there can be none. Pure: the same answer on every node. */
export function changeConfig(config: ConfigState, change: ConfigChange): ConfigState | ConfigRefusal {
  const isVoter = config.voters.includes(change.node);
  const isLearner = config.learners.includes(change.node);
  const voters = config.voters.filter((node) => node !== change.node);
  const learners = config.learners.filter((node) => node !== change.node);
  switch (change.kind) {
    case 'add-voter':
      if (isVoter) {
        return 'no-change';
      }
      voters.push(change.node);
      break;
    case 'add-learner':
      if (isLearner) {
        return 'no-change';
      }
      learners.push(change.node);
      break;
    case 'remove':
      if (!isVoter && !isLearner) {
        return 'no-change';
      }
      break;
  }
  if (voters.length === 0) {
    return 'zero-voters';
  }
  return { voters: voters.sort(), learners: learners.sort() };
}
