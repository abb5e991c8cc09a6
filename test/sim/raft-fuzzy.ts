import assert from 'node:assert/strict';
import { Prng } from '../../src/base/prng.ts';
import type { ConfigChangeKind } from '../../src/raft/config-change.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { ENTRY_NORMAL, type Entry, type Message, type NodeId } from '../../src/raft/messages.ts';
import { bytes, ELECTION_TICKS, Member } from '../unit/raft-group.ts';
import { formatState } from './transcript-format.ts';

/** Messages take this many steps at most; a step is a tick of every node. */
const LATENCY_STEPS_MAX = 2;
/** In this many steps a group without faults gets to rest, or something hangs. */
const REST_STEPS = 40 * ELECTION_TICKS;
const NAMES: readonly NodeId[] = [...'abcdefghijklmn'];

interface Letter {
  readonly dueAt: number;
  readonly message: Message;
}

interface Accepted {
  readonly leader: NodeId;
  readonly index: number;
  readonly term: number;
  readonly text: string;
}

function textOf(entry: Entry): string {
  return `${entry.type}:${Buffer.from(entry.data).toString('latin1')}`;
}

/**
 * Watches all that nodes say and apply: one leader speaks in a term, one vote of a node in a term, one entry at a
 * position of a term, and one order of what the state machines take in. It shares no code with the core.
 */
class Verifier {
  readonly #facts = new Map<string, string>();

  #fix(key: string, value: string): void {
    const known = this.#facts.get(key);
    assert.equal(known ?? value, value, key);
    this.#facts.set(key, value);
  }

  onSend(message: Message): void {
    const { type, from, to, term, reject } = message;
    if (type === 'append' || type === 'heartbeat' || type === 'snapshot') {
      this.#fix(`leader of term ${term}`, from);
    }
    if (type === 'vote') {
      this.#fix(`vote of ${from} in term ${term}`, from);
    }
    if (type === 'vote-response' && !reject) {
      this.#fix(`vote of ${from} in term ${term}`, to);
    }
    for (const entry of message.entries) {
      this.#fix(`entry at ${entry.index} of term ${entry.term}`, textOf(entry));
    }
  }

  onApply(entry: Entry): void {
    this.#fix(`applied at ${entry.index}`, `${entry.term} ${textOf(entry)}`);
  }

  applied(index: number): string | undefined {
    return this.#facts.get(`applied at ${index}`);
  }
}

/**
 * A group of cores with clients, latency and partitions, from one seed. The disks are perfect and as fast as need be:
 * what goes wrong on disks is the business of raft-sim.ts. Every scenario ends with `finish`.
 */
export class FuzzyGroup {
  readonly prng: Prng;
  readonly members = new Map<NodeId, Member>();
  readonly #verifier = new Verifier();
  readonly #cut = new Set<string>();
  readonly #seenApplied = new Map<NodeId, number>();
  #mail: Letter[] = [];
  #accepted: Accepted[] = [];
  /** Acknowledged to a client, by position. */
  readonly #acked = new Map<number, Accepted>();
  #now = 0;
  #proposals = 0;
  /** More steps for a message, beside the latency of every message. */
  delay: (message: Message) => number = () => 0;

  constructor(seed: number, size: number) {
    this.prng = new Prng(seed);
    const voters = NAMES.slice(0, size);
    for (const id of voters) {
      this.#admit(id, MemoryRaftStorage.bootstrap(voters));
    }
  }

