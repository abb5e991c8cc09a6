/**
 * A cluster of the pure parts (Replica and its state machine, the frames of src/net) in one process and in virtual time: counts of messages and bytes are
 * those that real nodes would have under the same load, times are what the virtual network and disk make of them.
 */
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { closeSize, openPartsSize, partSize, writeClose, writeOpenParts, writePart } from '../../src/allot/commands.ts';
import { type AllotSink, AllotVerdict, PartVerdict } from '../../src/allot/verdicts.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { FrameCodec } from '../../src/net/raft-frames.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import type { Ready } from '../../src/raft/messages.ts';
import { Replica } from '../../src/replica/replica.ts';
import { type Member, PROTOCOL_VERSION } from '../../src/replica/types.ts';
import { EnvelopeCodec } from '../../src/storage/raft-wal/envelope.ts';

export interface VirtualOptions {
  readonly voters: number;
  readonly learners: number;
  /** One way, in virtual ms. */
  readonly networkMs: number;
  readonly syncMs: number;
  /** From an open to its close: the store's write. */
  readonly storeMs: number;
  /** Allotments that each node opens in a virtual second. */
  readonly rate: number;
  readonly subjects: number;
  readonly seconds: number;
}

export interface NodeTally {
  framesOut: number;
  framesIn: number;
  bytesOut: number;
  bytesIn: number;
  syncs: number;
  /** Of the real clock: in Replica, state machine and frame codec. */
  cpuMs: number;
  done: number;
}

export interface VirtualResult {
  readonly entries: number;
  readonly logBytes: number;
  readonly allotments: number;
  readonly leader: NodeTally;
  /** Of all that do not lead, each. */
  readonly voter: NodeTally;
  readonly learner: NodeTally | null;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly terms: number;
}

const STEP_MS = 0.1;
const TICK_MS = 100;
/** A node gathers what its shards ask for in this time, as the rounds of the Raft thread do under load. */
const SUBMIT_MS = 1;
const START_MS = 1_700_000_000_000;
/** Before the load begins, and of load before it is counted, in virtual ms. */
const ELECT_MS = 4_000;
const SETTLE_MS = 1_000;
const LIMITS = { subjectsMax: 1_000_000, producersMax: 1_000_000, openPerNodeMax: 1_000_000 };

const newTally = (): NodeTally => ({ framesOut: 0, framesIn: 0, bytesOut: 0, bytesIn: 0, syncs: 0, cpuMs: 0, done: 0 });
const ignore = (): void => undefined;

interface Due<T> {
  readonly at: number;
  readonly what: T;
}

/** In the order in which they were put in, which is that of their times: every delay is the same. */
class Line<T> {
  readonly #items: Due<T>[] = [];
  #first = 0;

  add(at: number, what: T): void {
    this.#items.push({ at, what });
  }

  take(now: number): T | null {
    const next = this.#items[this.#first];
    if (next === undefined || next.at > now) return null;
    this.#first += 1;
    if (this.#first > 4_096) {
      this.#items.splice(0, this.#first);
      this.#first = 0;
    }
    return next.what;
  }
}

class VirtualNode implements AllotSink {
  readonly name: string;
  readonly replica: Replica;
  readonly inbox = new Line<{ readonly from: string; readonly bytes: Buffer }>();
  tally = newTally();
  latencies: number[] = [];
  readonly #storage: MemoryRaftStorage;
  readonly #options: VirtualOptions;
  readonly #codec = new FrameCodec();
  readonly #unwritten: Ready[] = [];
  readonly #toClose = new Line<{ readonly subject: number; readonly base: number }>();
  readonly #number: number;
  readonly #openedAt = new Map<number, number>();
  #syncEnds = Number.POSITIVE_INFINITY;
  #covered = 0;
  #isOwn = false;
  #counter = 0;
  #owed = 0;
  now = 0;

  constructor(number: number, names: readonly string[], options: VirtualOptions) {
    this.#number = number;
    this.name = names[number] as string;
    this.#options = options;
    const members = names.map(memberOf);
    this.#storage = MemoryRaftStorage.bootstrap(names.slice(0, options.voters), names.slice(options.voters));
    this.replica = new Replica({
      own: memberOf(this.name),
      incarnationLow: number + 1,
      incarnationHigh: 1,
      storage: this.#storage,
      applied: 1,
      seed: number + 1,
      electionTicks: 10,
      heartbeatTicks: 1,
      secondTicks: 10,
      machine: new AllotMachine(LIMITS),
      members,
      codec: new EnvelopeCodec(),
      votersMax: options.voters,
    });
    this.replica.start(true);
  }

