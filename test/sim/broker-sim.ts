/**
 * One broker with its clients in one thread and in virtual time: sessions of the client, the front of the main thread, the shards and the Raft
 * thread with their rings, as they are in production, over streams, a database and threads that fail as the seed wants.
 */
import type { ServerWritableStream } from '@grpc/grpc-js';
import { Anonymous } from '../../src/access/caller.ts';
import { defined } from '../../src/base/assert.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { MemoryDisk } from '../unit/embedded-memory-disk.ts';
import { SimCalls, SimHalfCloser } from './broker-calls.ts';
import { type ClientParts, SimPublisher, SimSubscriber, type SubscriberPlan } from './broker-clients.ts';
import { Faults } from './broker-faults.ts';
import { SHARDS_MAX, SimNode } from './broker-node.ts';
import { BrokerOracle, type StoredRow, Violation } from './broker-oracle.ts';
import { SimDatabase } from './broker-store.ts';
import { EPOCH_MS, SimTime } from './broker-time.ts';

export interface BrokerRun {
  readonly seed: number;
  readonly trace: string;
  readonly events: number;
  readonly acked: number;
  readonly refused: number;
  readonly unknown: number;
  readonly delivered: number;
  readonly streams: number;
  readonly deaths: number;
  /** Segments. */
  readonly dropped: number;
  /** Pieces of slots that have another shard. */
  readonly moves: number;
  readonly movesGivenUp: number;
  readonly trims: number;
  readonly lateWrites: number;
}

/** With the faults over, nothing stands still for so long, in ms: the longest wait of a client for its next try is 10 s. */
const STILL_MS_MAX = 20_000;
/** And everything that was begun has its end within this time, in ms: some readers take little, with long pauses. */
const QUIET_MS_MAX = 120_000;
const LOOK_MS = 250;
const STORM_MS = [600, 2_400] as const;
/** A second for the levels that shards count, and one to spare. */
const LEVELS_MS = 2_500;
const SUBSCRIBERS_MAX = 8;
/** Of one subject, when all is quiet. */
const FETCHES_MAX = 5;
const FETCHES_AT_ONCE = 100;
/** Most of them have a message or two on their way. */
const MANY_SUBJECTS = 60;
/** More than the 1,024 batches that a stream may have on its way: each is of another subject. */
const FLOOD_SUBJECTS = 1_300;
const FLOODS_ONE_IN = 25;

export async function simulateBroker(seed: number): Promise<BrokerRun> {
  const time = new SimTime(seed);
  try {
    time.install();
    return await new BrokerSim(seed, time).run();
  } catch (error) {
    if (error instanceof Error) error.message = `seed ${seed}, at ${time.now.toFixed(1)} ms: ${error.message}`;
    throw error;
  } finally {
    time.restore();
  }
}

class BrokerSim {
  readonly #seed: number;
  readonly #time: SimTime;
  readonly #database: SimDatabase;
  readonly #oracle: BrokerOracle;
  readonly #node: SimNode;
  readonly #parts: ClientParts;
  readonly #subjects: readonly string[];
  /** A publisher has more subjects than a stream may have batches without a result. */
  readonly #isFlood: boolean;
  readonly #publishers: SimPublisher[] = [];
  readonly #subscribers: SimSubscriber[] = [];
  /** By name: those that were told to close, and have not come to their end. */
  readonly #closing = new Set<string>();
  readonly #halfClosers: SimHalfCloser[] = [];
  #calls: SimCalls | null = null;
  #faults: Faults | null = null;
  #joined = 0;

