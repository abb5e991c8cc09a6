import { ENTRY_CONFIG, type Entry, type Message, type NodeId, type Ready } from '../../src/raft/messages.ts';
import type { SimDisk } from './raft-disk.ts';

/** A promise of Raft is broken. */
export class SafetyViolation extends Error {
  override name = 'SafetyViolation';
}

/** Ticks in which a leader without a majority has to step down: two of its rounds of questions, and one to spare. */
export const QUORUM_TICKS_MAX = 30;

interface Reign {
  readonly term: number;
  readonly voters: string;
  readonly since: number;
  readonly heard: Map<NodeId, number>;
}

function check(isTrue: boolean, message: () => string): void {
  if (!isTrue) {
    throw new SafetyViolation(message());
  }
}

/** Watches a whole run from outside; it shares no code with the core and outlives crashes of nodes. */
export class RaftCheckers {
  readonly #leaders = new Map<number, NodeId>();
  readonly #votes = new Map<string, NodeId>();
  readonly #reigns = new Map<NodeId, Reign>();
  /** Entry and term of the entry before it, by position and term. */
  readonly #appended = new Map<string, { data: Uint8Array; type: number; previousTerm: number }>();
  /** Terms by position. With the above they fix the entries. */
  readonly #committed: (number | undefined)[] = [];
  readonly #machineHashes: (number | undefined)[] = [];
  /** The highest position that anybody ever knew to be committed. */
  committedMax = 0;

  /** Election safety (Raft paper, figure 3). */
  onLeader(node: NodeId, term: number): void {
    const known = this.#leaders.get(term);
    check(known === undefined || known === node, () => `term ${term} has two leaders, ${known} and ${node}`);
    this.#leaders.set(term, node);
  }

  /** What a leader hears from the others, with its own count of ticks. */
  onHeard(leader: NodeId, message: Message, ticks: number): void {
    const reign = this.#reigns.get(leader);
    if (reign !== undefined && message.term === reign.term) {
      reign.heard.set(message.from, ticks);
    }
  }

  /** A transfer gets a whole election timeout, and the question for the majority waits for it. */
  onTransfer(leader: NodeId): void {
    this.#reigns.delete(leader);
  }

  /** A leader that a majority does not answer any more steps down (R10). New members get the same time. */
  onLeading(
    node: NodeId,
    now: { readonly term: number; readonly voters: readonly NodeId[]; readonly ticks: number },
  ): void {
    const voters = now.voters.join();
    let reign = this.#reigns.get(node);
    if (reign === undefined || reign.term !== now.term || reign.voters !== voters) {
      reign = { term: now.term, voters, since: now.ticks, heard: new Map() };
      this.#reigns.set(node, reign);
    }
    const { since, heard } = reign;
    if (now.ticks - since < QUORUM_TICKS_MAX) {
      return;
    }
    const active = now.voters.filter(
      (voter) => voter === node || now.ticks - (heard.get(voter) ?? since) < QUORUM_TICKS_MAX,
    );
    check(
      active.length * 2 > now.voters.length,
      () => `${node} leads term ${now.term}, and only [${active}] of [${voters}] answer`,
    );
  }

  get leaderTerms(): number {
    return this.#leaders.size;
  }

  /** What a message says must be on the sender's disk when it leaves. */
  onSend(message: Message, disk: SimDisk): void {
    const { type, from, to, term, reject } = message;
    if (type === 'vote' || (type === 'vote-response' && !reject)) {
      const candidate = type === 'vote' ? from : to;
      const key = `${from} ${term}`;
      const known = this.#votes.get(key) ?? candidate;
      check(known === candidate, () => `${from} votes for ${known} and ${candidate} in term ${term}`);
      this.#votes.set(key, candidate);
      const { hardState } = disk;
      const isOnDisk = hardState.term > term || (hardState.term === term && hardState.vote === candidate);
      check(isOnDisk, () => `${from} speaks of its vote in term ${term} before it is on disk`);
    }
    if (type === 'append-response' && !reject) {
      // Seed 1680: what it acknowledged was replaced, by the leader of a later term, before it was ever handed out for writing. That term is
      // on disk by now, and its leader was elected by a majority of which nobody had the entry: the old leader cannot commit it.
      const isOver = disk.hardState.term > term;
      check(
        isOver || disk.last >= message.index,
        () => `${from} acknowledges ${message.index}, its disk ends at ${disk.last}`,
      );
    }
    if (type !== 'pre-vote' && type !== 'pre-vote-response') {
      check(disk.hardState.term >= term, () => `${from} speaks of term ${term} before it is on disk`);
    }
  }

  /** Log matching (figure 3): by induction, if entry and predecessor are fixed by position and term. */
  onAppend(entries: readonly Entry[], termBefore: number): void {
    let previousTerm = termBefore;
    for (const { index, term, data, type } of entries) {
      const key = `${index} ${term}`;
      const known = this.#appended.get(key);
      if (known === undefined) {
        this.#appended.set(key, { data, type, previousTerm });
      } else {
        const isSame = known.data === data && known.type === type && known.previousTerm === previousTerm;
        check(isSame, () => `two entries at position ${index} of term ${term}`);
      }
      previousTerm = term;
    }
  }

  /** Leader completeness and state machine safety (figure 3): what is committed once is committed for ever. */
  onCommitted(node: NodeId, index: number, term: number): void {
    const known = this.#committed[index];
    const isSame = known === undefined || known === term;
    check(isSame, () => `position ${index} was committed in term ${known}, ${node} has term ${term} there`);
    this.#committed[index] = term;
    this.committedMax = Math.max(this.committedMax, index);
  }

  /** A leader may call committed only what a majority of its members has on disk. */
  onLeaderCommit(
    leader: NodeId,
    index: number,
    term: number,
    voters: readonly NodeId[],
    disks: (node: NodeId) => Pick<SimDisk, 'holds'>,
  ): void {
    const holders = voters.filter((voter) => disks(voter).holds(index, term));
    check(
      holders.length * 2 > voters.length,
      () => `${leader} commits position ${index}, which of [${voters}] only [${holders}] have on disk`,
    );
  }

  onApply(node: NodeId, entry: Entry, hash: number, disk: SimDisk): void {
    const { index, term } = entry;
    check(disk.holds(index, term), () => `${node} applies position ${index} before it is on its disk`);
    check(this.#appended.get(`${index} ${term}`)?.data === entry.data, () => `${node} applies what nobody appended`);
    this.onCommitted(node, index, term);
    this.onMachineState(node, index, hash);
  }

  onMachineState(node: NodeId, index: number, hash: number): void {
    const known = this.#machineHashes[index];
    check(known === undefined || known === hash, () => `state machine of ${node} differs at position ${index}`);
    this.#machineHashes[index] = hash;
  }

  onRead(node: NodeId, committedAtStart: number, index: number): void {
    check(index >= committedAtStart, () => `stale read on ${node}: ${index}, committed before it: ${committedAtStart}`);
  }

  /** What a Ready may not hand out together or out of order. */
  onReady(node: NodeId, ready: Ready, applied: number): void {
    const first = ready.committedEntries[0];
    check(
      first === undefined || first.index === applied + 1,
      () => `${node} is given ${first?.index} after ${applied}`,
    );
    const isMembership = ready.entries.filter((entry) => entry.type === ENTRY_CONFIG);
    check(
      isMembership.every((entry) => entry.data.length > 0),
      () => 'an empty membership change',
    );
  }
}
