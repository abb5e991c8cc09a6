import { assert } from '../base/assert.ts';
import { type CampaignRefusal, onVote, startPreElection, whyNotCampaign } from './campaign.ts';
import { stepCandidate } from './candidate.ts';
import { type ConfigChange, encodeConfigChange } from './config-change.ts';
import { entryBytes, sumEntryBytes } from './entries.ts';
import { stepFollower, tickElection } from './follower.ts';
import {
  addRead,
  onOwnAppendDurable,
  onSnapshotReport,
  onUnreachable,
  startTransfer,
  stepLeader,
  type TransferResult,
  tickLeader,
} from './leader.ts';
import { applyConfigsTo, installConfig, type MembershipRefusal, whyNotChange } from './membership.ts';
import {
  type ConfigState,
  ENTRY_CONFIG,
  ENTRY_NORMAL,
  ENTRY_OVERHEAD_BYTES,
  type Entry,
  type EntryType,
  type HardState,
  INDEX_MAX,
  type Index,
  isMessageSound,
  type Message,
  makeMessage,
  NOBODY,
  type NodeId,
  type Ready,
  type Role,
  type SoftState,
  type Term,
} from './messages.ts';
import type { RaftOptions } from './options.ts';
import { broadcastHeartbeat, replicateAll } from './replication.ts';
import { type RaftCounters, RaftState } from './state.ts';
import { describe, type RaftStatus } from './status.ts';
import { settleTerm } from './terms.ts';
import type { PendingWrite } from './unstable.ts';
import { handleVoteRequest } from './voting.ts';

export type ProposalResult =
  /** In the leader's log at `lastIndex()`; that it is committed is not said. It may still be lost or replaced. */
  | 'accepted'
  | 'not-leader'
  /** Leadership is being handed over. Refused as long as that takes, at most an election timeout. */
  | 'transferring'
  /** `uncommittedBytesMax` is reached. Nothing was taken; try again when something was committed. */
  | 'full'
  /** Positions are used up. */
  | 'exhausted';

export type ReadResult = 'accepted' | 'no-leader' | 'full';

/** A Ready whose write is under way, and what counts when it is done. */
interface Handout {
  readonly number: number;
  readonly write: PendingWrite;
  /** Term and role when it was handed out: an own vote counts only for the campaign it was cast in. */
  readonly term: Term;
  readonly hasSelfVote: boolean;
}

const NO_ENTRIES: readonly Entry[] = Object.freeze([]);

/**
 * The Raft consensus core of one node: a step machine without IO, clock or threads, in the shape of etcd-io/raft.
 * Every call returns at once; what is to be done comes out of `ready()`.
 *
 * The caller's loop, whenever `hasReady()`:
 *   1. `ready()`. Several may be under way; they are treated strictly first in, first out.
 *   2. Send `messages`. This may run beside the next step.
 *   3. Install `snapshot`, then write `hardState` and `entries` as one piece (a crash leaves both or neither) to the WAL, and
 *      to the storage that the core reads; if `mustSync`, wait until it is on disk. Without `mustSync` the write may
 *      stay in memory, but it must not overtake earlier ones.
 *   4. `persisted(ready)`, then send `messagesAfterPersist`. Neither before all earlier Readies got there.
 *   5. Apply `committedEntries` in order, any time after step 1, then `appliedTo(index)` with the last one's position.
 * A caller that does all of it before the next `ready()` calls `advance(ready)` for `persisted` and `appliedTo`, and
 * then sends `messagesAfterPersist`.
 *
 * Invariant: nothing leaves this node, and nothing counts here, that promises what is not durable.
 */
export class RaftCore {
  readonly #state: RaftState;
  readonly #handouts: Handout[] = [];
  #readyNumber = 0;
  #lastHardState: HardState;
  #lastSoftState: SoftState;
  /** Bytes handed out for applying and not reported as applied. */
  #applyingBytes = 0;
  #applyingSizes: { index: Index; bytes: number }[] = [];

