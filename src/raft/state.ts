import { assert } from '../base/assert.ts';
import { Prng } from '../base/prng.ts';
import { RaftLog } from './log.ts';
import type { Entry, Index, Message, NodeId, ReadState, Role, Term } from './messages.ts';
import { NOBODY } from './messages.ts';
import { completeOptions, type RaftLimits, type RaftOptions } from './options.ts';
import { ReadQueue } from './read-only.ts';
import { Tracker } from './tracker.ts';

/** Counted since start; read by the caller for its metrics. */
export interface RaftCounters {
  preElections: number;
  elections: number;
  leaderships: number;
  proposalsRefused: number;
  appendsRefused: number;
  snapshotsSent: number;
  messagesIgnored: number;
}

/**
 * Everything a node is, without the rules. The modules of the roles (follower.ts, candidate.ts, leader.ts) change it;
 * `transitions.ts` alone changes `role`. Only RaftCore is for use outside this folder.
 */
export class RaftState {
  readonly limits: RaftLimits;
  readonly id: NodeId;
  readonly log: RaftLog;
  readonly tracker: Tracker;
  readonly reads: ReadQueue;
  readonly counters: RaftCounters;
  readonly #prng: Prng;

  role: Role = 'follower';
  leader: NodeId = NOBODY;
  term: Term;
  vote: NodeId;
  /** The term as it is on disk. Whoever hears of a later one must wait for it. */
  durableTerm: Term;

  /** Ticks since a leader was heard (follower), since the campaign began, since the last quorum check (leader). */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  electionTimeout = 0;

  /** candidate: the own vote counts when it is durable (R3). */
  isSelfVoteDue = false;
  /** leader: the position of the empty entry that opens the term. */
  termStart: Index = 0;
  /** leader: positions up to here may hold a membership change that is not applied. */
  pendingConfig: Index = 0;
  /** leader: bytes of this term's entries not handed out as committed yet. */
  uncommittedBytes = 0;
  /** leader: who is to take over; '' for nobody. */
  transferTarget: NodeId = NOBODY;
  /** leader: something is new for the peers; sent when the next Ready is made, so that proposals share an append. */
  isReplicationDue = false;

  /** Config entries handed out and not yet applied. */
  readonly unappliedConfigs: Entry[] = [];
  messages: Message[] = [];
  messagesAfterPersist: Message[] = [];
  readStates: ReadState[] = [];

  constructor(options: RaftOptions) {
    this.limits = completeOptions(options);
    const { storage, id, inflightMessagesMax, inflightBytesMax, readsMax, seed } = this.limits;
    const { hardState, config } = storage.initialState();
    this.id = id;
    this.log = new RaftLog(storage, options.applied);
    this.tracker = new Tracker(id, inflightMessagesMax, inflightBytesMax);
    this.tracker.setConfig(config, this.log.lastIndex());
    this.reads = new ReadQueue(readsMax);
    this.#prng = new Prng(seed);
    this.counters = {
      preElections: 0,
      elections: 0,
      leaderships: 0,
      proposalsRefused: 0,
      appendsRefused: 0,
      snapshotsSent: 0,
      messagesIgnored: 0,
    };
    this.term = hardState.term;
    this.vote = hardState.vote;
    this.durableTerm = hardState.term;
    assert(this.term >= this.log.lastTerm(), 'the log is of a later term than the hard state');
    this.drawElectionTimeout();
  }

  /** Different at every call, so that two candidates do not stay in step (Raft paper 5.2). */
  drawElectionTimeout(): void {
    this.electionTimeout = this.limits.electionTicks + this.#prng.nextBelow(this.limits.electionTicks);
  }

  /** To be sent at once, unless it tells of a term that is not on disk (R3). */
  send(message: Message): void {
    assert(message.to !== this.id && message.to !== NOBODY, 'message without a receiver');
    if (this.term > this.durableTerm) {
      this.messagesAfterPersist.push(message);
    } else {
      this.messages.push(message);
    }
  }

  /** Votes, vote requests and acknowledgements promise what is about to be written. */
  sendAfterPersist(message: Message): void {
    assert(message.to !== this.id && message.to !== NOBODY, 'message without a receiver');
    this.messagesAfterPersist.push(message);
  }

  /** May this node become leader? Not while it waits for a snapshot: it would lead with a log it does not have. */
  get isPromotable(): boolean {
    return this.tracker.isSelfVoter && !this.log.hasSnapshot;
  }

  get hasCommittedInTerm(): boolean {
    return this.log.term(this.log.committed) === this.term;
  }
}
