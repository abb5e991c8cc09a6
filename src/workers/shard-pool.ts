import { MessageChannel, type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { assert } from '../base/assert.ts';
import { slotOfHash } from '../base/subject.ts';
import { createDoorbell } from '../shm/doorbell.ts';
import { createRing } from '../shm/ring-producer.ts';
import type { SegmentSummary } from '../storage/embedded/sidecar.ts';
import { StartError } from '../storage/start-error.ts';
import { CONTROL_RING_BYTES, RAFT_RING_BYTES } from './link.ts';
import type {
  FromShardThread,
  LogLine,
  OpenAllotment,
  SegmentsReport,
  ShardLimits,
  ShardRings,
  ShardStoreOptions,
  ShardTask,
  ToShardThread,
} from './messages.ts';
import type { RaftHandle } from './raft/raft-handle.ts';
import type { SlotTable } from './slots/slot-table.ts';
import { THREAD_MEMORY } from './thread-memory.ts';
import type { ShardTraceSettings } from './tracing/shard-traces.ts';

export interface ShardPoolOptions {
  /** Shards at the start: 0 to `shards` - 1. */
  readonly shards: number;
  /** shards.max */
  readonly shardsMax: number;
  /** Other nodes give ids of the same subjects. */
  readonly hasPeers: boolean;
  readonly table: SlotTable;
  readonly dataDirectory: string;
  /** Capacity of each payload ring (ring.bytes). */
  readonly ringBytes: number;
  readonly limits: ShardLimits;
  /** `cacheBytes` of all shards together. */
  readonly store: ShardStoreOptions;
  readonly mainDoorbell: SharedArrayBuffer;
  readonly raftDoorbell: SharedArrayBuffer;
  /** One counter block for each shard that there may be. */
  readonly counters: readonly SharedArrayBuffer[];
  readonly failpoints: string;
  /** Null: nothing is traced. */
  readonly tracing: ShardTraceSettings | null;
}

/** What a started shard gives the front: its rings and its doorbell. Replaced as a whole when the thread is replaced. */
export interface ShardConnection {
  readonly shard: number;
  readonly rings: ShardRings;
  readonly doorbell: SharedArrayBuffer;
}

export interface ShardPoolEvents {
  onLog(line: LogLine): void;
  /** Its rings are dead: answer the calls that were on their way. */
  onShardDied(shard: number, message: string): void;
  onShardReady(connection: ShardConnection): void;
  /** It owns no slot and its thread has ended. */
  onShardRetired(shard: number): void;
  /** A shard found what must not be worked around, or died again and again. */
  onFatal(reason: string, message: string): void;
}

/** Deaths within this time after which the process gives up. */
const DEATHS_MAX = 20;
const DEATHS_WINDOW_MS = 60_000;
/** The shard that is always there: it counts the segments of lanes that no shard writes. */
const COUNTING_SHARD = 0;
/** How long a thread without a shard is kept for the next one, in ms. */
const IDLE_THREAD_MS = 1_000;

interface Running {
  readonly port: MessagePort;
  readonly generation: number;
  readonly ended: Promise<string>;
  isReady: boolean;
  /** It was told to stop while the others go on. */
  isRetiring: boolean;
  /** It was told to die, for what is not its fault. */
  isGivenUp: boolean;
}

interface Asked {
  readonly shard: number;
  answer(message: FromShardThread | null): void;
}

/** The shard threads: one endless task each in one Piscina pool; replaced when they die, added and taken away while the broker runs. */
export class ShardPool {
  readonly #options: ShardPoolOptions;
  readonly #events: ShardPoolEvents;
  readonly #raft: RaftHandle;
  readonly #pool: Piscina;
  readonly #running: (Running | null)[];
  /** The shards that there are, also while one is being replaced. */
  readonly #members = new Set<number>();
  /** The segments that shards counted which stopped in good order. */
  readonly #retired = new WeakMap<Running, readonly SegmentSummary[]>();
  readonly #deaths: number[] = [];
  #generation = 0;
  readonly #asked = new Map<number, Asked>();
  /** Told when a shard serves or has stopped. */
  readonly #waiting = new Set<() => void>();
  /** Threads of the pool, also those that it has let go of, until they have ended. */
  readonly #threads = new Map<Worker, Promise<void>>();
  #nextToken = 1;
  #isStarted = false;
  /** Why all threads are to be replaced once they serve; null: they are not. */
  #replaceFor: string | null = null;
  #stopping = false;

  constructor(options: ShardPoolOptions, raft: RaftHandle, events: ShardPoolEvents) {
    this.#options = options;
    this.#raft = raft;
    this.#events = events;
    this.#running = new Array<Running | null>(options.shardsMax).fill(null);
    for (let shard = 0; shard < options.shards; shard++) this.#members.add(shard);
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    this.#pool = new Piscina({
      filename: new URL(`./shard/shard-thread.${extension}`, import.meta.url).href,
      minThreads: 1,
      maxThreads: options.shardsMax,
      idleTimeout: IDLE_THREAD_MS,
      concurrentTasksPerWorker: 1,
      // A task is endless: Piscina must neither time it nor make an idle thread sleep in Atomics.wait, which would stop its timers and IO.
      atomics: 'disabled',
      recordTiming: false,
      maxQueue: options.shardsMax,
      closeTimeout: 5_000,
      resourceLimits: THREAD_MEMORY,
    });
    this.#pool.on('error', (error: Error) => {
      events.onLog({ kind: 'log', level: 'warn', message: 'pool error', fields: { error: error.message } });
    });
  }

  /** The shards that there are, in order. One of them may be being replaced. */
  get members(): number[] {
    return [...this.#members].sort((a, b) => a - b);
  }

  /** For what observes them from outside. Which shard each of them is at present, the pool does not know. */
  get threads(): readonly Worker[] {
    return this.#pool.threads;
  }

  /** Resolves when every shard serves. */
  async start(leftOpen: readonly OpenAllotment[]): Promise<void> {
    const failures = await Promise.all(this.members.map((shard) => this.#startShard(shard, leftOpen, false)));
    const failure = failures.find((message) => message !== null);
    if (failure !== undefined && failure !== null)
      throw new StartError('SHARD_FAILED', `a shard could not start: ${failure}`);
    this.#isStarted = true;
    if (this.#replaceFor !== null) this.replaceAll(this.#replaceFor);
  }

  /** One more shard, without slots yet. Null when it serves, else why it does not; then it is as if it had not been asked for. */
  async grow(shard: number): Promise<string | null> {
    assert(!this.#members.has(shard) && shard < this.#options.shardsMax, () => `shard ${shard} cannot be added`);
    const failure = await this.#startShard(shard, [], false);
    // It may have died since it said that it serves.
    if (failure !== null || this.generation(shard) === 0) {
      await this.#raft.detach(shard);
      this.#events.onShardRetired(shard);
      return failure ?? 'its thread died';
    }
    this.#members.add(shard);
    await this.#askCounting((token) => ({ kind: 'disown', token, lane: shard }));
    this.#shareCache();
    return null;
  }

  /** Stops a shard that owns no slot. If it dies on the way it is replaced first, so that its lane is sealed. */
  async retire(shard: number): Promise<void> {
    assert(this.#options.table.count(shard) === 0, () => `shard ${shard} owns slots`);
    assert(shard !== COUNTING_SHARD && this.#members.has(shard), () => `shard ${shard} cannot be taken away`);
    let segments: readonly SegmentSummary[] | null = null;
    while (segments === null && !this.#stopping) {
      await this.whenReady(shard);
      segments = await this.#tryRetire(shard);
    }
    if (segments === null) return;
    await this.#raft.detach(shard);
    this.#events.onShardRetired(shard);
    const counted = segments;
    await this.#askCounting((token) => ({ kind: 'adopt', token, segments: counted }));
    this.#shareCache();
  }

  /** The generation of the thread that serves the shard; 0 while none does. */
  generation(shard: number): number {
    const running = this.#running[shard];
    return running?.isReady === true ? running.generation : 0;
  }

  alive(shard: number): boolean {
    return this.#running[shard] !== null;
  }

  /** Resolves when the shard serves, or the pool stops. */
  async whenReady(shard: number): Promise<void> {
    while (this.generation(shard) === 0 && !this.#stopping) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  post(shard: number, message: ToShardThread, transfer: readonly ArrayBuffer[] = []): void {
    this.#running[shard]?.port.postMessage(message, transfer);
  }

  /** The answer of the thread that serves the shard now; null if it ends before, or if none serves. */
  ask(
    shard: number,
    make: (token: number) => ToShardThread,
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<FromShardThread | null> {
    const { token, answer } = this.expect(shard);
    this.post(shard, make(token), transfer);
    return answer;
  }

  /** For a question that is put on a ring: its token, and the answer that comes as a message. */
  expect(shard: number): { readonly token: number; readonly answer: Promise<FromShardThread | null> } {
    const token = this.#nextToken++;
    if (this.generation(shard) === 0) return { token, answer: Promise.resolve(null) };
    const answer = new Promise<FromShardThread | null>((resolve) => {
      this.#asked.set(token, { shard, answer: resolve });
    });
    return { token, answer };
  }

  /** The sealed segments of every shard; null while one is being replaced. */
  async segments(): Promise<SegmentsReport[] | null> {
    const answers = await this.#askAll((token) => ({ kind: 'segments', token }));
    return answers?.flatMap((answer) => (answer.kind === 'segments' ? [answer.report] : [])) ?? null;
  }

  /** Every shard lets go of the segments. False if one is being replaced or died: nothing may be deleted then. */
  async release(segments: readonly number[], isTrimmed: boolean): Promise<boolean> {
    const answers = await this.#askAll((token) => ({ kind: 'release', token, segments, isTrimmed }));
    return answers?.every(({ kind }) => kind === 'released') ?? false;
  }

  async #askAll(make: (token: number) => ToShardThread): Promise<FromShardThread[] | null> {
    const members = this.members;
    if (!this.#isStarted || members.some((shard) => this.generation(shard) === 0)) return null;
    const answers = await Promise.all(members.map((shard) => this.ask(shard, make)));
    return answers.every((answer) => answer !== null) ? answers : null;
  }

  /** The shard that counts what nobody writes. A replacement counts by itself whatever its predecessor was told. */
  async #askCounting(make: (token: number) => ToShardThread): Promise<void> {
    await this.whenReady(COUNTING_SHARD);
    while (!this.#stopping && (await this.ask(COUNTING_SHARD, make)) === null) await this.whenReady(COUNTING_SHARD);
  }

  #cacheShare(shards: number): number {
    return Math.floor(this.#options.store.cacheBytes / shards);
  }

  #shareCache(): void {
    const bytes = this.#cacheShare(this.#members.size);
    for (const shard of this.#members) this.post(shard, { kind: 'cache', bytes });
  }

  /**
   * Every thread is replaced, as if it had died; also one that does not serve yet, which has asked the log for the verdict on what its predecessor left,
   * and would wait for the answer for ever.
   */
  replaceAll(why: string): void {
    if (!this.#isStarted) {
      // A death would be the end of the start.
      this.#replaceFor = why;
      return;
    }
    for (const shard of this.#members) {
      const running = this.#running[shard];
      if (running === null || running === undefined) continue;
      running.isGivenUp = true;
      running.port.postMessage({ kind: 'give-up', why } satisfies ToShardThread);
    }
  }

  /** Lets every shard finish its groups and close its store. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake();
    const stop: ToShardThread = { kind: 'stop' };
    await Promise.all(
      this.#running.map(async (running) => {
        running?.port.postMessage(stop);
        await running?.ended;
      }),
    );
    await this.#pool.close();
  }

  /** The segments that it counted, or null if it died instead. */
  async #tryRetire(shard: number): Promise<readonly SegmentSummary[] | null> {
    const running = this.#running[shard];
    if (running === null || running === undefined) return null;
    running.isRetiring = true;
    running.port.postMessage({ kind: 'stop' } satisfies ToShardThread);
    await running.ended;
    return this.#retired.get(running) ?? null;
  }

  /** Resolves when the shard serves (null) or has died (why). */
  async #startShard(shard: number, leftOpen: readonly OpenAllotment[], isReplacement: boolean): Promise<string | null> {
    const { table, ...options } = this.#options;
    const generation = ++this.#generation;
    const rings: ShardRings = {
      mainControl: createRing(CONTROL_RING_BYTES),
      mainPayload: createRing(options.ringBytes),
      toMainControl: createRing(CONTROL_RING_BYTES),
      toMainPayload: createRing(options.ringBytes),
      toRaft: createRing(RAFT_RING_BYTES),
      fromRaft: createRing(RAFT_RING_BYTES),
    };
    const doorbell = createDoorbell();
    this.#raft.attach(shard, rings, doorbell);
    const { port1, port2 } = new MessageChannel();
    const shards = this.#members.has(shard) ? this.#members.size : this.#members.size + 1;
    const task: ShardTask = {
      shard,
      slots: table.slotsOf(shard),
      countsOthers: shard === COUNTING_SHARD,
      writtenLanes: this.members,
      generation,
      isReplacement,
      dataDirectory: options.dataDirectory,
      rings,
      doorbell,
      mainDoorbell: options.mainDoorbell,
      raftDoorbell: options.raftDoorbell,
      counters: options.counters[shard] as SharedArrayBuffer,
      limits: options.limits,
      tracing: options.tracing,
      store: { ...options.store, cacheBytes: this.#cacheShare(shards) },
      hasPeers: this.#options.hasPeers,
      leftOpen: leftOpen.filter(({ hash }) => table.ownerOf(slotOfHash(hash)) === shard),
      failpoints: options.failpoints,
      port: port2,
    };
    const ready = Promise.withResolvers<null>();
    const ended = Promise.withResolvers<string>();
    const running: Running = {
      ...{ port: port1, generation, ended: ended.promise },
      ...{ isReady: false, isRetiring: false, isGivenUp: false },
    };
    port1.on('message', (message: FromShardThread) => {
      if (message.kind !== 'ready') {
        this.#handle(message);
        return;
      }
      running.isReady = true;
      this.#events.onShardReady({ shard, rings, doorbell });
      this.#wake();
      ready.resolve(null);
    });
    this.#running[shard] = running;
    this.#pool.run(task, { transferList: [port2] }).then(
      (segments: readonly SegmentSummary[]) => ended.resolve(this.#ended(shard, running, segments, null)),
      (error: unknown) =>
        ended.resolve(this.#ended(shard, running, null, error instanceof Error ? error : new Error(String(error)))),
    );
    this.#watchThreads();
    return await Promise.race([ready.promise, ended.promise]);
  }

  #watchThreads(): void {
    for (const thread of this.#pool.threads) {
      if (this.#threads.has(thread)) continue;
      const ended = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
      this.#threads.set(
        thread,
        ended.then(() => void this.#threads.delete(thread)),
      );
    }
  }

  /**
   * A task ends before its thread does: an exception is reported at once, while a write of the thread may still be on its way through the kernel.
   * Node ends a thread only when all its file calls have come back.
   */
  async #threadsGone(): Promise<void> {
    const { threads } = this.#pool;
    await Promise.all([...this.#threads].filter(([thread]) => !threads.includes(thread)).map(([, ended]) => ended));
  }

  #handle(message: FromShardThread): void {
    switch (message.kind) {
      case 'log':
        this.#events.onLog(message);
        return;
      case 'fatal':
        this.#events.onFatal(message.reason, message.message);
        return;
      case 'ready':
      case 'stopped':
        return;
      default: {
        const asked = this.#asked.get(message.token);
        this.#asked.delete(message.token);
        asked?.answer(message);
        return;
      }
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #ended(shard: number, running: Running, segments: readonly SegmentSummary[] | null, error: Error | null): string {
    // The end of a task comes by Piscina's port, which knows no order with ours: the last words of the thread may still wait in it.
    for (let left = receiveMessageOnPort(running.port); left !== undefined; left = receiveMessageOnPort(running.port)) {
      this.#handle(left.message as FromShardThread);
    }
    running.port.close();
    running.isReady = false;
    this.#running[shard] = null;
    for (const [token, asked] of this.#asked) {
      if (asked.shard !== shard) continue;
      this.#asked.delete(token);
      asked.answer(null);
    }
    this.#wake();
    const message = error === null ? 'its task ended' : (error.stack ?? error.message);
    if (running.isRetiring && segments !== null) {
      this.#retired.set(running, segments);
      this.#members.delete(shard);
      return message;
    }
    // A first start that fails ends the process, or the growth that asked for it; only what has served is replaced.
    if (this.#stopping || !this.#isStarted || !this.#members.has(shard)) return message;
    this.#events.onShardDied(shard, message);
    // Of one that was given up nothing follows for the next: there may be more shards than may die.
    if (!running.isGivenUp && this.#diesAgain()) {
      this.#events.onFatal(
        'shard_dies_again',
        `${this.#deaths.length} deaths of shard threads in a minute; the last: ${message}`,
      );
      return message;
    }
    void this.#replace(shard);
    return message;
  }

  /** Another death: true if there have been too many lately. */
  #diesAgain(): boolean {
    const now = performance.now();
    this.#deaths.push(now);
    while ((this.#deaths[0] as number) < now - DEATHS_WINDOW_MS) this.#deaths.shift();
    return this.#deaths.length > DEATHS_MAX;
  }

  /**
   * The order matters. Once the thread is gone, nothing that it wrote can appear behind the back of those who look; once it is detached, nothing
   * of it can be applied, so what is open now is all there is to resolve.
   */
  async #replace(shard: number): Promise<void> {
    await this.#threadsGone();
    await this.#raft.detach(shard);
    const leftOpen = await this.#raft.openAllotments();
    // Who stops them has told those that were there.
    if (this.#stopping) return;
    await this.#startShard(shard, leftOpen, true);
  }
}
