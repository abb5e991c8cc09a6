import { assert, unreachable } from '../base/assert.ts';
import {
  ENTRY_CONFIG,
  type Entry,
  INDEX_MAX,
  type Message,
  type MessageType,
  type NodeId,
  type Snapshot,
} from '../raft/messages.ts';
import type { Member, PeerFrame, RunTrace } from '../replica/types.ts';
import { Fields } from './fields.ts';
import { PlainMsgpack, VALUES_MAX } from './plain-msgpack.ts';

/**
 * The body of a frame is a msgpack array that begins with its kind; integers up to 2^53-2. All of this block is append-only, and a later version may append
 * fields.
 *
 *   RAFT    kind, type, from, to, term, index, logTerm, commit, reject, rejectHint, context, force, snapshot or nil, entries
 *           snapshot: [index, term, voters, learners, ref]; entries: term, index, type and data of one after another in one array
 *   RUNS    kind, [run, ...]; with traces also [place of a traced run, its context, ...]
 *   MEMBER  kind, node, instance, raft, grpc, protocol
 *   CLOCK   kind, wall clock in epoch ms
 */
const Kind = { RAFT: 1, RUNS: 2, MEMBER: 3, CLOCK: 4 } as const;

/** Place = number on the wire. */
const TYPES: readonly MessageType[] = [
  'append',
  'append-response',
  'heartbeat',
  'heartbeat-response',
  'vote',
  'vote-response',
  'pre-vote',
  'pre-vote-response',
  'snapshot',
  'timeout-now',
  'read-index',
  'read-index-response',
];
const TYPE_NUMBERS: Readonly<Record<MessageType, number>> = Object.freeze(
  Object.fromEntries(TYPES.map((type, number) => [type, number])) as Record<MessageType, number>,
);

const ENTRY_FIELDS = 4;
/** Of names and instances, in UTF-16 units. */
export const NAME_LENGTH_MAX = 255;
/** HOST:PORT: a host name is at most 253. */
const ADDRESS_LENGTH_MAX = 300;
const REF_LENGTH_MAX = 1_024;
const MEMBERS_MAX = 1_024;
const PROTOCOL_MAX = 0xffff;
/** Runs in one frame, and entries in one message. More is a defect of the sender (AssertionError). */
export const RUNS_MAX = 65_536;
/** Traces of one frame that are taken. */
const TRACES_MAX = 1_024;
export const ENTRIES_MAX = VALUES_MAX / ENTRY_FIELDS - 64;

/** PeerFrame <-> bytes. */
export class FrameCodec {
  readonly #msgpack = new PlainMsgpack();

  /** A whole frame, header included, in memory of its own. */
  encode(frame: PeerFrame): Buffer {
    return this.#msgpack.frame(valuesOf(frame));
  }

