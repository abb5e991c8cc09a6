/**
 * Virtual time for code that lives with promises, timers and threads: everything that such code takes from its surroundings (clocks, timers,
 * chance, how threads wake each other) comes from one queue of events and one seed, while a run lasts. Each event runs to its end, microtasks
 * included, before the next one begins: after each of them the real event loop makes one turn, and that empties the queue of microtasks.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import timersPromises from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';

/** Something with an event loop of its own: a thread, or a program on another machine. */
export class Actor {
  readonly name: string;
  #pausedUntil = 0;
  /** Nothing of it runs any more: its timers, promises and what is on its way to it are lost, as with a thread that ended. */
  isDead = false;
  /** Callbacks of setImmediate keep their order. */
  immediateAt = 0;
  /** Calls as this actor, with what its promises remember; made once, since each run has hundreds of thousands of calls. */
  enter: ((work: () => void) => void) | null = null;

  constructor(name: string) {
    this.name = name;
  }

  /** Nothing of it runs before, in ms: it was stopped, or blocks its own loop. */
  get pausedUntil(): number {
    return this.#pausedUntil;
  }

  /** Never back: what waits for the end of a pause would be overtaken by what comes behind it. */
  pauseUntil(ms: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, ms);
  }
}

interface Event {
  /** ms since the start of the run */
  at: number;
  /** Events of one moment run in the order in which they were asked for. */
  readonly order: number;
  readonly actor: Actor;
  work: (() => void) | null;
}

interface Waiter {
  readonly actor: Actor;
  readonly resolve: (value: 'ok') => void;
}

type Target = { [name: string]: unknown };

/** The wall clock at the start of a run, epoch ms. */
export const EPOCH_MS = 1_700_000_000_000;
/** Between a callback of setImmediate and the turn in which it runs, in ms. */
const TURN_MS = 0.02;
/** Until a thread that was rung runs, in ms. */
const WAKE_MS_MAX = 0.1;

const realImmediate = setImmediate;

export class SimTime {
  readonly random: Prng;
  /** Of what the simulated programs draw themselves, so that one draw more there changes no choice of the simulator's. */
  readonly #ambient: Prng;
  readonly #context = new AsyncLocalStorage<Actor>();
  readonly #heap: Event[] = [];
  readonly #waiters = new Map<SharedArrayBuffer | ArrayBufferLike, Waiter[]>();
  readonly #undo: (() => void)[] = [];
  readonly #nobody = new Actor('nobody');
  #now = 0;
  #order = 0;
  #trace = 0x811c9dc5;
  #failure: unknown = null;
  events = 0;

  constructor(seed: number) {
    this.random = new Prng(seed);
    this.#ambient = new Prng(seed ^ 0x5bd1e995);
  }

  /** ms since the start of the run */
  get now(): number {
    return this.#now;
  }

