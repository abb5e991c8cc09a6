import assert from 'node:assert/strict';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { closeSize, openSize, writeClose, writeOpen } from '../../src/allot/commands.ts';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import { Prng } from '../../src/base/prng.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import type { NodeId } from '../../src/raft/messages.ts';
import type { ChangeAnswer } from '../../src/replica/changes.ts';
import { type OutgoingFrame, Replica, type ReplicaLimits, type ReplicaOptions } from '../../src/replica/replica.ts';
import type { Member, MemberChange, PeerFrame } from '../../src/replica/types.ts';
import { EnvelopeCodec } from '../../src/storage/raft-wal/envelope.ts';
import { drain, hashOf, LIMITS, Transcript, text } from './allot-rig.ts';

export const ELECTION_TICKS = 10;
export const SECOND_TICKS = 10;
export const START_MS = 1_000_000;
const TICK_MS = 100;

export function memberOf(node: NodeId, instance = `i-${node}`): Member {
  return { node, instance, raft: `${node}:7000`, grpc: `${node}:8000`, protocol: 1 };
}

export function openOf(subject: string, counter: number, shard = 0): Uint8Array {
  const bytes = new Uint8Array(openSize(text(subject).length, false));
  writeOpen(new DataView(bytes.buffer), bytes, 0, text(subject), hashOf(subject), shard, counter, 1, 10, 0, -1);
  return bytes;
}

export function storedOf(subject: string, base: number): Uint8Array {
  const bytes = new Uint8Array(closeSize(text(subject).length));
  writeClose(new DataView(bytes.buffer), bytes, 0, text(subject), hashOf(subject), base, AllotVerdict.STORED);
  return bytes;
}

export class Answers extends Transcript {
  /** Answers to each process: `node/incarnation` and the line. */
  readonly opens: string[] = [];

  override opened(shard: number, counter: number, base: number, count: number, time: number): void {
    super.opened(shard, counter, base, count, time);
    this.opens.push(`${this.origins.at(-1)} ${counter}`);
  }
}

export interface RigOptions {
  readonly votersMax?: number;
  readonly limits?: Partial<ReplicaLimits>;
}

/** A replica and its storage; everything that it is asked to write is durable at once. */
export class Node {
  readonly id: NodeId;
  readonly storage: MemoryRaftStorage;
  readonly options: RigOptions;
  own: Member;
  incarnation = 0;
  replica: Replica;
  answers = new Answers();
  /** Hash chain by index. */
  readonly hashes = new Map<number, number>();
  readonly changes: ChangeAnswer[] = [];
  /** Ms that its wall clock is ahead. */
  clockMs = 0;
  isDown = false;
  /** Bytes of its last snapshot. */
  image: { chunks: Uint8Array[]; members: readonly Member[] };

  constructor(own: Member, storage: MemoryRaftStorage, members: readonly Member[], options: RigOptions) {
    this.id = own.node;
    this.own = own;
    this.storage = storage;
    this.options = options;
    this.image = { chunks: drain(new AllotMachine(LIMITS), 4096), members: [...members] };
    this.replica = this.#make();
  }

  #make(): Replica {
    this.incarnation += 1;
    const options: ReplicaOptions = {
      own: this.own,
      incarnationLow: this.incarnation,
      incarnationHigh: this.id.charCodeAt(0),
      storage: this.storage,
      applied: this.storage.snapshot()?.index ?? 0,
      seed: this.id.charCodeAt(0) * 31 + this.incarnation,
      electionTicks: ELECTION_TICKS,
      heartbeatTicks: 1,
      secondTicks: SECOND_TICKS,
      machine: AllotMachine.restore(this.image.chunks, LIMITS),
      members: this.image.members,
      codec: new EnvelopeCodec(),
      votersMax: this.options.votersMax ?? 0,
      ...(this.options.limits === undefined ? {} : { limits: this.options.limits }),
    };
    return new Replica(options);
  }

  /** Only what the storage has survives. */
  restart(): void {
    this.answers = new Answers();
    this.isDown = false;
    this.replica = this.#make();
  }

  /** Of what is applied; the log before it is gone. */
  snapshot(): void {
    const { replica, storage } = this;
    this.image = { chunks: drain(replica.machine, 4096), members: replica.membersForSnapshot() };
    storage.createSnapshot(replica.applied, replica.configState(), this.id);
    storage.compact(replica.applied);
  }

  drive(group: Group): OutgoingFrame[] {
    const sent: OutgoingFrame[] = [];
    for (let round = 0; this.replica.hasWork(); round += 1) {
      assert.ok(round < 10_000, `${this.id} does not come to rest`);
      const { replica } = this;
      const ready = replica.ready(group.wallOf(this));
      sent.push(...replica.takeFrames());
      this.changes.push(...replica.takeChanges());
      if (ready === null) continue;
      if (ready.hardState !== null) this.storage.setHardState(ready.hardState);
      if (ready.snapshot !== null) {
        this.image = { ...group.at(ready.snapshot.ref).image };
        this.storage.applySnapshot(ready.snapshot);
        replica.installed(ready.snapshot, AllotMachine.restore(this.image.chunks, LIMITS), this.image.members);
      }
      this.storage.append(ready.entries);
      replica.persisted(ready);
      sent.push(...replica.takeFrames());
      for (const entry of ready.committedEntries) {
        replica.apply(entry, this.answers);
        this.hashes.set(entry.index, replica.machine.hash());
        replica.appliedTo(entry.index);
      }
    }
    return sent;
  }
}

