import { assert } from '../base/assert.ts';

/** Batches of one stream that may be without a result at a time, and how far back a refused one may be sent again. */
export const LEDGER_SEQUENCES = 1024;

const CAPACITY_START = 16;

/** States of an entry. FREE also stands for a sequence that the client has left out. */
const FREE = 0;
const IN_FLIGHT = 1;
const STORED = 2;
const REFUSED = 3;

/** What becomes of a batch that the client sends: taken, or why not. */
export type Admission = 'taken' | 'out-of-order' | 'too-many';

/**
 * The batches of one publish stream by sequence: which are on their way, and up to where each has its result. Entry of sequence s: s modulo the
 * capacity, a power of two that grows to 1,024; no two remembered sequences are further apart, so an entry stands for one sequence.
 *
 * The order rule: a new batch has a higher sequence than all before (sequences may be left out: their results came on an earlier stream),
 * and one that was refused may come again while it is among the last 1,024.
 */
export class SequenceLedger {
  /** Highest sequence taken; one below the first before that. */
  #last: number;
  /** Every sequence up to it has a result or was left out. */
  #acknowledged: number;
  #inFlight = 0;
  #bytesInFlight = 0;
  #messagesInFlight = 0;
  #capacity = CAPACITY_START;
  #state = new Uint8Array(CAPACITY_START);
  #shard = new Int16Array(CAPACITY_START);
  #bytes = new Uint32Array(CAPACITY_START);
  #messages = new Uint32Array(CAPACITY_START);
  #takenAt = new Float64Array(CAPACITY_START);

  /** `first`: lowest sequence that the stream may send, from 1. */
  constructor(first: number) {
    assert(first >= 1 && Number.isSafeInteger(first), () => `first sequence ${first}`);
    this.#last = first - 1;
    this.#acknowledged = first - 1;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  get messagesInFlight(): number {
    return this.#messagesInFlight;
  }

