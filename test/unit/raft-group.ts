import assert from 'node:assert/strict';
import type { ConfigChangeKind } from '../../src/raft/config-change.ts';
import { RaftCore } from '../../src/raft/core.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Entry, type Message, makeMessage, type NodeId, type Ready } from '../../src/raft/messages.ts';
import type { RaftOptions } from '../../src/raft/options.ts';

export const ELECTION_TICKS = 10;
export const HEARTBEAT_TICKS = 1;

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function texts(entries: readonly Entry[]): string[] {
  return entries.map((entry) => new TextDecoder().decode(entry.data));
}

/** Entries at consecutive positions from `first`, one per term. */
export function entriesOf(first: number, ...terms: number[]): Entry[] {
  return terms.map((term, i) => ({ term, index: first + i, type: 0, data: bytes(`${first + i}/${term}`) }));
}

/** One core and its storage; `settle` does at once all that its Readies ask for. */
export class Member {
  readonly id: NodeId;
  storage: MemoryRaftStorage;
  core: RaftCore;
  readonly #options: Partial<RaftOptions>;
  readonly applied: Entry[] = [];
  readonly reads = new Map<number, number>();

  constructor(id: NodeId, storage: MemoryRaftStorage, options: Partial<RaftOptions> = {}) {
    this.id = id;
    this.storage = storage;
    this.#options = options;
    this.core = this.#start();
  }

  #start(): RaftCore {
    return new RaftCore({
      electionTicks: ELECTION_TICKS,
      heartbeatTicks: HEARTBEAT_TICKS,
      applied: this.storage.snapshot()?.index ?? 0,
      seed: this.id.charCodeAt(0),
      ...this.#options,
      id: this.id,
      storage: this.storage,
    });
  }

  /** Power cut and start: only what the storage has survives. */
  restart(): void {
    this.applied.length = 0;
    this.core = this.#start();
  }

  persist(ready: Ready): readonly Message[] {
    if (ready.hardState !== null) {
      this.storage.setHardState(ready.hardState);
    }
    if (ready.snapshot !== null) {
      this.storage.applySnapshot(ready.snapshot);
    }
    this.storage.append(ready.entries);
    this.core.persisted(ready);
    return ready.messagesAfterPersist;
  }

  settle(): Message[] {
    const sent: Message[] = [];
    while (this.core.hasReady()) {
      const ready = this.core.ready();
      sent.push(...ready.messages, ...this.persist(ready));
      for (const entry of ready.committedEntries) {
        this.applied.push(entry);
        this.core.appliedTo(entry.index);
      }
      for (const { context, index } of ready.readStates) {
        this.reads.set(context, index);
      }
    }
    return sent;
  }

  tick(count: number): void {
    for (let i = 0; i < count; i += 1) {
      this.core.tick();
    }
  }

  /** Hands in a message as if from a peer, and returns what is sent because of it. */
  receive(fields: Partial<Message> & Pick<Message, 'type' | 'from' | 'term'>): Message[] {
    this.core.step(makeMessage({ to: this.id, ...fields }));
    return this.settle();
  }

  compact(): void {
    this.storage.createSnapshot(this.core.applied, this.core.configState(), `${this.id}/${this.core.applied}`);
    this.storage.compact(this.core.applied);
  }
}

/** Some members and the links between them, all at once and without loss unless cut. */
export class Group {
  readonly members = new Map<NodeId, Member>();
  readonly #cut = new Set<string>();
  /** Takes a message out when it returns false. */
  filter: (message: Message) => boolean = () => true;

  constructor(voters: readonly NodeId[], options: Partial<RaftOptions> = {}, learners: readonly NodeId[] = []) {
    for (const id of [...voters, ...learners]) {
      this.members.set(id, new Member(id, MemoryRaftStorage.bootstrap(voters, learners), options));
    }
  }

  at(id: NodeId): Member {
    const member = this.members.get(id);
    assert.ok(member, `no member ${id}`);
    return member;
  }

  add(id: NodeId, storage = new MemoryRaftStorage()): Member {
    const member = new Member(id, storage);
    this.members.set(id, member);
    return member;
  }

  cut(from: NodeId, to: NodeId): void {
    this.#cut.add(`${from}>${to}`);
  }

  isolate(id: NodeId): void {
    for (const other of this.members.keys()) {
      this.cut(id, other);
      this.cut(other, id);
    }
  }

  heal(): void {
    this.#cut.clear();
  }

  /** Until nobody has anything to do or to say. */
  settle(): void {
    let mail: Message[] = [];
    for (let round = 0; round < 1_000; round += 1) {
      for (const member of this.members.values()) {
        mail.push(...member.settle());
      }
      if (mail.length === 0) {
        return;
      }
      const delivered = mail;
      mail = [];
      for (const message of delivered) {
        const target = this.members.get(message.to);
        if (target !== undefined && !this.#cut.has(`${message.from}>${message.to}`) && this.filter(message)) {
          target.core.step(message);
        }
      }
    }
    assert.fail('the group does not come to rest');
  }

  /** Every member ticks once, then all is delivered; `count` times. */
  tick(count: number): void {
    for (let i = 0; i < count; i += 1) {
      for (const member of this.members.values()) {
        member.core.tick();
      }
      this.settle();
    }
  }

  elect(id: NodeId): void {
    for (const member of this.members.values()) {
      member.core.forgetLeader();
    }
    for (let attempt = 0; attempt < 3 && this.at(id).core.role !== 'leader'; attempt += 1) {
      this.at(id).core.campaign();
      this.settle();
    }
    assert.equal(this.at(id).core.role, 'leader', `${id} was not elected`);
  }

  propose(id: NodeId, text: string): void {
    assert.equal(this.at(id).core.propose(bytes(text)), 'accepted');
    this.settle();
  }

  change(id: NodeId, kind: ConfigChangeKind, node: NodeId): void {
    assert.equal(this.at(id).core.proposeConfigChange({ kind, node, context: new Uint8Array(0) }), 'accepted');
    this.settle();
  }

  leaders(): NodeId[] {
    return [...this.members.values()].filter((member) => member.core.role === 'leader').map((member) => member.id);
  }
}
