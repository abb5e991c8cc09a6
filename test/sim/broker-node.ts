/**
 * One broker in one thread: its main thread, its Raft thread and its shard threads are actors of a simulation, each with the code that it has
 * in production. What is the simulator's own: the pool that starts, kills and replaces shard threads, the ports between threads, and the files of the log.
 */
import { EventEmitter } from 'node:events';
import type { MessagePort } from 'node:worker_threads';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { assert, defined } from '../../src/base/assert.ts';
import { Exclusive } from '../../src/base/exclusive.ts';
import { slotOfHash } from '../../src/base/subject.ts';
import type { SubjectScope } from '../../src/base/subject-space.ts';
import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { createDoorbell, Doorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/ring-producer.ts';
import { deleteSegments } from '../../src/storage/embedded/retention.ts';
import type { RaftWal } from '../../src/storage/raft-wal/raft-wal.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import type { DispatcherLimits } from '../../src/workers/front/dispatcher-limits.ts';
import { watchLoad } from '../../src/workers/front/load-watch.ts';
import { CONTROL_RING_BYTES } from '../../src/workers/link.ts';
import type {
  FromShardThread,
  OpenAllotment,
  RaftThreadData,
  ShardRings,
  ShardTask,
  SubjectRow,
  ToShardThread,
} from '../../src/workers/messages.ts';
import { RaftAgent } from '../../src/workers/raft/raft-agent.ts';
import { RaftCounters } from '../../src/workers/raft/raft-counters.ts';
import { RaftNode } from '../../src/workers/raft/raft-node.ts';
import { ShardCounters } from '../../src/workers/shard/shard-counters.ts';
import { serveShard } from '../../src/workers/shard/shard-thread.ts';
import { MoveCounters } from '../../src/workers/slots/move-counters.ts';
import { type ResizePool, Resizer } from '../../src/workers/slots/resizer.ts';
import { type MovePool, SlotMover } from '../../src/workers/slots/slot-mover.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import type { MemoryDisk } from '../unit/embedded-memory-disk.ts';
import type { SimDatabase } from './broker-store.ts';
import { Actor, type SimTime } from './broker-time.ts';

export const SHARDS_MAX = 4;
const RING_BYTES = 1 << 17;
/** Of the simulated database, in ms. */
const STORE_TIMEOUT_MS = 200;
/** Ways of a message between two threads, in ms. */
const PORT_MS_MAX = 0.5;
const RAFT_RING = 1 << 17;
const DATABASE = { kind: 'postgres', timeoutMs: STORE_TIMEOUT_MS };
const SEGMENT_BYTES = 4 << 10;
/** With less space on the disk publishes are refused. */
export const LOW_SPACE_BYTES = 1 << 20;
const SEGMENTS = '/data/segments';

export const LIMITS: DispatcherLimits = {
  shardsMax: SHARDS_MAX,
  ringBytes: RING_BYTES,
  callsMax: 200,
  bytesMax: 1 << 20,
  receiveTimeoutMs: 30_000,
  requestTimeoutMs: 300_000,
  consumerSubjectsMax: 2_000,
  subscriptionsMax: 20_000,
  bufferBytes: 16 << 10,
  unsentBytesMax: 1 << 20,
  stallTimeoutMs: 10_000,
  producerStreamsMax: 50,
  sectionBytesMax: 8 << 10,
  window: { bytesMin: 4 << 10, bytesStart: 16 << 10, bytesMax: 256 << 10, targetMs: 50 },
  scan: { bodyBytes: 4 << 10, headersBytes: 1 << 10, headersCount: 8 },
};

/** Two ends that give each other messages, in order. */
class SimPort extends EventEmitter {
  readonly #time: SimTime;
  readonly #owner: Actor;
  #other: SimPort | null = null;
  #lastArrival = 0;
  /** Nobody listened yet. */
  readonly #early: unknown[] = [];

  constructor(time: SimTime, owner: Actor) {
    super();
    this.#time = time;
    this.#owner = owner;
  }

  static pair(time: SimTime, left: Actor, right: Actor): [SimPort, SimPort] {
    const ends: [SimPort, SimPort] = [new SimPort(time, left), new SimPort(time, right)];
    ends[0].#other = ends[1];
    ends[1].#other = ends[0];
    return ends;
  }

  override on(name: string, listener: (message: unknown) => void): this {
    super.on(name, listener);
    for (const message of this.#early.splice(0)) listener(message);
    return this;
  }

  postMessage(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    const other = defined(this.#other, 'a port has another end');
    const copy = transfer.length === 0 ? message : structuredClone(message, { transfer: [...transfer] });
    const at = Math.max(this.#lastArrival, this.#time.now + this.#time.between(0.01, PORT_MS_MAX));
    this.#lastArrival = at;
    this.#time.post(other.#owner, at - this.#time.now, () => {
      if (!other.emit('message', copy)) other.#early.push(copy);
    });
  }

  close(): void {
    // Nothing is held open.
  }
}

/** The Raft thread, and the main thread's handle of it. */
class SimRaft {
  readonly actor = new Actor('raft');
  readonly node: RaftNode;
  readonly #agent: RaftAgent;
  readonly #time: SimTime;
  readonly #main: Actor;
  #poke: () => void = () => undefined;
  /** Longest sync of the log, in ms. */
  syncMsMax = 2;

  constructor(time: SimTime, main: Actor, data: RaftThreadData) {
    this.#time = time;
    this.#main = main;
    const limits = {
      subjectsMax: data.subjectsMax,
      producersMax: data.producersMax,
      openPerNodeMax: data.openPerNodeMax,
    };
    const wal = {
      holdsReserve: true,
      append: () => undefined,
      sync: () => {
        this.actor.pauseUntil(time.now + time.between(0.1, this.syncMsMax));
      },
    } as unknown as RaftWal;
    this.node = time.as(
      this.actor,
      () =>
        new RaftNode({
          data,
          events: {
            report: () => undefined,
            onFatal: (error) => time.fail(error),
            onLeader: () => undefined,
            onListening: () => undefined,
            onAnswersLost: () => time.fail(new Error('answers were lost')),
            wake: () => this.#poke(),
          },
          storage: MemoryRaftStorage.bootstrap([data.nodeName]),
          wal,
          machine: new AllotMachine(limits),
          members: [],
          limits,
          incarnation: Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]),
          links: null,
          own: { node: data.nodeName, instance: data.instanceId, raft: '', grpc: '', protocol: 1 },
          replayed: [],
        }),
    );
    this.#agent = new RaftAgent(this.node, data, () => this.#poke());
    this.node.answerTo(this.#agent);
  }

  start(data: RaftThreadData): void {
    const doorbell = new Doorbell(data.doorbell);
    this.#poke = () => doorbell.poke();
    this.node.open();
    setInterval(() => this.#agent.tick(), data.heartbeatMs);
    doorbell.run(() => this.#agent.doWork(), { stopped: false }).catch((error: unknown) => this.#time.fail(error));
    this.node.start().catch((error: unknown) => this.#time.fail(error));
  }

  attach(shard: number, rings: ShardRings, doorbell: SharedArrayBuffer): void {
    this.#tell(() => {
      this.#agent.attach(shard, rings, doorbell);
      this.#poke();
    });
  }

  detach(shard: number): Promise<void> {
    return this.#ask((answer) => this.#agent.detach(shard, () => answer(undefined)));
  }

  openAllotments(): Promise<readonly OpenAllotment[]> {
    return this.#ask((answer) => answer(this.#agent.openAllotments()));
  }

  listSubjects(scope: SubjectScope, cursor: number, limit: number): Promise<{ rows: SubjectRow[]; next: number }> {
    return this.#ask((answer) => answer(this.#agent.listSubjects(scope, cursor, limit)));
  }

  #arrival = 0;

  #tell(work: () => void): void {
    this.#arrival = Math.max(this.#arrival, this.#time.now + this.#time.between(0.01, PORT_MS_MAX));
    this.#time.post(this.actor, this.#arrival - this.#time.now, work);
  }

  #ask<T>(work: (answer: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve) => {
      this.#tell(() =>
        work((value) => void this.#time.post(this.#main, this.#time.between(0.01, PORT_MS_MAX), () => resolve(value))),
      );
    });
  }
}

