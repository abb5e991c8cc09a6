import { assert } from '../base/assert.ts';

/**
 * How threads sleep and wake each other: the only file with Atomics.wait, waitAsync or notify.
 *
 * One state word per thread, in its own cache line:
 *
 *            store ASLEEP (owner, then looks at its rings once more)
 *        +----------------------------------------------------------+
 *        |                                                          v
 *      AWAKE                                                     ASLEEP
 *        ^                                                          |
 *        +---- RUNG <-----------------------------------------------+
 *      owner, when    compareExchange (a ringer; the one that succeeds notifies: one system call however many ring)
 *      it runs
 *
 * Why no wake-up is lost. P puts a record into the owner's ring and rings; C is the owner.
 *   1. C: work() finds nothing.
 *   2. P: commit() stores tail.                        (a)
 *   3. P: ring() loads the state, sees AWAKE, does nothing.
 *   4. C: stores ASLEEP.                               (b)
 *   5. C: work() once more: loads tail.                (c)
 * All four accesses are Atomics, hence in one total order. If P's load (step 3) saw AWAKE, it came before (b) in that
 * order; so (a), which came before P's load, comes before (b) and before (c), and C finds the record at step 5. If P's
 * load comes after (b), P sees ASLEEP and rings. Without step 5, or with 4 and 5 exchanged, the record would lie there
 * until the insurance interval.
 *   6. C: waitAsync(ASLEEP) compares under the waiter list's lock. A ring between 5 and 6 has made the state RUNG:
 *      "not-equal", C goes on.
 *   7. A ring after 6 finds the waiter in the list and wakes it.
 *   8. C was woken by poke() while its waiter of 6 is still in the list. It must not wait twice, so on going to sleep
 *      it keeps that waiter: it stores ASLEEP, does step 5, and is done. A ring then either takes the waiter out of the
 *      list, or finds that an earlier ring did so: then that one's resolution is still on its way, and when it arrives
 *      C, asleep, wakes. Either way C runs after the record was published.
 *
 * What Node adds: waitAsync keeps no event loop alive (the 1 s interval does), and one with a timeout leaves its timer
 * behind when notified, so there is none.
 */
const STATE = 0;
const AWAKE = 0;
const ASLEEP = 1;
const RUNG = 2;

/** The state word and its neighbours: two cache lines, as in layout.ts. */
const DOORBELL_BYTES = 128;

/** A burst ends after this time or this many rounds, whichever is first, so that sockets, timers and promises have their turn. */
const BURST_MS = 1;
const BURST_ROUNDS_MAX = 256;

/** Insurance against a wake-up that no reasoning saw, and what keeps the event loop alive. Coarse: 1 a second costs nothing. */
const INSURANCE_MS = 1_000;

/** What the owner is doing; touched by its thread only. */
const STOPPED = 0;
const PARKED = 1;
/** A turn is queued with setImmediate. */
const QUEUED = 2;
const WORKING = 3;

export interface StopSignal {
  stopped: boolean;
}

export function createDoorbell(): SharedArrayBuffer {
  return new SharedArrayBuffer(DOORBELL_BYTES);
}

/** The owner's side: one per thread, since a thread may have one pending wait only. */
export class Doorbell {
  readonly #state: Int32Array;
  #phase = STOPPED;
  /** A waitAsync of this thread has not resolved yet. */
  #waiting = false;
  /** poke() came while work() ran. */
  #again = false;
  #work: () => number = noWork;
  #signal: StopSignal = { stopped: true };
  #resolve: () => void = nothing;
  #reject: (error: unknown) => void = nothing;
  #insurance: NodeJS.Timeout | undefined;

  constructor(buffer: SharedArrayBuffer) {
    assert(buffer.byteLength >= DOORBELL_BYTES, 'doorbell: make the buffer with createDoorbell');
    this.#state = new Int32Array(buffer);
  }