  constructor(options: RaftOptions) {
    this.#state = new RaftState(options);
    this.#lastHardState = this.hardState();
    this.#lastSoftState = this.softState();
  }

  get id(): NodeId {
    return this.#state.id;
  }
  get role(): Role {
    return this.#state.role;
  }
  get term(): Term {
    return this.#state.term;
  }
  /** '' while none is known. */
  get leader(): NodeId {
    return this.#state.leader;
  }
  get committed(): Index {
    return this.#state.log.committed;
  }
  get applied(): Index {
    return this.#state.log.applied;
  }
  get counters(): Readonly<RaftCounters> {
    return this.#state.counters;
  }

  lastIndex(): Index {
    return this.#state.log.lastIndex();
  }

  /** NO_TERM where the position is compacted away or not there. */
  termAt(index: Index): Term {
    return this.#state.log.term(index);
  }

  /** The members as of `applied`: what belongs into a snapshot taken now. */
  configState(): ConfigState {
    return this.#state.tracker.config;
  }

  /** It decides alone, as of `applied`. */
  get isOnlyVoter(): boolean {
    return this.#state.tracker.isOnlyVoter;
  }

  status(): RaftStatus {
    return describe(this.#state);
  }

  softState(): SoftState {
    return { role: this.#state.role, leader: this.#state.leader };
  }

  hardState(): HardState {
    const { term, vote, log } = this.#state;
    return { term, vote, commit: log.committed };
  }

  /** One tick of the caller's clock. */
  tick(): void {
    if (this.#state.role === 'leader') {
      tickLeader(this.#state);
    } else {
      tickElection(this.#state);
    }
  }

  /** A message from a peer. One that is not for this node, or makes no sense in itself, is counted and ignored. */
  step(message: Message): void {
    const state = this.#state;
    const isForUs = message.to === state.id && message.from !== state.id && message.from !== NOBODY;
    if (!isForUs || !isMessageSound(message)) {
      state.counters.messagesIgnored += 1;
      return;
    }
    if (message.type === 'read-index') {
      this.#handleForwardedRead(message);
      return;
    }
    if (!settleTerm(state, message)) {
      return;
    }
    if (message.type === 'vote' || message.type === 'pre-vote') {
      handleVoteRequest(state, message);
    } else if (state.role === 'leader') {
      stepLeader(state, message);
    } else if (state.role === 'follower') {
      stepFollower(state, message);
    } else {
      stepCandidate(state, message);
    }
  }

  /** Stands for election now (pre-vote first). null, or what stands against it. */
  campaign(): CampaignRefusal | null {
    const refusal = whyNotCampaign(this.#state);
    if (refusal === null) {
      startPreElection(this.#state);
    }
    return refusal;
  }

  /** The data is not copied: it must not change afterwards. Proposals made before the next `ready()` share appends. */
  propose(data: Uint8Array): ProposalResult {
    return this.#propose(ENTRY_NORMAL, data);
  }

  proposeConfigChange(change: ConfigChange): ProposalResult | MembershipRefusal {
    if (this.#state.role !== 'leader') {
      return 'not-leader';
    }
    const refusal = whyNotChange(this.#state, change);
    if (refusal !== null) {
      return refusal;
    }
    const result = this.#propose(ENTRY_CONFIG, encodeConfigChange(change));
    if (result === 'accepted') {
      this.#state.pendingConfig = this.lastIndex();
    }
    return result;
  }

  #propose(type: EntryType, data: Uint8Array): ProposalResult {
    const state = this.#state;
    const refusal = this.#whyNotPropose(data.length + ENTRY_OVERHEAD_BYTES);
    if (refusal !== null) {
      state.counters.proposalsRefused += 1;
      return refusal;
    }
    const entry: Entry = { term: state.term, index: state.log.lastIndex() + 1, type, data };
    state.log.push(entry);
    state.uncommittedBytes += entryBytes(entry);
    state.isReplicationDue = true;
    return 'accepted';
  }

  #whyNotPropose(bytes: number): Exclude<ProposalResult, 'accepted'> | null {
    const { role, transferTarget, uncommittedBytes, limits, log } = this.#state;
    if (role !== 'leader') {
      return 'not-leader';
    }
    if (transferTarget !== NOBODY) {
      return 'transferring';
    }
    // One proposal of any size is let through when nothing waits, or it would be refused for ever.
    if (uncommittedBytes > 0 && uncommittedBytes + bytes > limits.uncommittedBytesMax) {
      return 'full';
    }
    return log.lastIndex() >= INDEX_MAX ? 'exhausted' : null;
  }

  /**
   * Asks for a position up to which a read must wait to be linearizable; the answer is a ReadState with `context` in some
   * later Ready. On other nodes the leader is asked. May never be answered (leader lost, message lost): ask again after
   * a timeout, or when the soft state changes, under a new number.
   */
  readIndex(context: number): ReadResult {
    const { role, leader, id } = this.#state;
    assert(Number.isSafeInteger(context) && context > 0, 'the number of a read is positive');
    if (role === 'leader') {
      return addRead(this.#state, id, context) ? 'accepted' : 'full';
    }
    if (leader === NOBODY) {
      return 'no-leader';
    }
    this.#state.send(makeMessage({ type: 'read-index', from: id, to: leader, term: 0, context }));
    return 'accepted';
  }

  /** Not passed on, since it proves nothing about terms: a node that does not lead lets the asker try again. */
  #handleForwardedRead(message: Message): void {
    if (this.#state.role !== 'leader' || !addRead(this.#state, message.from, message.context)) {
      this.#state.counters.messagesIgnored += 1;
    }
  }

  transferLeadership(target: NodeId): TransferResult {
    return startTransfer(this.#state, target);
  }

  /** A follower that knows its leader to be gone need not wait: it grants pre-votes from now on. */
  forgetLeader(): void {
    if (this.#state.role === 'follower') {
      this.#state.leader = NOBODY;
    }
  }

  reportUnreachable(node: NodeId): void {
    onUnreachable(this.#state, node);
  }

  /** Must follow every snapshot message, sooner or later; a transfer that is given up has failed. */
  reportSnapshot(node: NodeId, outcome: 'delivered' | 'failed'): void {
    onSnapshotReport(this.#state, node, outcome === 'delivered');
  }

  hasReady(): boolean {
    const state = this.#state;
    const { log } = state;
    const isDue = state.isReplicationDue && state.tracker.peers.length > 0;
    return (
      log.hasUnwritten ||
      (log.hasCommitted && this.#applyingBytes < state.limits.applyBytesMax) ||
      isDue ||
      state.messages.length > 0 ||
      state.messagesAfterPersist.length > 0 ||
      state.readStates.length > 0 ||
      state.reads.needsRound ||
      state.role !== this.#lastSoftState.role ||
      state.leader !== this.#lastSoftState.leader ||
      this.#isHardStateChanged()
    );
  }

  #isHardStateChanged(): boolean {
    const last = this.#lastHardState;
    const { term, vote, log } = this.#state;
    return term !== last.term || vote !== last.vote || log.committed !== last.commit;
  }

  /** Takes out all work there is. */
  ready(): Ready {
    const state = this.#state;
    if (state.role === 'leader') {
      if (state.isReplicationDue) {
        replicateAll(state);
      }
      if (state.reads.needsRound) {
        broadcastHeartbeat(state);
      }
    }
    this.#readyNumber += 1;
    const entries = state.log.unwrittenEntries();
    const snapshot = state.log.unwrittenSnapshot();
    const isTermOrVoteNew = state.term !== this.#lastHardState.term || state.vote !== this.#lastHardState.vote;
    const ready: Ready = {
      number: this.#readyNumber,
      softState: this.#takeSoftState(),
      hardState: this.#takeHardState(),
      snapshot,
      entries,
      mustSync: entries.length > 0 || snapshot !== null || isTermOrVoteNew,
      messages: state.messages,
      messagesAfterPersist: state.messagesAfterPersist,
      committedEntries: this.#takeCommitted(),
      readStates: state.readStates,
    };
    this.#handouts.push({
      number: this.#readyNumber,
      write: state.log.beginWrite(),
      term: state.term,
      hasSelfVote: state.isSelfVoteDue,
    });
    state.isSelfVoteDue = false;
    state.messages = [];
    state.messagesAfterPersist = [];
    state.readStates = [];
    return ready;
  }

  #takeSoftState(): SoftState | null {
    const { role, leader } = this.#state;
    if (role === this.#lastSoftState.role && leader === this.#lastSoftState.leader) {
      return null;
    }
    this.#lastSoftState = this.softState();
    return this.#lastSoftState;
  }

  #takeHardState(): HardState | null {
    if (!this.#isHardStateChanged()) {
      return null;
    }
    this.#lastHardState = this.hardState();
    return this.#lastHardState;
  }

  #takeCommitted(): readonly Entry[] {
    const state = this.#state;
    const room = state.limits.applyBytesMax - this.#applyingBytes;
    if (room <= 0 || !state.log.hasCommitted) {
      return NO_ENTRIES;
    }
    const entries = state.log.nextCommitted(room);
    const last = entries[entries.length - 1] as Entry;
    const bytes = sumEntryBytes(entries);
    state.log.applying = last.index;
    this.#applyingBytes += bytes;
    this.#applyingSizes.push({ index: last.index, bytes });
    for (const entry of entries) {
      if (entry.type === ENTRY_CONFIG) {
        state.unappliedConfigs.push(entry);
      }
      if (state.role === 'leader' && entry.index > state.termStart) {
        state.uncommittedBytes -= entryBytes(entry);
      }
    }
    assert(state.uncommittedBytes >= 0, 'more was committed than was taken in');
    return entries;
  }

  /** What this Ready asked to write is durable (and its snapshot installed), and so is everything before it. */
  persisted(ready: Ready): void {
    const state = this.#state;
    const handout = this.#handouts.shift();
    assert(handout !== undefined && handout.number === ready.number, 'Readies are reported in order, each once');
    state.log.endWrite(handout.write);
    state.durableTerm = Math.max(state.durableTerm, handout.term);
    if (ready.snapshot !== null && ready.snapshot.index > state.log.applied) {
      state.log.appliedTo(ready.snapshot.index);
      this.#forgetApplying(ready.snapshot.index);
      installConfig(state, ready.snapshot);
    }
    if (handout.hasSelfVote && state.role === 'candidate' && state.term === handout.term) {
      onVote(state, state.id, true);
    }
    if (state.role === 'leader') {
      onOwnAppendDurable(state);
    }
  }

  /** The state machine has taken in everything up to `index`. Membership changes up to there come into force. */
  appliedTo(index: Index): void {
    const state = this.#state;
    assert(index <= state.log.applying, 'applied what was not handed out');
    if (index <= state.log.applied) {
      return;
    }
    state.log.appliedTo(index);
    this.#forgetApplying(index);
    applyConfigsTo(state, index);
  }

  #forgetApplying(index: Index): void {
    while (this.#applyingSizes[0] !== undefined && this.#applyingSizes[0].index <= index) {
      this.#applyingBytes -= this.#applyingSizes[0].bytes;
      this.#applyingSizes.shift();
    }
  }

  /** For a caller that finishes every Ready before the next. */
  advance(ready: Ready): void {
    this.persisted(ready);
    const last = ready.committedEntries.at(-1);
    if (last !== undefined) {
      this.appliedTo(last.index);
    }
  }
}