  constructor(seed: number, time: SimTime) {
    const { random } = time;
    this.#seed = seed;
    this.#time = time;
    this.#database = new SimDatabase(time);
    const disk = random.chance(1, 2) ? this.#openDisk() : null;
    this.#oracle = new BrokerOracle((subject) => (disk === null ? this.#database.stored(subject) : null));
    const shards = 1 + random.nextBelow(SHARDS_MAX);
    this.#node = new SimNode(time, this.#database, disk, shards);
    this.#node.onLog = (message, level) => {
      time.note(message);
      if (level === 'error') time.fail(new Violation(`the broker said: ${message}`));
    };
    const { main, dispatcher } = this.#node;
    const caller = new Anonymous('default');
    this.#parts = {
      time,
      oracle: this.#oracle,
      server: main,
      headOf: (subject) => this.#positionsOf(subject).head,
      delayMsMax: random.chance(1, 3) ? 20 : 1,
      accept: (path, call, request) => {
        if (request !== null)
          dispatcher.subscribe(request, call as unknown as ServerWritableStream<Buffer, Buffer>, caller);
        else if (path.endsWith('PublishStream')) dispatcher.publishStream(call, caller);
        else dispatcher.consume(call, caller);
      },
    };
    this.#isFlood = random.chance(1, FLOODS_ONE_IN);
    const count = this.#isFlood ? FLOOD_SUBJECTS : random.chance(1, 5) ? MANY_SUBJECTS : 1 + random.nextBelow(6);
    this.#subjects = Array.from({ length: count }, (_, i) => `s.${i}`);
    this.#node.start(shards);
  }

  async run(): Promise<BrokerRun> {
    const time = this.#time;
    const { random } = time;
    const few = this.#isFlood ? 1 : 3;
    for (let i = 1 + random.nextBelow(few); i > 0; i--) this.#publish(`p${i}`);
    for (let i = 1 + random.nextBelow(few); i > 0; i--) this.#subscribe('earliest');
    const { dispatcher } = this.#node;
    if (random.chance(1, 2)) this.#halfClosers.push(new SimHalfCloser(this.#parts, 'h1', this.#subjects));
    const pause = random.chance(1, 2) ? 10 : 1_000;
    const calls = new SimCalls(this.#parts, dispatcher, this.#subjects, pause);
    this.#calls = calls;
    const faults = new Faults({
      time,
      node: this.#node,
      oracle: this.#oracle,
      subjects: this.#subjects,
      publishers: this.#publishers,
      subscribers: this.#subscribers,
      others: this.#halfClosers,
      firstOf: (subject) => this.#positionsOf(subject).first,
      join: () => {
        if (this.#subscribers.length < SUBSCRIBERS_MAX) this.#subscribe(this.#anyStart());
      },
      leave: (subscriber) => {
        this.#subscribers.splice(this.#subscribers.indexOf(subscriber), 1);
        this.#close(subscriber);
      },
    });
    this.#faults = faults;
    await time.runUntil(time.between(...STORM_MS));
    faults.stop();
    for (const client of [...this.#publishers, ...this.#halfClosers, calls]) client.isStopping = true;
    await this.#quiet();
    this.#fetchAgain(calls);
    await time.runUntil(time.now + LOOK_MS);
    await this.#leave();
    const { deaths, dropped } = this.#node.pool;
    return {
      seed: this.#seed,
      trace: time.trace,
      events: time.events,
      acked: this.#oracle.acked,
      refused: this.#oracle.refused,
      unknown: this.#oracle.unknown,
      delivered: this.#oracle.delivered,
      streams: this.#publishers.reduce((sum, { streams }) => sum + streams, 0),
      deaths,
      dropped,
      moves: this.#node.moves.pieces,
      movesGivenUp: this.#node.moves.failed,
      trims: faults.trims,
      lateWrites: this.#database.late,
    };
  }

  /** Whose calls take as long as the seed wants. */
  #openDisk(): MemoryDisk {
    const time = this.#time;
    const disk = new MemoryDisk();
    const msMax = time.random.chance(1, 3) ? 40 : 2;
    disk.gate = () =>
      new Promise((resolve) => void time.post(time.current, time.between(0.05, msMax), () => resolve()));
    return disk;
  }

  /** What the embedded log has of a subject is asked of the broker. */
  async #fetchAll(subject: string, head: number): Promise<StoredRow[]> {
    const rows: StoredRow[] = [];
    const from = this.#oracle.firstOf(subject);
    for (let base = from; base <= head; base++) {
      this.#time.as(this.#node.main, () =>
        this.#callsOf().fetch(subject, base, Number.POSITIVE_INFINITY, (label, reason, publishedAt) => {
          if (label !== null) rows.push({ base, count: 1, kind: 'data', labels: [label], publishedAt });
          else if (reason === 'ID_VOID') rows.push({ base, count: 1, kind: 'void', labels: [], publishedAt });
          else throw new Violation(`${subject} ${base}, of [${from}, ${head}], is ${reason}`);
        }),
      );
      if (base % FETCHES_AT_ONCE === 0) await this.#time.runUntil(this.#time.now + 2);
    }
    await this.#time.runUntil(this.#time.now + LOOK_MS);
    return rows.sort((a, b) => a.base - b.base);
  }

  #callsOf(): SimCalls {
    return defined(this.#calls, 'the run has begun');
  }

  #publish(name: string): void {
    const { random } = this.#time;
    this.#publishers.push(
      new SimPublisher(this.#parts, {
        name,
        subjects: this.#subjects.filter(() => random.chance(2, 3)).concat(this.#subjects[0] as string),
        isIdempotent: random.chance(3, 4),
        deliveryTimeoutMs: random.chance(1, 5) ? 1_500 : 120_000,
        pauseMsMax: this.#isFlood ? 0.8 : random.chance(1, 3) ? 2 : 20,
        pendingMax: this.#isFlood ? 2 * FLOOD_SUBJECTS : random.chance(1, 3) ? 400 : 30,
        bodyBytesMax: random.chance(1, 3) ? 1_500 : 100,
      }),
    );
  }

  #anyStart(): SubscriberPlan['start'] {
    const { random, now } = this.#time;
    switch (random.nextBelow(4)) {
      case 0:
        return 'new';
      case 1:
        return 'earliest';
      case 2:
        return { id: 1 + random.nextBelow(100) };
      default:
        // Some are still to come, and of those some when nothing is published any more.
        return { time: EPOCH_MS + Math.floor(now + this.#time.between(-500, 300)) };
    }
  }

  #subscribe(start: SubscriberPlan['start']): void {
    const { random } = this.#time;
    this.#joined += 1;
    const some = this.#subjects.filter((_, i) => i === 0 || random.chance(2, 3));
    // Where a plain subscription begins that begins `new` its client has to ask, in another way than those that are simulated.
    const isPlain = start !== 'new' && random.chance(1, 3);
    // Of very many subjects it would read one message each from the store for each that it takes.
    const isSlow = !this.#isFlood && random.chance(1, 2);
    const isPattern = !isPlain && start === 'earliest' && random.chance(1, 2);
    this.#subscribers.push(
      new SimSubscriber(this.#parts, {
        name: `c${this.#joined}`,
        subjects: isPlain ? [random.chance(1, 2) ? 's.0' : (some.at(-1) as string)] : isPattern ? ['s.>'] : some,
        start,
        isPlain,
        creditBytes: isSlow && random.chance(1, 2) ? 500 : 64 << 10,
        creditMessages: isSlow && random.chance(1, 2) ? 5 : 1_000,
        pauseMsMax: isSlow && random.chance(1, 2) ? 30 : 1,
      }),
    );
  }

  /** The faults are over: everything that was begun comes to its end, and everybody has everything. */
  async #quiet(): Promise<void> {
    const time = this.#time;
    const begunAt = time.now;
    let movedAt = time.now;
    let seen = -1;
    for (let waits = this.#waits(); waits !== null; waits = this.#waits()) {
      const moved = this.#oracle.progress;
      if (moved !== seen) movedAt = time.now;
      seen = moved;
      const stoodMs = time.now - movedAt;
      const quietMs = time.now - begunAt;
      if (stoodMs >= STILL_MS_MAX || quietMs >= QUIET_MS_MAX) {
        throw new Violation(
          `${seconds(quietMs)} s after the last fault, and ${seconds(stoodMs)} s after the last progress, ${waits}`,
        );
      }
      await time.runUntil(time.now + LOOK_MS);
    }
    for (const subject of this.#subjects) {
      const { head } = this.#positionsOf(subject);
      const rows = this.#node.disk === null ? this.#database.stored(subject) : await this.#fetchAll(subject, head);
      this.#oracle.judge(subject, head, rows);
    }
  }

  /** Who has not come to an end yet; null: nobody. */
  #waits(): string | null {
    // Until it has ended ids may go that are looked for.
    if (this.#faults?.isDropping === true) return 'segments are being dropped';
    for (const { plan, pending, broken } of this.#publishers) {
      if (broken !== null) throw new Violation(`${plan.name} cannot go on: ${broken.message}`);
      const [first] = pending;
      if (first !== undefined)
        return `${plan.name} waits for ${pending.size} messages: ${first[0]}, sent at ${first[1]}`;
    }
    for (const subject of this.#subjects) {
      const { head, settled } = this.#positionsOf(subject);
      if (settled < head) return `${subject} is settled up to ${settled} of ${head}`;
    }
    for (const subscriber of this.#subscribers) {
      const { plan, ended } = subscriber;
      if (ended !== undefined) throw new Violation(`${plan.name} has ended: ${String(ended)}`);
      for (const subject of this.#subjects) {
        if (!plan.subjects.includes('s.>') && !plan.subjects.includes(subject)) continue;
        const owed = subscriber.owed(subject);
        if (owed === null) return `${plan.name} was not told where it begins`;
        const has = new Set(subscriber.ids.get(subject));
        const missing = owed.find((id) => !has.has(id));
        if (missing !== undefined)
          return `${plan.name} has not got ${subject} ${missing}, its last is ${subscriber.nextOf(subject) - 1}`;
      }
    }
    const { isRunning, what } = this.#node.resizer.state;
    if (isRunning) return `the resize ${what} goes on`;
    for (const { pending } of this.#halfClosers) if (pending.size > 0) return `h1 waits for ${pending.size} results`;
    const { dispatcher } = this.#node;
    if (dispatcher.callsInFlight > 0) return `${dispatcher.callsInFlight} calls are in flight`;
    return null;
  }

  /** Whatever anybody was told of is there, unless it was trimmed. */
  #fetchAgain(calls: SimCalls): void {
    const { random } = this.#time;
    for (const subject of this.#subjects) {
      const ids = this.#oracle.ids(subject);
      for (let i = Math.min(FETCHES_MAX, ids.length); i > 0; i--) {
        this.#time.as(this.#node.main, () =>
          calls.fetch(subject, ids[random.nextBelow(ids.length)] as number, Number.POSITIVE_INFINITY),
        );
      }
    }
  }

  /** Nobody awaits it: it would wait for a time that only the run itself moves on. */
  #close(client: SimPublisher | SimSubscriber): void {
    const { name } = client.plan;
    this.#closing.add(name);
    client.close().then(
      () => this.#closing.delete(name),
      (error: unknown) => this.#time.fail(error),
    );
  }

  /** Clients go, and nothing is held for them any more. */
  async #leave(): Promise<void> {
    const time = this.#time;
    for (const client of [...this.#publishers, ...this.#subscribers]) this.#close(client);
    await time.runUntil(time.now + LEVELS_MS, () => this.#closing.size === 0);
    const [open] = this.#closing;
    if (open !== undefined) throw new Violation(`${open} was closed, and does not come to its end`);
    await time.runUntil(time.now + LEVELS_MS);
    const { dispatcher, counters } = this.#node;
    const held = {
      answers: this.#calls?.open ?? 0,
      calls: dispatcher.callsInFlight,
      bytes: dispatcher.bytesInFlight,
      unsent: dispatcher.unsent.bytes,
      receiving: dispatcher.receiving.bytes,
      seats: dispatcher.seats.open,
      producers: dispatcher.producers.count,
      consumers: dispatcher.consumers.count,
      plain: dispatcher.subscriptions.count,
      parked: counters.reduce((sum, shard) => sum + shard.get('parked_fetches'), 0),
      subscriptions: counters.reduce((sum, shard) => sum + shard.get('subscriptions'), 0),
    };
    for (const [what, left] of Object.entries(held)) {
      if (left !== 0) throw new Violation(`everybody has gone, and ${what} is ${left}`);
    }
  }

  #positionsOf(subject: string): { readonly first: number; readonly head: number; readonly settled: number } {
    const { machine } = this.#node.raft.node;
    const name = Buffer.from(subject);
    const handle = machine.find(name, 0, name.length, subjectHash(name, 0, name.length));
    if (handle < 0) return { first: 1, head: 0, settled: 0 };
    return { first: machine.first(handle), head: machine.head(handle), settled: machine.settled(handle) };
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1_000);
}