  /** A hash over everything that has happened. */
  get trace(): string {
    return (this.#trace >>> 0).toString(16);
  }

  get current(): Actor {
    return this.#context.getStore() ?? this.#nobody;
  }

  note(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i));
  }

  /** Uniform in [min, max), in ms. */
  between(min: number, max: number): number {
    return min + (this.random.nextUint32() / 0x1_0000_0000) * (max - min);
  }

  post(actor: Actor, delayMs: number, work: () => void): Event {
    const event = { at: this.#now + delayMs, order: this.#order++, actor, work };
    this.#push(event);
    return event;
  }

  /** At once, as the actor. */
  as<T>(actor: Actor, work: () => T): T {
    return this.#context.run(actor, work);
  }

  /** The run cannot go on; the first reason counts. */
  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** Runs everything up to that moment, or until `isOver`. Throws what anything of it has thrown, or failed since the last time. */
  async runUntil(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    this.#throwFailure();
    for (let next = this.#heap[0]; next !== undefined && next.at <= untilMs && !isOver(); next = this.#heap[0]) {
      this.#pop();
      const { actor, work } = next;
      if (work === null || actor.isDead) continue;
      if (actor.pausedUntil > next.at) {
        next.at = actor.pausedUntil;
        this.#push(next);
        continue;
      }
      this.#now = next.at;
      this.events += 1;
      this.#mix(next.order);
      try {
        actor.enter ??= this.#context.run(actor, () => AsyncLocalStorage.snapshot());
        actor.enter(work);
      } catch (error) {
        this.fail(error);
      }
      // One turn of the real event loop: behind it no microtask is left.
      await new Promise<void>((resolve) => void realImmediate(resolve));
      this.#throwFailure();
    }
    if (!isOver()) this.#now = Math.max(this.#now, untilMs);
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Clocks, timers, chance and wake-ups are this run's until `restore`. */
  install(): void {
    const ambient = (): number => this.#ambient.nextUint32() / 0x1_0000_0000;
    const clear = (event: Event | undefined | null): void => {
      if (event !== undefined && event !== null) event.work = null;
    };
    this.#replace(Date, 'now', () => EPOCH_MS + Math.floor(this.#now));
    this.#replace(performance, 'now', () => this.#now);
    this.#replace(performance, 'eventLoopUtilization', () => ({ idle: 0, active: 0, utilization: 0 }));
    this.#replace(Math, 'random', ambient);
    this.#replace(globalThis, 'setTimeout', (work: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) =>
      asTimer(this.#later(Math.max(1, ms ?? 0), () => work(...args))),
    );
    this.#replace(globalThis, 'setInterval', (work: (...args: unknown[]) => void, ms: number, ...args: unknown[]) =>
      asTimer(this.#every(Math.max(1, ms), () => work(...args))),
    );
    this.#replace(globalThis, 'setImmediate', (work: (...args: unknown[]) => void, ...args: unknown[]) =>
      asTimer(this.#immediate(() => work(...args))),
    );
    for (const name of ['clearTimeout', 'clearInterval', 'clearImmediate']) this.#replace(globalThis, name, clear);
    this.#replace(Atomics, 'waitAsync', (array: Int32Array, index: number, value: number) =>
      this.#wait(array, index, value),
    );
    this.#replace(Atomics, 'notify', (array: Int32Array, _index: number, count: number) => this.#notify(array, count));
    this.#replace(timersPromises, 'setTimeout', (ms: number, value: unknown, options?: { signal?: AbortSignal }) =>
      this.#sleep(ms, value, options?.signal),
    );
    this.#replace(crypto, 'randomBytes', (size: number) =>
      Buffer.from(Array.from({ length: size }, () => this.#ambient.nextBelow(256))),
    );
    this.#replace(crypto, 'randomInt', (max: number) => Math.floor(ambient() * max));
    const onRejection = (error: unknown): void => this.fail(error);
    process.on('unhandledRejection', onRejection);
    this.#undo.push(() => process.off('unhandledRejection', onRejection));
    syncBuiltinESMExports();
  }

  restore(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
    syncBuiltinESMExports();
  }

  #replace(target: object, name: string, value: unknown): void {
    const original = Object.getOwnPropertyDescriptor(target, name);
    Object.defineProperty(target, name, { configurable: true, writable: true, value });
    this.#undo.push(() => {
      if (original === undefined) delete (target as Target)[name];
      else Object.defineProperty(target, name, original);
    });
  }

  #later(ms: number, work: () => void): Event {
    return this.post(this.current, ms, work);
  }

  /** What is cleared is the handle, which each tick looks at. */
  #every(ms: number, work: () => void): Event {
    const { current } = this;
    const handle: Event = { at: 0, order: -1, actor: current, work };
    const tick = (): void => {
      if (handle.work === null) return;
      this.post(current, ms, tick);
      work();
    };
    this.post(current, ms, tick);
    return handle;
  }

  #immediate(work: () => void): Event {
    const actor = this.current;
    actor.immediateAt = Math.max(actor.immediateAt, this.#now + this.#ambientDelay(TURN_MS));
    return this.post(actor, actor.immediateAt - this.#now, work);
  }

  #ambientDelay(max: number): number {
    return (this.#ambient.nextUint32() / 0x1_0000_0000) * max;
  }

  #sleep(ms: number, value: unknown, signal: AbortSignal | undefined): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const aborted = (): void => reject(new DOMException('The operation was aborted', 'AbortError'));
      if (signal?.aborted === true) {
        aborted();
        return;
      }
      const onAbort = (): void => {
        event.work = null;
        aborted();
      };
      const event = this.#later(Math.max(1, ms), () => {
        signal?.removeEventListener('abort', onAbort);
        resolve(value);
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  #wait(array: Int32Array, index: number, value: number): { async: boolean; value: unknown } {
    if (Atomics.load(array, index) !== value) return { async: false, value: 'not-equal' };
    const { promise, resolve } = Promise.withResolvers<'ok'>();
    const waiters = this.#waiters.get(array.buffer) ?? [];
    this.#waiters.set(array.buffer, waiters);
    waiters.push({ actor: this.current, resolve });
    return { async: true, value: promise };
  }

  #notify(array: Int32Array, count: number): number {
    const woken = this.#waiters.get(array.buffer)?.splice(0, count) ?? [];
    for (const { actor, resolve } of woken) this.post(actor, this.#ambientDelay(WAKE_MS_MAX), () => resolve('ok'));
    return woken.length;
  }

  #mix(value: number): void {
    this.#trace = Math.imul(this.#trace ^ value, 0x0100_0193);
  }

  // --- a binary heap by time, then order ---

  #push(event: Event): void {
    const heap = this.#heap;
    heap.push(event);
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      if (!isBefore(heap[child] as Event, last)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(left: Event, right: Event): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}

/** What programs do with a timer beside clearing it. */
function asTimer(event: Event): unknown {
  const timer = event as Event & Target;
  timer.unref = () => timer;
  timer.ref = () => timer;
  timer.hasRef = () => true;
  return timer;
}