  #admit(id: NodeId, storage: MemoryRaftStorage): void {
    this.members.set(id, new Member(id, storage, { seed: this.prng.nextUint32() }));
  }

  get acked(): number {
    return this.#acked.size;
  }

  /** A name nobody had. It runs with an empty disk until somebody adds it. */
  newcomer(): NodeId {
    const id = NAMES[this.members.size];
    assert.ok(id !== undefined, 'names are used up');
    this.#admit(id, new MemoryRaftStorage());
    return id;
  }

  at(id: NodeId): Member {
    const member = this.members.get(id);
    assert.ok(member !== undefined, id);
    return member;
  }

  /** The one of the latest term; an older one may not know of it yet. */
  leader(): Member | undefined {
    const leaders = [...this.members.values()].filter((member) => member.core.role === 'leader');
    return leaders.sort((left, right) => right.core.term - left.core.term)[0];
  }

  voters(): readonly NodeId[] {
    return this.untilLeader().core.configState().voters;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.prng.nextBelow(from.length)] as T;
  }

  /** Nothing goes between these and the others, in either direction. */
  partition(some: readonly NodeId[]): void {
    for (const inside of some) {
      for (const outside of this.members.keys()) {
        if (!some.includes(outside)) {
          this.#cut.add(`${inside}>${outside}`);
          this.#cut.add(`${outside}>${inside}`);
        }
      }
    }
  }

  heal(): void {
    this.#cut.clear();
  }

  /** `isLoaded`: clients propose to whoever believes to be the leader. */
  run(steps: number, isLoaded = true): void {
    for (let i = 0; i < steps; i += 1) {
      this.#step(isLoaded);
    }
  }

  #step(isLoaded: boolean): void {
    this.#now += 1;
    const due = this.#mail.filter((letter) => letter.dueAt <= this.#now);
    this.#mail = this.#mail.filter((letter) => letter.dueAt > this.#now);
    for (const { message } of due) {
      this.#deliver(message);
    }
    for (const member of this.members.values()) {
      member.core.tick();
      if (isLoaded && member.core.role === 'leader' && this.prng.chance(1, 2)) {
        this.#propose(member);
      }
      this.#settle(member);
    }
    this.#acknowledge();
  }

  #deliver(message: Message): void {
    const isLost = this.#cut.has(`${message.from}>${message.to}`);
    if (message.type === 'snapshot') {
      this.members.get(message.from)?.core.reportSnapshot(message.to, isLost ? 'failed' : 'delivered');
    }
    if (!isLost) {
      this.members.get(message.to)?.core.step(message);
    }
  }

  #propose(member: Member): void {
    this.#proposals += 1;
    const text = `p${this.#proposals}`;
    if (member.core.propose(bytes(text)) === 'accepted') {
      const { term } = member.core;
      this.#accepted.push({ leader: member.id, index: member.core.lastIndex(), term, text });
    }
  }

  #settle(member: Member): void {
    for (const message of member.settle()) {
      this.#verifier.onSend(message);
      const latency = 1 + this.prng.nextBelow(LATENCY_STEPS_MAX);
      this.#mail.push({ dueAt: this.#now + latency + this.delay(message), message });
    }
    const seen = this.#seenApplied.get(member.id) ?? 0;
    for (const entry of member.applied.slice(seen)) {
      this.#verifier.onApply(entry);
    }
    this.#seenApplied.set(member.id, member.applied.length);
  }

  /** A client hears of its proposal when the node that took it has applied it. */
  #acknowledge(): void {
    this.#accepted = this.#accepted.filter((proposal) => {
      const { core } = this.at(proposal.leader);
      if (core.applied < proposal.index) {
        return true;
      }
      if (core.termAt(proposal.index) === proposal.term) {
        this.#acked.set(proposal.index, proposal);
      }
      return false;
    });
  }

  untilLeader(): Member {
    for (let i = 0; i < REST_STEPS; i += 1) {
      const leader = this.leader();
      if (leader !== undefined && leader.core.status().peers.filter((peer) => peer.isActive).length > 0) {
        return leader;
      }
      this.#step(true);
    }
    return assert.fail('nobody is elected');
  }

  /** One change, with patience: asked again of whoever leads until it is in force there. */
  change(kind: ConfigChangeKind, node: NodeId): void {
    for (let i = 0; i < REST_STEPS; i += 1) {
      const leader = this.untilLeader();
      const { voters, learners } = leader.core.configState();
      const isThere = { 'add-voter': voters, 'add-learner': learners, remove: [...voters, ...learners] }[kind];
      if (isThere.includes(node) !== (kind === 'remove')) {
        return;
      }
      leader.core.proposeConfigChange({ kind, node, context: new Uint8Array(0) });
      this.#step(true);
    }
    assert.fail(`${kind} ${node} never comes into force`);
  }

  /** Faults and load end; then all members must get to one log, with every acknowledged proposal in it, in one order. */
  finish(): void {
    this.heal();
    this.delay = () => 0;
    for (let i = 0; i < REST_STEPS && !this.#isAtRest(); i += 1) {
      this.#step(false);
    }
    assert.ok(this.#isAtRest(), `no rest: ${this.#describe()}`);
    // What is not decided by now is not decided any more: it is in nobody's log but that of a node that was removed.
    this.#accepted = [];
    this.#propose(this.#leading());
    for (let i = 0; i < REST_STEPS && !(this.#isAtRest() && this.#accepted.length === 0); i += 1) {
      this.#step(false);
    }
    assert.ok(this.#isAtRest() && this.#accepted.length === 0, `no progress: ${this.#describe()}`);
    this.#checkLogs();
    this.#checkMachines();
  }

  #leading(): Member {
    const leader = this.leader();
    assert.ok(leader !== undefined, 'nobody leads');
    return leader;
  }

  #membersOfConfig(leader: Member): Member[] {
    const { voters, learners } = leader.core.configState();
    return [...voters, ...learners].map((id) => this.at(id));
  }

  #isAtRest(): boolean {
    const leader = this.leader();
    const end = leader?.core.lastIndex();
    return leader !== undefined && this.#membersOfConfig(leader).every((member) => member.core.applied === end);
  }

  #describe(): string {
    return [...this.members.values()].map(({ core }) => formatState(core.status())).join('\n');
  }

  #checkLogs(): void {
    const leader = this.#leading();
    for (const member of this.#membersOfConfig(leader)) {
      assert.equal(member.core.lastIndex(), leader.core.lastIndex(), `${member.id} has another end`);
      const first = Math.max(member.storage.firstIndex(), leader.storage.firstIndex());
      const end = leader.core.lastIndex() + 1;
      const logs = [member, leader].map(({ storage }) =>
        (storage.entries(first, end, Number.MAX_SAFE_INTEGER) ?? []).map((entry) => [entry.term, textOf(entry)]),
      );
      assert.deepEqual(logs[0], logs[1], `the logs of ${member.id} and ${leader.id} differ`);
    }
    for (const { index, term, text } of this.#acked.values()) {
      const applied = this.#verifier.applied(index);
      assert.equal(applied, `${term} ${ENTRY_NORMAL}:${text}`, `acknowledged ${text} is not at ${index}`);
    }
  }

  /** Each position once and in order. That it is the same entry everywhere the verifier has seen to. */
  #checkMachines(): void {
    for (const member of this.members.values()) {
      const indexes = member.applied.map((entry) => entry.index);
      const isOrdered = indexes.every((index, i) => i === 0 || index > (indexes[i - 1] as number));
      assert.ok(isOrdered, `${member.id} applies out of order`);
    }
    for (const member of this.#membersOfConfig(this.#leading())) {
      assert.equal(member.applied.at(-1)?.index, member.core.lastIndex(), `${member.id} has not applied all`);
    }
  }
}