  /** Of the body of a frame; data of entries and runs are views of it. Whether a message makes sense is for RaftCore to judge (isMessageSound). Throws WireError. */
  decode(body: Buffer): PeerFrame {
    return frameOf(new Fields(this.#msgpack.array(body), 'frame'));
  }
}

function valuesOf(frame: PeerFrame): readonly unknown[] {
  switch (frame.kind) {
    case 'raft':
      return messageValues(frame.message);
    case 'runs':
      assert(frame.runs.length <= RUNS_MAX, 'too many runs in a frame');
      return frame.traces === undefined
        ? [Kind.RUNS, frame.runs]
        : [Kind.RUNS, frame.runs, frame.traces.flatMap(({ index, context }) => [index, context])];
    case 'member': {
      const { node, instance, raft, grpc, protocol } = frame.member;
      return [Kind.MEMBER, node, instance, raft, grpc, protocol];
    }
    case 'clock':
      return [Kind.CLOCK, frame.wallMs];
    default:
      return unreachable(frame);
  }
}

function messageValues(m: Message): readonly unknown[] {
  assert(m.entries.length <= ENTRIES_MAX, 'too many entries in a message');
  const entries: unknown[] = [];
  for (const { term, index, type, data } of m.entries) entries.push(term, index, type, data);
  const s = m.snapshot;
  const snapshot = s === null ? null : [s.index, s.term, s.config.voters, s.config.learners, s.ref];
  const head = [Kind.RAFT, TYPE_NUMBERS[m.type], m.from, m.to, m.term, m.index, m.logTerm, m.commit];
  return [...head, m.reject, m.rejectHint, m.context, m.force, snapshot, entries];
}

function frameOf(fields: Fields): PeerFrame {
  switch (fields.uint(0xff)) {
    case Kind.RAFT:
      return { kind: 'raft', message: messageOf(fields) };
    case Kind.RUNS:
      return runsFrameOf(fields);
    case Kind.MEMBER:
      return { kind: 'member', member: memberOf(fields) };
    case Kind.CLOCK:
      return { kind: 'clock', wallMs: fields.uint(Number.MAX_SAFE_INTEGER) };
    default:
      throw fields.wrong('kind');
  }
}

function messageOf(fields: Fields): Message {
  const type = fields.oneOf(TYPES);
  const from = nameOf(fields);
  const to = nameOf(fields);
  const term = fields.uint(INDEX_MAX);
  const index = fields.uint(INDEX_MAX);
  const logTerm = fields.uint(INDEX_MAX);
  const commit = fields.uint(INDEX_MAX);
  const reject = fields.boolean();
  const rejectHint = fields.uint(INDEX_MAX);
  const context = fields.uint(INDEX_MAX);
  const force = fields.boolean();
  const snapshot = snapshotOf(fields.maybeNested('snapshot'));
  const entries = entriesOf(fields.nested('entries'));
  return { type, from, to, term, index, logTerm, commit, entries, reject, rejectHint, snapshot, context, force };
}

function nameOf(fields: Fields): NodeId {
  const name = fields.text(NAME_LENGTH_MAX);
  if (name === '') throw fields.wrong('name');
  return name;
}

function snapshotOf(fields: Fields | null): Snapshot | null {
  if (fields === null) return null;
  const index = fields.uint(INDEX_MAX);
  const term = fields.uint(INDEX_MAX);
  const config = { voters: namesOf(fields.nested('voters')), learners: namesOf(fields.nested('learners')) };
  return { index, term, config, ref: fields.text(REF_LENGTH_MAX) };
}

function namesOf(fields: Fields): readonly NodeId[] {
  if (fields.left > MEMBERS_MAX) throw fields.wrong('list of members');
  return Array.from({ length: fields.left }, () => nameOf(fields));
}

function entriesOf(fields: Fields): readonly Entry[] {
  if (fields.left % ENTRY_FIELDS !== 0) throw fields.wrong('list of entries');
  const entries: Entry[] = [];
  while (fields.left > 0) {
    const term = fields.uint(INDEX_MAX);
    const index = fields.uint(INDEX_MAX);
    const type = fields.uint(ENTRY_CONFIG) as Entry['type'];
    entries.push({ term, index, type, data: fields.bytes() });
  }
  return entries;
}

function runsOf(fields: Fields): readonly Uint8Array[] {
  if (fields.left > RUNS_MAX) throw fields.wrong('list of runs');
  return Array.from({ length: fields.left }, () => fields.bytes());
}

function runsFrameOf(fields: Fields): PeerFrame {
  const runs = runsOf(fields.nested('runs'));
  if (fields.left === 0) return { kind: 'runs', runs };
  const list = fields.nested('traces');
  const traces: RunTrace[] = [];
  while (list.left > 0) {
    const index = list.uint(RUNS_MAX);
    const context = list.bytes();
    if (traces.length < TRACES_MAX) traces.push({ index, context });
  }
  return { kind: 'runs', runs, traces };
}

function memberOf(fields: Fields): Member {
  const node = nameOf(fields);
  const instance = nameOf(fields);
  const raft = fields.text(ADDRESS_LENGTH_MAX);
  const grpc = fields.text(ADDRESS_LENGTH_MAX);
  return { node, instance, raft, grpc, protocol: fields.uint(PROTOCOL_MAX) };
}