  /** Every batch up to this sequence has its result. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  get last(): number {
    return this.#last;
  }

  /** Whether a batch with this sequence may be taken now; changes nothing. */
  judge(sequence: number): Admission {
    if (sequence > this.#last) {
      if (!Number.isSafeInteger(sequence)) return 'out-of-order';
      return this.#hasRoom(sequence) ? 'taken' : 'too-many';
    }
    if (sequence < 1 || sequence <= this.#last - this.#capacity) return 'out-of-order';
    return this.#state[this.#entry(sequence)] === REFUSED ? 'taken' : 'out-of-order';
  }

  /** Notes a batch that `judge` found fit. `takenAt`: ms, monotonic. */
  take(sequence: number, shard: number, bytes: number, messages: number, takenAt: number): void {
    if (sequence > this.#last) this.#advance(sequence);
    const entry = this.#entry(sequence);
    this.#state[entry] = IN_FLIGHT;
    this.#shard[entry] = shard;
    this.#bytes[entry] = bytes;
    this.#messages[entry] = messages;
    this.#takenAt[entry] = takenAt;
    this.#inFlight += 1;
    this.#bytesInFlight += bytes;
    this.#messagesInFlight += messages;
  }

  messages(sequence: number): number {
    return this.#messages[this.#entry(sequence)] as number;
  }

  bytes(sequence: number): number {
    return this.#bytes[this.#entry(sequence)] as number;
  }

  takenAt(sequence: number): number {
    return this.#takenAt[this.#entry(sequence)] as number;
  }

  /** The sequence on its way whose lower ten bits are these: what an answer names. */
  sequenceOf(lowBits: number): number {
    const below = this.#last - ((this.#last - lowBits) & (LEDGER_SEQUENCES - 1));
    assert(this.#state[this.#entry(below)] === IN_FLIGHT, 'an answer names a batch that is not on its way');
    return below;
  }

  /** A batch has its result. */
  settle(sequence: number, isStored: boolean): void {
    const entry = this.#entry(sequence);
    assert(this.#state[entry] === IN_FLIGHT, () => `batch ${sequence} is not on its way`);
    this.#state[entry] = isStored ? STORED : REFUSED;
    this.#inFlight -= 1;
    this.#bytesInFlight -= this.#bytes[entry] as number;
    this.#messagesInFlight -= this.#messages[entry] as number;
    this.#moveOn(this.#last);
  }

  /** A batch that is refused at once, without having been on its way. */
  refuse(sequence: number): void {
    this.take(sequence, -1, 0, 0, 0);
    this.settle(sequence, false);
  }

  /** The sequences that are on their way to a shard, in order; for when it has died. */
  inFlightOf(shard: number): number[] {
    const found: number[] = [];
    const lowest = Math.max(1, this.#last - this.#capacity + 1);
    for (let sequence = lowest; sequence <= this.#last; sequence++) {
      const entry = this.#entry(sequence);
      if (this.#state[entry] === IN_FLIGHT && this.#shard[entry] === shard) found.push(sequence);
    }
    return found;
  }

  #entry(sequence: number): number {
    return sequence % this.#capacity;
  }

  /** Nothing that is on its way is 1,024 or more below the sequence. */
  #hasRoom(sequence: number): boolean {
    if (this.#inFlight === 0) return true;
    if (sequence === this.#last + 1) {
      return this.#capacity < LEDGER_SEQUENCES || this.#state[this.#entry(sequence)] !== IN_FLIGHT;
    }
    return sequence - this.#lowestWith(IN_FLIGHT) < LEDGER_SEQUENCES;
  }

  #advance(sequence: number): void {
    if (sequence === this.#last + 1) {
      while (this.#capacity < LEDGER_SEQUENCES && this.#isKept(sequence)) this.#grow();
    } else {
      while (this.#capacity < LEDGER_SEQUENCES && sequence - this.#lowestWith(REFUSED) >= this.#capacity) this.#grow();
    }
    // What is left out, and what leaves the window, is free.
    const from = Math.max(this.#last + 1, sequence - this.#capacity + 1);
    for (let left = from; left <= sequence; left++) this.#state[this.#entry(left)] = FREE;
    this.#last = sequence;
    if (this.#inFlight === 0) this.#acknowledged = sequence - 1;
    else this.#moveOn(sequence - 1);
  }

  #moveOn(until: number): void {
    while (this.#acknowledged < until && this.#state[this.#entry(this.#acknowledged + 1)] !== IN_FLIGHT) {
      this.#acknowledged += 1;
    }
  }

  /** The entry of the sequence stands for another one that must not be forgotten. */
  #isKept(sequence: number): boolean {
    const state = this.#state[this.#entry(sequence)];
    return state === IN_FLIGHT || state === REFUSED;
  }

  /** Lowest sequence that is on its way, or, with `REFUSED`, that one or one that may come again; one above the last if there is none. */
  #lowestWith(wanted: typeof IN_FLIGHT | typeof REFUSED): number {
    for (let sequence = Math.max(1, this.#last - this.#capacity + 1); sequence <= this.#last; sequence++) {
      const state = this.#state[this.#entry(sequence)];
      if (state === IN_FLIGHT || state === wanted) return sequence;
    }
    return this.#last + 1;
  }

  #grow(): void {
    const old = {
      capacity: this.#capacity,
      state: this.#state,
      shard: this.#shard,
      bytes: this.#bytes,
      messages: this.#messages,
      takenAt: this.#takenAt,
    };
    const capacity = old.capacity * 2;
    this.#capacity = capacity;
    this.#state = new Uint8Array(capacity);
    this.#shard = new Int16Array(capacity);
    this.#bytes = new Uint32Array(capacity);
    this.#messages = new Uint32Array(capacity);
    this.#takenAt = new Float64Array(capacity);
    const lowest = Math.max(1, this.#last - old.capacity + 1);
    for (let sequence = lowest; sequence <= this.#last; sequence++) {
      const source = sequence % old.capacity;
      const target = sequence % capacity;
      this.#state[target] = old.state[source] as number;
      this.#shard[target] = old.shard[source] as number;
      this.#bytes[target] = old.bytes[source] as number;
      this.#messages[target] = old.messages[source] as number;
      this.#takenAt[target] = old.takenAt[source] as number;
    }
  }
}