interface Running {
  readonly actor: Actor;
  readonly port: SimPort;
  readonly generation: number;
  readonly ready: PromiseWithResolvers<null>;
  readonly ended: PromiseWithResolvers<string>;
  isReady: boolean;
  isRetiring: boolean;
}

/** What a ShardPool does, with actors in place of threads. */
class SimPool implements MovePool, ResizePool {
  readonly #node: SimNode;
  readonly #running: (Running | null)[] = new Array<Running | null>(SHARDS_MAX).fill(null);
  readonly #members = new Set<number>();
  readonly #asked = new Map<number, { readonly shard: number; readonly answer: (m: FromShardThread | null) => void }>();
  readonly #waiting = new Set<() => void>();
  #generation = 0;
  #nextToken = 1;
  deaths = 0;
  dropped = 0;

  constructor(node: SimNode) {
    this.#node = node;
  }

  get members(): number[] {
    return [...this.#members].sort((a, b) => a - b);
  }

  async start(shards: number): Promise<void> {
    for (let shard = 0; shard < shards; shard++) this.#members.add(shard);
    await Promise.all(this.members.map((shard) => this.#start(shard, [], false)));
  }

  generation(shard: number): number {
    const running = this.#running[shard];
    return running?.isReady === true ? running.generation : 0;
  }

  actorOf(shard: number): Actor | null {
    return this.#running[shard]?.actor ?? null;
  }

  /** Each has its thread, and what the log was asked by those before has been applied: a replacement begins behind it. */
  async whenAllReady(): Promise<void> {
    while (this.members.some((shard) => this.generation(shard) === 0)) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  async whenReady(shard: number): Promise<void> {
    while (this.generation(shard) === 0) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async grow(shard: number): Promise<string | null> {
    const failure = await this.#start(shard, [], false);
    if (failure !== null || this.generation(shard) === 0) {
      await this.#node.raft.detach(shard);
      this.#node.dispatcher.retire(shard);
      return failure ?? 'its thread died';
    }
    this.#members.add(shard);
    return null;
  }

  async retire(shard: number): Promise<void> {
    assert(this.#node.table.count(shard) === 0, () => `shard ${shard} owns slots`);
    while (this.#members.has(shard)) {
      await this.whenReady(shard);
      const running = this.#running[shard];
      if (running === null || running === undefined) continue;
      running.isRetiring = true;
      running.port.postMessage({ kind: 'stop' } satisfies ToShardThread);
      await running.ended.promise;
    }
    await this.#node.raft.detach(shard);
    this.#node.dispatcher.retire(shard);
    this.#node.counters[shard]?.clearLevels();
  }

  post(shard: number, message: ToShardThread, transfer: readonly ArrayBuffer[] = []): void {
    this.#running[shard]?.port.postMessage(message, transfer);
  }

  ask(
    shard: number,
    make: (token: number) => ToShardThread,
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<FromShardThread | null> {
    const { token, answer } = this.expect(shard);
    this.post(shard, make(token), transfer);
    return answer;
  }

  expect(shard: number): { readonly token: number; readonly answer: Promise<FromShardThread | null> } {
    const token = this.#nextToken++;
    if (this.generation(shard) === 0) return { token, answer: Promise.resolve(null) };
    const { promise, resolve } = Promise.withResolvers<FromShardThread | null>();
    this.#asked.set(token, { shard, answer: resolve });
    return { token, answer: promise };
  }

  /** The oldest sealed segments are dropped, as retention does it. Those that could not be let go of stay. */
  async dropSegments(count: number): Promise<void> {
    const disk = defined(this.#node.disk, 'a database has no segments');
    const answers = await this.#askAll((token) => ({ kind: 'segments', token }));
    if (answers === null) return;
    const sealed = answers.flatMap((answer) => (answer.kind === 'segments' ? [...answer.report.segments] : []));
    const oldest = sealed.sort((a, b) => a.newest - b.newest || a.segment - b.segment);
    const segments = oldest.slice(0, count).map(({ segment }) => segment);
    if (segments.length === 0) return;
    const released = await this.#askAll((token) => ({ kind: 'release', token, segments, isTrimmed: true }));
    if (released === null) return;
    deleteSegments(disk, SEGMENTS, segments);
    this.dropped += segments.length;
  }

  /** Null: not each of them could be asked, or one died. Nobody is asked that is about to begin: it would do it at some time later. */
  async #askAll(make: (token: number) => ToShardThread): Promise<FromShardThread[] | null> {
    const { members } = this;
    if (members.some((shard) => this.generation(shard) === 0)) return null;
    const answers = await Promise.all(members.map((shard) => this.ask(shard, make)));
    return answers.every((answer) => answer !== null) ? answers : null;
  }

  /** Its thread ends in the midst of whatever it does; the main thread hears of it later. */
  kill(shard: number): void {
    const running = this.#running[shard];
    if (running === null || running === undefined || running.actor.isDead) return;
    running.actor.isDead = true;
    this.deaths += 1;
    const { time, main } = this.#node;
    time.post(main, time.between(0.1, 20), () => running.ended.resolve(this.#ended(shard, running, false)));
  }

  async #start(shard: number, leftOpen: readonly OpenAllotment[], isReplacement: boolean): Promise<string | null> {
    const { time, main, raft, table, database, disk, dispatcher, bells } = this.#node;
    const generation = ++this.#generation;
    const rings: ShardRings = {
      mainControl: createRing(CONTROL_RING_BYTES >> 4),
      mainPayload: createRing(RING_BYTES),
      toMainControl: createRing(CONTROL_RING_BYTES >> 4),
      toMainPayload: createRing(RING_BYTES),
      toRaft: createRing(RAFT_RING),
      fromRaft: createRing(RAFT_RING),
    };
    const doorbell = createDoorbell();
    const actor = new Actor(`shard ${shard}.${generation}`);
    raft.attach(shard, rings, doorbell);
    const [port, theirs] = SimPort.pair(time, main, actor);
    const task: ShardTask = {
      shard,
      slots: table.slotsOf(shard),
      countsOthers: shard === 0,
      writtenLanes: this.members,
      generation,
      isReplacement,
      dataDirectory: '/data',
      rings,
      doorbell,
      mainDoorbell: bells.main,
      raftDoorbell: bells.raft,
      counters: (this.#node.counters[shard] as ShardCounters).buffer,
      limits: { ...LIMITS.scan, batchBytes: 16 << 10, lingerMs: 1, groupsInFlight: 4 },
      store: {
        segmentBytes: SEGMENT_BYTES,
        lowSpaceBytes: LOW_SPACE_BYTES,
        cacheBytes: 16 << 10,
        database: disk === null ? (DATABASE as unknown as NonNullable<ShardTask['store']['database']>) : null,
      },
      hasPeers: false,
      leftOpen: leftOpen.filter(({ hash }) => table.ownerOf(slotOfHash(hash)) === shard),
      failpoints: '',
      tracing: null,
      port: theirs as unknown as MessagePort,
    };
    const running: Running = {
      ...{ actor, port, generation, isReady: false, isRetiring: false },
      ready: Promise.withResolvers<null>(),
      ended: Promise.withResolvers<string>(),
    };
    this.#running[shard] = running;
    port.on('message', (message) => {
      const said = message as FromShardThread;
      if (said.kind === 'ready') {
        running.isReady = true;
        dispatcher.attach({ shard, rings, doorbell });
        this.#wake();
        running.ready.resolve(null);
      } else if (said.kind === 'stopped') running.ended.resolve(this.#ended(shard, running, true));
      else this.#handle(said);
    });
    const openers = {
      openDatabase: () => Promise.resolve(database.open()),
      openDisk: () => defined(disk, 'there is no disk'),
    };
    time.post(actor, time.between(0.1, 5), () => {
      serveShard(task, openers).catch((error: unknown) => time.fail(error));
    });
    return await Promise.race([running.ready.promise, running.ended.promise]);
  }

  #handle(message: FromShardThread): void {
    if (message.kind === 'log') this.#node.onLog(message.message, message.level);
    else if (message.kind === 'fatal') this.#node.time.fail(new Error(`fatal: ${message.message}`));
    else if ('token' in message) {
      const asked = this.#asked.get(message.token);
      this.#asked.delete(message.token);
      asked?.answer(message);
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #ended(shard: number, running: Running, isStopped: boolean): string {
    if (this.#running[shard] !== running) return 'it had ended';
    running.actor.isDead = true;
    running.isReady = false;
    this.#running[shard] = null;
    for (const [token, asked] of this.#asked) {
      if (asked.shard !== shard) continue;
      this.#asked.delete(token);
      asked.answer(null);
    }
    this.#wake();
    if (running.isRetiring && isStopped) {
      this.#members.delete(shard);
      return 'retired';
    }
    if (!this.#members.has(shard)) return 'died';
    this.#node.dispatcher.detach(shard);
    void this.#replace(shard);
    return 'died';
  }

  async #replace(shard: number): Promise<void> {
    await this.#node.raft.detach(shard);
    await this.#start(shard, await this.#node.raft.openAllotments(), true);
  }
}

class PieceCounters extends MoveCounters {
  /** That have arrived. */
  pieces = 0;

  override moved(from: number, to: number, slots: number): void {
    super.moved(from, to, slots);
    this.pieces += 1;
  }
}

export class SimNode {
  readonly time: SimTime;
  readonly main = new Actor('main');
  readonly database: SimDatabase;
  /** Of the embedded log; null: the database is used. */
  readonly disk: MemoryDisk | null;
  readonly table: SlotTable;
  readonly dispatcher: Dispatcher;
  readonly raft: SimRaft;
  readonly pool: SimPool;
  readonly mover: SlotMover;
  readonly resizer: Resizer;
  readonly turns = new Exclusive();
  readonly moves = new PieceCounters(SHARDS_MAX);
  readonly counters: readonly ShardCounters[];
  readonly bells = { main: createDoorbell(), raft: createDoorbell() };
  readonly #data: RaftThreadData;
  /** Hears of lines of the log. */
  onLog: (message: string, level: string) => void = () => undefined;

  constructor(time: SimTime, database: SimDatabase, disk: MemoryDisk | null, shards: number) {
    this.time = time;
    this.disk = disk;
    this.database = database;
    this.table = new SlotTable(shards);
    this.counters = Array.from({ length: SHARDS_MAX }, () => new ShardCounters());
    this.dispatcher = time.as(
      this.main,
      () => new Dispatcher(LIMITS, new OverloadGuard({ targetMs: 200, intervalMs: 500 }), this.table),
    );
    this.#data = {
      dataDirectory: '/data',
      nodeName: 'n1',
      instanceId: '0'.repeat(32),
      subjectsMax: 10_000,
      producersMax: 1_000,
      openPerNodeMax: 10_000,
      snapshotEntries: 1e9,
      snapshotBytes: 1e12,
      catchUpEntries: 0,
      acceptClock: true,
      hasDatabase: disk === null,
      heartbeatMs: 100,
      counters: new SharedArrayBuffer(0),
      electionMs: 1_000,
      shardsMax: SHARDS_MAX,
      owners: this.table.buffer,
      doorbell: this.bells.raft,
      mainDoorbell: this.bells.main,
      failpoints: '',
      cluster: null,
    };
    this.#data = { ...this.#data, counters: raftCounters() };
    this.raft = new SimRaft(time, this.main, this.#data);
    this.pool = new SimPool(this);
    this.mover = new SlotMover(this.table, this.dispatcher.slots, this.pool, this.moves);
    this.resizer = new Resizer({
      table: this.table,
      pool: this.pool,
      mover: this.mover,
      turns: this.turns,
      shardsMax: SHARDS_MAX,
      log: ({ message, level }) => this.onLog(message, level),
    });
  }

  start(shards: number): void {
    const { time, main, raft, dispatcher } = this;
    time.as(raft.actor, () => raft.start(this.#data));
    time.as(main, () => {
      const doorbell = new Doorbell(this.bells.main);
      dispatcher.consumers.useDirectory(raft);
      doorbell.run(() => dispatcher.doWork(), { stopped: false }).catch((error: unknown) => time.fail(error));
      watchLoad(dispatcher, this.counters);
      this.pool.start(shards).then(
        () => dispatcher.admit(),
        (error: unknown) => time.fail(error),
      );
    });
  }
}

function raftCounters(): SharedArrayBuffer {
  return new RaftCounters().buffer;
}