  get wallMs(): number {
    return START_MS + Math.floor(this.now);
  }

  /** What is to be done at this time; `send` gets each frame as bytes. */
  step(now: number, send: (to: string, bytes: Buffer) => void): void {
    this.now = now;
    const begun = performance.now();
    for (let mail = this.inbox.take(now); mail !== null; mail = this.inbox.take(now)) {
      this.tally.framesIn += 1;
      this.tally.bytesIn += mail.bytes.length;
      this.replica.receive(mail.from, this.#codec.decode(mail.bytes.subarray(8)), this.wallMs);
    }
    if (now >= this.#syncEnds) {
      this.#syncEnds = Number.POSITIVE_INFINITY;
      this.tally.syncs += 1;
      for (const ready of this.#unwritten.splice(0, this.#covered)) this.#durable(ready);
    }
    while (this.replica.hasWork()) {
      const ready = this.replica.ready(this.wallMs);
      this.replica.takeChanges();
      if (ready === null) break;
      if (ready.mustSync || this.#unwritten.length > 0) this.#unwritten.push(ready);
      else this.#durable(ready);
      for (const entry of ready.committedEntries) this.replica.apply(entry, this);
      const last = ready.committedEntries.at(-1);
      if (last !== undefined) this.replica.appliedTo(last.index);
    }
    if (this.#unwritten.length > 0 && this.#syncEnds === Number.POSITIVE_INFINITY) {
      this.#syncEnds = now + this.#options.syncMs;
      this.#covered = this.#unwritten.length;
    }
    for (const { to, frame } of this.replica.takeFrames()) {
      const bytes = this.#codec.encode(frame);
      this.tally.framesOut += 1;
      this.tally.bytesOut += bytes.length;
      send(to, bytes);
    }
    this.tally.cpuMs += performance.now() - begun;
  }

  #durable(ready: Ready): void {
    if (ready.hardState !== null) this.#storage.setHardState(ready.hardState);
    if (ready.entries.length > 0) this.#storage.append(ready.entries);
    this.replica.persisted(ready);
  }

  /** Bytes of the entries above an index. */
  logBytesBehind(index: number): number {
    const entries = this.#storage.entries(index + 1, this.replica.applied + 1, Number.MAX_SAFE_INTEGER) ?? [];
    return entries.reduce((sum, { data }) => sum + data.length, 0);
  }

  tick(): void {
    this.replica.tick(this.wallMs);
  }

  /** The load of SUBMIT_MS. */
  ask(): void {
    if (!this.replica.isStarted) return;
    const commands: Uint8Array[] = [];
    for (let due = this.#toClose.take(this.now); due !== null; due = this.#toClose.take(this.now)) {
      const name = nameOf(due.subject);
      const bytes = new Uint8Array(closeSize(name.length));
      const hash = subjectHash(name, 0, name.length);
      writeClose(new DataView(bytes.buffer), bytes, 0, name, hash, due.base, AllotVerdict.STORED);
      commands.push(bytes);
    }
    this.#owed += (this.#options.rate * SUBMIT_MS) / 1_000;
    for (; this.#owed >= 1; this.#owed -= 1) commands.push(this.#open());
    if (commands.length === 0) return;
    const whole = Buffer.concat(commands);
    // What the log does not take now is lost to this load: a rate that is too high shows as such.
    this.replica.submit([whole]);
  }

  /** Each of a producer of its own, as many as there are in a second. */
  #open(): Uint8Array {
    const counter = this.#counter++;
    const { rate, subjects } = this.#options;
    const name = nameOf(counter % subjects);
    const producer = Buffer.from(`node-${this.#number}-producer-${counter % rate}`);
    const bytes = new Uint8Array(openPartsSize(name.length, false) + partSize(producer.length));
    const view = new DataView(bytes.buffer);
    const hash = subjectHash(name, 0, name.length);
    const at = writeOpenParts(view, bytes, 0, name, hash, 0, counter, 1, 300, 0, -1, 1);
    const sequence = Math.floor(counter / rate) + 1;
    writePart(view, bytes, at, 1, producer, sequence, counter);
    this.#openedAt.set(counter, this.now);
    return bytes;
  }

  origin(_payload: Uint8Array, _start: number, _end: number, low: number): void {
    this.#isOwn = low === this.#number + 1;
  }

  readonly partsOpened: AllotSink['partsOpened'] = (_shard, counter, base, _count, _time, parts) => {
    if (!this.#isOwn) return;
    if (parts.verdict[0] !== PartVerdict.ALLOTTED) throw new Error(`an open was answered with ${parts.verdict[0]}`);
    this.#toClose.add(this.now + this.#options.storeMs, { subject: counter % this.#options.subjects, base });
  };

  readonly verdict: AllotSink['verdict'] = (_names, _start, _end, _hash, _base, _count, verdict, applied, owner) => {
    if (!this.#isOwn || verdict !== AllotVerdict.STORED || !applied) return;
    const at = this.#openedAt.get(owner.counter);
    if (at === undefined) return;
    this.#openedAt.delete(owner.counter);
    this.latencies.push(this.now - at);
    this.tally.done += 1;
  };

  readonly openRefused: AllotSink['openRefused'] = (_shard, _counter, reason) => {
    throw new Error(`an open was refused with reason ${reason}`);
  };
  moved = ignore;
  born = ignore;
  opened = ignore;
  producerOpened = ignore;
  nodeStarted = ignore;
  trimmed = ignore;
}

const names: Uint8Array[] = [];
function nameOf(subject: number): Uint8Array {
  names[subject] ??= Buffer.from(`perf.subject.${subject}`);
  return names[subject];
}

function memberOf(node: string): Member {
  return { node, instance: `i-${node}`, raft: `${node}:7000`, grpc: `${node}:8000`, protocol: PROTOCOL_VERSION };
}

export function runVirtual(options: VirtualOptions): VirtualResult {
  const { voters, learners, networkMs, seconds } = options;
  const ids = Array.from({ length: voters + learners }, (_, i) => `n${String(i).padStart(2, '0')}`);
  const nodes = ids.map((_, i) => new VirtualNode(i, ids, options));
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const end = ELECT_MS + SETTLE_MS + seconds * 1_000;
  let firstEntry = 0;
  let firstTerm = 0;
  let cpu = process.cpuUsage();
  let begunAt = performance.now();
  let stepNumber = 0;
  for (let now = 0; now < end; now = ++stepNumber * STEP_MS) {
    const isAt = (everyMs: number): boolean => stepNumber % Math.round(everyMs / STEP_MS) === 0;
    if (isAt(TICK_MS)) for (const node of nodes) node.tick();
    if (now >= ELECT_MS && isAt(SUBMIT_MS)) for (const node of nodes) node.ask();
    for (const node of nodes) {
      node.step(now, (to, bytes) => byName.get(to)?.inbox.add(now + networkMs, { from: node.name, bytes }));
    }
    if (stepNumber !== Math.round((ELECT_MS + SETTLE_MS) / STEP_MS)) continue;
    firstEntry = Math.max(...nodes.map(({ replica }) => replica.applied));
    firstTerm = Math.max(...nodes.map(({ replica }) => replica.term));
    for (const node of nodes) {
      node.tally = newTally();
      node.latencies = [];
    }
    cpu = process.cpuUsage();
    begunAt = performance.now();
  }
  // What other programs took of the processor meanwhile is in the times of all nodes alike.
  const { user, system } = process.cpuUsage(cpu);
  const share = (user + system) / 1_000 / (performance.now() - begunAt);
  for (const { tally } of nodes) tally.cpuMs *= share;
  return summarize(nodes, options, firstEntry, firstTerm);
}

function summarize(nodes: readonly VirtualNode[], options: VirtualOptions, first: number, term: number): VirtualResult {
  const leader = nodes.find(({ replica }) => replica.role === 'leader');
  if (leader === undefined) throw new Error('nobody leads at the end');
  const voters = nodes.slice(0, options.voters).filter((node) => node !== leader);
  const learners = nodes.slice(options.voters);
  const latencies = nodes.flatMap((node) => node.latencies).sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor(share * latencies.length)] ?? 0;
  const entries = leader.replica.applied - first;
  return {
    entries,
    logBytes: leader.logBytesBehind(first),
    allotments: nodes.reduce((sum, { tally }) => sum + tally.done, 0),
    leader: leader.tally,
    voter: mean(voters.map(({ tally }) => tally)),
    learner: learners.length === 0 ? null : mean(learners.map(({ tally }) => tally)),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    terms: leader.replica.term - term,
  };
}

function mean(tallies: readonly NodeTally[]): NodeTally {
  const sum = newTally();
  for (const tally of tallies) {
    for (const key of Object.keys(sum) as (keyof NodeTally)[]) sum[key] += tally[key] / tallies.length;
  }
  return sum;
}