/** Replicas and a network whose losses, repeats and delays come from a seed. */
export class Group {
  readonly nodes = new Map<NodeId, Node>();
  readonly options: RigOptions;
  wallMs = START_MS;
  /** Takes a frame out when it returns false. */
  filter: (from: NodeId, to: NodeId, frame: PeerFrame) => boolean = () => true;
  /** In 100: lost, repeated, late. */
  faults = { lost: 0, repeated: 0, late: 0 };
  readonly #prng: Prng;
  #late: (OutgoingFrame & { from: NodeId })[] = [];

  constructor(voters: readonly NodeId[], options: RigOptions = {}, seed = 1) {
    this.options = options;
    this.#prng = new Prng(seed);
    const members = voters.map((node) => memberOf(node));
    for (const node of voters) {
      this.nodes.set(node, new Node(memberOf(node), MemoryRaftStorage.bootstrap(voters), members, options));
    }
  }

  at(id: NodeId): Node {
    const node = this.nodes.get(id);
    assert.ok(node, `no node ${id}`);
    return node;
  }

  /** A node without state, as one that joins. */
  join(id: NodeId, instance = `i-${id}`): Node {
    const node = new Node(memberOf(id, instance), new MemoryRaftStorage(), [], this.options);
    this.nodes.set(id, node);
    return node;
  }

  wallOf(node: Node): number {
    return this.wallMs + node.clockMs;
  }

  /** Until nobody has anything to do or to say. */
  settle(): void {
    for (let round = 0; round < 2_000; round += 1) {
      const mail: (OutgoingFrame & { from: NodeId })[] = [];
      for (const node of this.nodes.values()) {
        if (node.isDown) continue;
        for (const each of node.drive(this)) mail.push({ ...each, from: node.id });
      }
      if (mail.length === 0) return;
      for (const each of mail) this.#deliver(each);
    }
    assert.fail('the group does not come to rest');
  }

  #deliver(each: OutgoingFrame & { from: NodeId }): void {
    const { lost, repeated, late } = this.faults;
    if (this.#prng.chance(lost, 100)) return;
    if (this.#prng.chance(late, 100)) {
      this.#late.push(each);
      return;
    }
    this.hand(each.from, each.to, each.frame);
    if (this.#prng.chance(repeated, 100)) this.#late.push(each);
  }

  hand(from: NodeId, to: NodeId, frame: PeerFrame): void {
    const target = this.nodes.get(to);
    if (target === undefined || target.isDown || !this.filter(from, to, frame)) return;
    target.replica.receive(from, frame, this.wallOf(target));
    const isSnapshot = frame.kind === 'raft' && frame.message.type === 'snapshot';
    if (isSnapshot) this.nodes.get(from)?.replica.reportSnapshot(to, 'delivered');
  }

  tick(count: number): void {
    for (let i = 0; i < count; i += 1) {
      this.wallMs += TICK_MS;
      const late = this.#late;
      this.#late = [];
      for (const each of late) this.#deliver(each);
      for (const node of this.nodes.values()) if (!node.isDown) node.replica.tick(this.wallOf(node));
      this.settle();
    }
  }

  isolate(id: NodeId): void {
    this.filter = (from, to) => from !== id && to !== id;
  }

  heal(): void {
    this.filter = () => true;
    this.faults = { lost: 0, repeated: 0, late: 0 };
  }

  /** The one leader; ticks until there is one. */
  leader(): Node {
    for (let i = 0; i < 200; i += 1) {
      const leaders = [...this.nodes.values()].filter(({ isDown, replica }) => !isDown && replica.role === 'leader');
      const top = Math.max(...leaders.map(({ replica }) => replica.term));
      const found = leaders.find(({ replica }) => replica.term === top);
      if (found !== undefined) return found;
      this.tick(1);
    }
    return assert.fail('no leader');
  }

  /** Elects the first and starts all. */
  begin(): Node {
    (this.nodes.values().next().value as Node).replica.campaign();
    this.settle();
    for (const node of this.nodes.values()) node.replica.start(false);
    this.settle();
    return this.leader();
  }

  change(node: Node, change: MemberChange): ChangeAnswer['result'] {
    const token = node.changes.length + 1_000;
    node.replica.change(token, change);
    for (let i = 0; i < 300; i += 1) {
      this.settle();
      const answer = node.changes.find((each) => each.token === token);
      if (answer !== undefined) return answer.result;
      this.tick(1);
    }
    return assert.fail(`no answer to ${change.kind}`);
  }

  /** [R28] The chains are equal wherever two nodes have one. */
  checkHashes(): void {
    const all = new Map<number, number>();
    for (const { id, hashes } of this.nodes.values()) {
      for (const [index, hash] of hashes) {
        assert.equal(all.get(index) ?? hash, hash, `${id} differs at ${index}`);
        all.set(index, hash);
      }
    }
  }
}