  /**
   * Calls `work` until it returns 0 (things done), then sleeps until rung or poked, and so on. Never blocks the event
   * loop: a busy loop yields after a burst. Resolves soon after `signal.stopped` is set: poke() after setting it, or
   * wait up to 1 s. Rejects with what `work` throws.
   */
  run(work: () => number, signal: StopSignal): Promise<void> {
    assert(this.#phase === STOPPED, 'doorbell: it runs already');
    this.#work = work;
    this.#signal = signal;
    this.#insurance = setInterval(this.#poke, INSURANCE_MS);
    this.#queueTurn();
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /**
   * Makes work run soon: in this turn of the event loop if the owner sleeps, or once more if it is at work. From the
   * owner's thread only; many cost one.
   */
  poke(): void {
    if (this.#phase === PARKED) this.#queueTurn();
    else if (this.#phase === WORKING) this.#again = true;
  }

  readonly #poke = (): void => this.poke();

  #queueTurn(): void {
    this.#phase = QUEUED;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    // Tells ringers to save the system call: from here on this thread looks at its rings before it sleeps. Pairs with the load in ring().
    Atomics.store(this.#state, STATE, AWAKE);
    this.#phase = WORKING;
    try {
      this.#burst();
    } catch (error) {
      this.#end();
      this.#reject(error);
    }
  };

  #burst(): void {
    const started = performance.now();
    for (let round = 1; !this.#signal.stopped; round += 1) {
      if (!this.#workOnce() && this.#tryPark()) return;
      if (round >= BURST_ROUNDS_MAX || performance.now() - started >= BURST_MS) {
        this.#queueTurn();
        return;
      }
    }
    this.#end();
    this.#resolve();
  }

  /** True when there was something to do, or will be. */
  #workOnce(): boolean {
    this.#again = false;
    return this.#work() > 0 || this.#again;
  }

  /** Steps 4 to 8 above. False: there is work after all. */
  #tryPark(): boolean {
    // Publishes "I sleep" before the last look at the rings (steps 4 and 5); pairs with the load in ring().
    Atomics.store(this.#state, STATE, ASLEEP);
    if (this.#workOnce() || this.#signal.stopped) return this.#stayAwake();
    if (!this.#waiting) {
      // Sleeps only while the state is still ASLEEP (step 6); pairs with the compareExchange in ring().
      const wait = Atomics.waitAsync(this.#state, STATE, ASLEEP);
      if (!wait.async) return this.#stayAwake();
      this.#waiting = true;
      void wait.value.then(this.#onRung);
    }
    this.#phase = PARKED;
    return true;
  }

  #stayAwake(): false {
    // Withdraws "I sleep"; a ringer that saw it has made it RUNG and woken nobody, or the waiter of step 8, which is harmless.
    Atomics.store(this.#state, STATE, AWAKE);
    return false;
  }

  readonly #onRung = (): void => {
    this.#waiting = false;
    if (this.#phase === PARKED) this.#turn();
  };

  #end(): void {
    this.#phase = STOPPED;
    clearInterval(this.#insurance);
  }
}

/** The other threads' side; any number may ring one bell. */
export class DoorbellRinger {
  readonly #state: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    assert(buffer.byteLength >= DOORBELL_BYTES, 'doorbell: make the buffer with createDoorbell');
    this.#state = new Int32Array(buffer);
  }

  /** Call after publishing. One load when the owner is awake. */
  ring(): void {
    // After the publication in the total order of Atomics (step 3); pairs with the owner's store of ASLEEP.
    if (Atomics.load(this.#state, STATE) !== ASLEEP) return;
    // Of all ringers one wins, and only that one pays for the wake-up; pairs with the comparison in waitAsync.
    if (Atomics.compareExchange(this.#state, STATE, ASLEEP, RUNG) !== ASLEEP) return;
    Atomics.notify(this.#state, STATE, 1);
  }
}

/** Stands this thread still, which must have nothing else to do. `ms`: 0 or more. */
export function pause(ms: number): void {
  // Nobody rings it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function nothing(): void {
  // Replaced before it can be called.
}

function noWork(): number {
  return 0;
}
