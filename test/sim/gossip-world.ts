import { Prng } from '../../src/base/prng.ts';
import type { Address } from '../../src/gossip/types.ts';

/** What a seed's network does to packets while faults are on. */
export interface Weather {
  readonly lossPercent: number;
  readonly duplicatePercent: number;
  /** Packets that take up to LATE_MS more, so that others overtake them. */
  readonly latePercent: number;
  readonly delayMsMin: number;
  readonly delayMsMax: number;
}

export const CALM: Weather = { lossPercent: 0, duplicatePercent: 0, latePercent: 0, delayMsMin: 0, delayMsMax: 1 };

/** What cannot get from one node to another. `udp`: datagrams only, connections work. */
export type CutKind = 'all' | 'udp';

/** What has an address. */
export interface Endpoint {
  readonly name: string;
  /** False: nothing listens, a connection is refused. */
  readonly isListening: boolean;
  receive(messages: readonly Uint8Array[], from: Address): void;
  /** A connection with what the other sent over it. `answer` goes back; without it the connection ends without a word. */
  accept(request: unknown, from: Address, answer: (reply: unknown) => void): void;
}

const LATE_MS = 900;
/** A connection that nobody answers is given up after it (memberlist's TCPTimeout). */
export const STREAM_TIMEOUT_MS = 10_000;

interface Planned {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Virtual time and the network. Events of one moment run in the order in which they were planned. */
export class GossipWorld {
  readonly prng: Prng;
  weather: Weather = CALM;
  now = 0;
  /** Since when nothing is cut; Infinity while something is. */
  wholeSince = 0;
  /** The same for what cuts connections as well. */
  streamsWholeSince = 0;
  /** Since when nobody forges or replays packets. */
  foesSince = 0;
  packets = 0;
  readonly #heap: Planned[] = [];
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #cuts = new Map<string, number>();
  readonly #cutCounts = { all: 0, udp: 0 };
  #order = 0;
  #trace = 0;

  constructor(seed: number) {
    this.prng = new Prng(seed);
  }

  /** Depends on every packet and every choice. */
  get trace(): number {
    return this.#trace;
  }

  note(value: number): void {
    this.#trace = (Math.imul(this.#trace, 31) + value) >>> 0;
  }

  noteText(text: string): void {
    for (let i = 0; i < text.length; i += 1) {
      this.note(text.charCodeAt(i));
    }
  }

  at(time: number, run: () => void): void {
    const heap = this.#heap;
    const planned = { at: Math.max(time, this.now), order: this.#order, run };
    this.#order += 1;
    let i = heap.length;
    heap.push(planned);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Planned;
      if (!isBefore(planned, above)) {
        break;
      }
      heap[i] = above;
      i = parent;
    }
    heap[i] = planned;
  }

  runUntil(time: number): void {
    for (let next = this.#heap[0]; next !== undefined && next.at <= time; next = this.#heap[0]) {
      this.#removeFirst();
      this.now = next.at;
      next.run();
    }
    this.now = time;
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop() as Planned;
    if (heap.length === 0) {
      return;
    }
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      const right = heap[child + 1];
      if (right !== undefined && isBefore(right, heap[child] as Planned)) {
        child += 1;
      }
      const below = heap[child] as Planned;
      if (!isBefore(below, last)) {
        break;
      }
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
  }

  plug(address: Address, endpoint: Endpoint): void {
    this.#endpoints.set(keyOf(address), endpoint);
  }

  unplug(address: Address): void {
    this.#endpoints.delete(keyOf(address));
  }

  /** Cuts add up: what was cut twice has to be mended twice. */
  cut(from: string, to: string, kind: CutKind): void {
    const key = `${kind}/${from}>${to}`;
    this.#cuts.set(key, (this.#cuts.get(key) ?? 0) + 1);
    this.#cutCounts[kind] += 1;
    this.wholeSince = Number.POSITIVE_INFINITY;
    if (kind === 'all') {
      this.streamsWholeSince = Number.POSITIVE_INFINITY;
    }
  }

  mend(from: string, to: string, kind: CutKind): void {
    const key = `${kind}/${from}>${to}`;
    const left = (this.#cuts.get(key) ?? 0) - 1;
    if (left > 0) {
      this.#cuts.set(key, left);
    } else {
      this.#cuts.delete(key);
    }
    this.#cutCounts[kind] -= 1;
    if (this.#cutCounts.all === 0 && kind === 'all') {
      this.streamsWholeSince = this.now;
    }
    if (!this.#hasCuts) {
      this.wholeSince = this.now;
    }
  }

  /** `from`: the name of the node that sends, `source` the address that it sends from. */
  packet(from: string, source: Address, to: Address, messages: readonly Uint8Array[]): void {
    this.packets += 1;
    const { weather, prng } = this;
    const copies = weather.duplicatePercent > 0 && prng.nextBelow(100) < weather.duplicatePercent ? 2 : 1;
    for (let i = 0; i < copies; i += 1) {
      if (weather.lossPercent > 0 && prng.nextBelow(100) < weather.lossPercent) {
        continue;
      }
      const isLate = weather.latePercent > 0 && prng.nextBelow(100) < weather.latePercent;
      const delay = this.#delay() + (isLate ? prng.nextBelow(LATE_MS) : 0);
      this.at(this.now + delay, () => {
        const endpoint = this.#endpoints.get(keyOf(to));
        if (endpoint !== undefined && !this.#isCut(from, endpoint.name, 'udp')) {
          endpoint.receive(messages, source);
        }
      });
    }
  }

  /** One request and one reply over a connection. `done` hears of it exactly once: undefined when it failed, by refusal, cut or time. */
  connect(from: string, source: Address, to: Address, request: unknown, done: (reply: unknown) => void): void {
    let isOver = false;
    const end = (reply: unknown): void => {
      if (!isOver) {
        isOver = true;
        done(reply);
      }
    };
    this.at(this.now + STREAM_TIMEOUT_MS, () => end(undefined));
    this.at(this.now + this.#delay(), () => {
      const endpoint = this.#endpoints.get(keyOf(to));
      if (endpoint === undefined || this.#isCut(from, endpoint.name, 'stream')) {
        return;
      }
      if (!endpoint.isListening) {
        this.#reply(endpoint.name, from, () => end(undefined));
        return;
      }
      endpoint.accept(request, source, (reply) => this.#reply(endpoint.name, from, () => end(reply)));
    });
  }

  #reply(from: string, to: string, run: () => void): void {
    this.at(this.now + this.#delay(), () => {
      if (!this.#isCut(from, to, 'stream')) {
        run();
      }
    });
  }

  #delay(): number {
    const { delayMsMin, delayMsMax } = this.weather;
    return delayMsMin + (delayMsMax > delayMsMin ? this.prng.nextBelow(delayMsMax - delayMsMin + 1) : 0);
  }

  get #hasCuts(): boolean {
    return this.#cutCounts.all + this.#cutCounts.udp > 0;
  }

  #isCut(from: string, to: string, what: 'udp' | 'stream'): boolean {
    if (!this.#hasCuts) {
      return false;
    }
    return this.#cuts.has(`all/${from}>${to}`) || (what === 'udp' && this.#cuts.has(`udp/${from}>${to}`));
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

export function keyOf(address: Address): string {
  return `${address.host}:${address.port}`;
}
