import { assert, defined } from '../../base/assert.ts';
import type { Done } from '../../grpc/engine.ts';

/** The methods of the service, as numbers for tables and counters. */
export const METHODS = [
  'Publish',
  'Subscribe',
  'Fetch',
  'Broadcast',
  'IncIdx',
  'Trim',
  'Info',
  'PublishStream',
  'Consume',
] as const;
export const Method = {
  PUBLISH: 0,
  SUBSCRIBE: 1,
  FETCH: 2,
  BROADCAST: 3,
  INCREMENT: 4,
  TRIM: 5,
  INFO: 6,
  PUBLISH_STREAM: 7,
  CONSUME: 8,
} as const;

/**
 * The calls that are on their way through the threads, as columns: no object is made per call. A call keeps its number until its shard has
 * answered it (or died), also when the client has gone, so a late answer never meets another call.
 */
export class CallTable {
  readonly #done: (Done | null)[];
  readonly #bytes: Uint32Array;
  readonly #startedAt: Float64Array;
  readonly #method: Uint8Array;
  readonly #shard: Int16Array;
  readonly #free: Uint32Array;
  #freeCount: number;
  #bytesInFlight = 0;

  /** `callsMax`: calls at a time (limits.in_flight_calls). */
  constructor(callsMax: number) {
    this.#done = new Array<Done | null>(callsMax).fill(null);
    this.#bytes = new Uint32Array(callsMax);
    this.#startedAt = new Float64Array(callsMax);
    this.#method = new Uint8Array(callsMax);
    this.#shard = new Int16Array(callsMax).fill(-1);
    this.#free = new Uint32Array(callsMax);
    for (let i = 0; i < callsMax; i++) this.#free[i] = callsMax - 1 - i;
    this.#freeCount = callsMax;
  }

  get inFlight(): number {
    return this.#done.length - this.#freeCount;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  get full(): boolean {
    return this.#freeCount === 0;
  }

  /** Only when not `full`. `startedAt` in ms of performance.now(). */
  open(done: Done, method: number, shard: number, bytes: number, startedAt: number): number {
    assert(this.#freeCount > 0, 'the call table is full');
    this.#freeCount -= 1;
    const call = this.#free[this.#freeCount] as number;
    this.#done[call] = done;
    this.#bytes[call] = bytes;
    this.#startedAt[call] = startedAt;
    this.#method[call] = method;
    this.#shard[call] = shard;
    this.#bytesInFlight += bytes;
    return call;
  }

  method(call: number): number {
    return this.#method[call] as number;
  }

  startedAt(call: number): number {
    return this.#startedAt[call] as number;
  }

  /** The call, which was held, is its shard's from now on. */
  assign(call: number, shard: number): void {
    this.#shard[call] = shard;
  }

  /** Gives the number back and returns what answers the call. */
  close(call: number): Done {
    const done = defined(this.#done[call], 'an answer names a call that is not open');
    this.#done[call] = null;
    this.#shard[call] = -1;
    this.#bytesInFlight -= this.#bytes[call] as number;
    this.#free[this.#freeCount] = call;
    this.#freeCount += 1;
    return done;
  }

  /** The open calls of a shard; for when it has died. */
  callsOfShard(shard: number): number[] {
    const calls: number[] = [];
    for (let call = 0; call < this.#shard.length; call++) {
      if (this.#shard[call] === shard) calls.push(call);
    }
    return calls;
  }
}
