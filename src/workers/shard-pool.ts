import { MessageChannel } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { slotOfHash } from '../base/subject.ts';
import { createDoorbell } from '../shm/doorbell.ts';
import { createRing } from '../shm/ring-producer.ts';
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
import { shardOfSlot } from './shard-of-slot.ts';
import { THREAD_MEMORY } from './thread-memory.ts';

export interface ShardPoolOptions {
  readonly shards: number;
  readonly dataDirectory: string;
  /** Capacity of each payload ring (ring.bytes). */
  readonly ringBytes: number;
  readonly limits: ShardLimits;
  readonly store: ShardStoreOptions;
  readonly mainDoorbell: SharedArrayBuffer;
  readonly raftDoorbell: SharedArrayBuffer;
  /** One counter block per shard. */
  readonly counters: readonly SharedArrayBuffer[];
  readonly failpoints: string;
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
  /** A shard found what must not be worked around, or died again and again. */
  onFatal(reason: string, message: string): void;
}

/** Deaths within this time after which the process gives up. */
const DEATHS_MAX = 20;
const DEATHS_WINDOW_MS = 60_000;

interface Running {
  readonly port: import('node:worker_threads').MessagePort;
  readonly ended: Promise<string>;
}

/** The shard threads: one endless task each in one Piscina pool, replaced when they die. */
export class ShardPool {
  readonly #options: ShardPoolOptions;
  readonly #events: ShardPoolEvents;
  readonly #raft: RaftHandle;
  readonly #pool: Piscina;
  readonly #running: (Running | null)[];
  readonly #deaths: number[] = [];
  #generation = 0;
  readonly #asked = new Map<number, (answer: FromShardThread) => void>();
  #nextToken = 1;
  #isStarted = false;
  #stopping = false;

  constructor(options: ShardPoolOptions, raft: RaftHandle, events: ShardPoolEvents) {
    this.#options = options;
    this.#raft = raft;
    this.#events = events;
    this.#running = new Array<Running | null>(options.shards).fill(null);
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    this.#pool = new Piscina({
      filename: new URL(`./shard/shard-thread.${extension}`, import.meta.url).href,
      minThreads: options.shards,
      maxThreads: options.shards,
      concurrentTasksPerWorker: 1,
      // A task is endless: Piscina must neither time it nor make an idle thread sleep in Atomics.wait, which would stop its timers and IO.
      atomics: 'disabled',
      recordTiming: false,
      maxQueue: options.shards,
      closeTimeout: 5_000,
      resourceLimits: THREAD_MEMORY,
    });
    this.#pool.on('error', (error: Error) => {
      events.onLog({ kind: 'log', level: 'warn', message: 'pool error', fields: { error: error.message } });
    });
  }

  /** Resolves when every shard serves. */
  async start(leftOpen: readonly OpenAllotment[]): Promise<void> {
    const failures = await Promise.all(this.#running.map((_, shard) => this.#startShard(shard, leftOpen, false)));
    const failure = failures.find((message) => message !== null);
    if (failure !== undefined && failure !== null)
      throw new StartError('SHARD_FAILED', `a shard could not start: ${failure}`);
    this.#isStarted = true;
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
    if (!this.#isStarted || this.#running.includes(null)) return null;
    const answers = this.#running.map((running) => {
      const token = this.#nextToken++;
      const answer = new Promise<FromShardThread>((resolve) => this.#asked.set(token, resolve));
      running?.port.postMessage(make(token));
      const died = running?.ended.then(() => {
        this.#asked.delete(token);
        return null;
      });
      return Promise.race([answer, died]);
    });
    const found = await Promise.all(answers);
    return found.every((answer) => answer !== null && answer !== undefined) ? (found as FromShardThread[]) : null;
  }

  alive(shard: number): boolean {
    return this.#running[shard] !== null;
  }

  /** Lets every shard finish its groups and close its store. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const stop: ToShardThread = { kind: 'stop' };
    await Promise.all(
      this.#running.map(async (running) => {
        running?.port.postMessage(stop);
        await running?.ended;
      }),
    );
    await this.#pool.close();
  }

  /** Resolves when the shard serves (null) or has died (why). */
  async #startShard(shard: number, leftOpen: readonly OpenAllotment[], isReplacement: boolean): Promise<string | null> {
    const options = this.#options;
    this.#generation += 1;
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
    const task: ShardTask = {
      shard,
      shards: options.shards,
      generation: this.#generation,
      isReplacement,
      dataDirectory: options.dataDirectory,
      rings,
      doorbell,
      mainDoorbell: options.mainDoorbell,
      raftDoorbell: options.raftDoorbell,
      counters: options.counters[shard] as SharedArrayBuffer,
      limits: options.limits,
      store: options.store,
      leftOpen: leftOpen.filter(({ hash }) => shardOfSlot(slotOfHash(hash), options.shards) === shard),
      failpoints: options.failpoints,
      port: port2,
    };
    const ready = new Promise<null>((resolve) => {
      port1.on('message', (message: FromShardThread) =>
        this.#handle(message, shard, rings, doorbell, () => resolve(null)),
      );
    });
    const ended = this.#pool.run(task, { transferList: [port2] }).then(
      () => this.#ended(shard, null),
      (error: unknown) => this.#ended(shard, error instanceof Error ? error : new Error(String(error))),
    );
    this.#running[shard] = { port: port1, ended };
    return await Promise.race([ready, ended]);
  }

  #handle(
    message: FromShardThread,
    shard: number,
    rings: ShardRings,
    doorbell: SharedArrayBuffer,
    ready: () => void,
  ): void {
    switch (message.kind) {
      case 'ready':
        this.#events.onShardReady({ shard, rings, doorbell });
        ready();
        return;
      case 'log':
        this.#events.onLog(message);
        return;
      case 'fatal':
        this.#events.onFatal(message.reason, message.message);
        return;
      case 'stopped':
        return;
      case 'segments':
      case 'released': {
        const answer = this.#asked.get(message.token);
        this.#asked.delete(message.token);
        answer?.(message);
        return;
      }
    }
  }

  #ended(shard: number, error: Error | null): string {
    this.#running[shard]?.port.close();
    this.#running[shard] = null;
    const message = error === null ? 'its task ended' : (error.stack ?? error.message);
    // A first start that fails ends the process; only what has served is replaced.
    if (this.#stopping || !this.#isStarted) return message;
    this.#events.onShardDied(shard, message);
    const now = performance.now();
    this.#deaths.push(now);
    while ((this.#deaths[0] as number) < now - DEATHS_WINDOW_MS) this.#deaths.shift();
    if (this.#deaths.length > DEATHS_MAX) {
      this.#events.onFatal(
        'shard_dies_again',
        `${this.#deaths.length} deaths of shard threads in a minute; the last: ${message}`,
      );
      return message;
    }
    void this.#replace(shard);
    return message;
  }

  /** The order matters: once detached, nothing of the dead thread can be applied, so what is open now is all there is to resolve. */
  async #replace(shard: number): Promise<void> {
    await this.#raft.detach(shard);
    await this.#startShard(shard, await this.#raft.openAllotments(), true);
  }
}
