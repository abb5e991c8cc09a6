/** One sender in one limiter: how much of it it has had, in the limiter's own time, and what it waits for. */
export class Flow {
  /** When its present cost begins, and the one before ended: ms of the limiter's rate, not of a clock. */
  start = 0;
  finish = 0;
  /** Which rates of the limiter these two are counted by. */
  epoch = 0;
  /** Number of its place among those that begin at the same time. */
  order = 0;
  isWaiting = false;
  /** `start` and `order` stand until it has taken what it waited for: also when it is its turn, and something else keeps it. */
  isPlaced = false;
  messages = 0;
  bytes = 0;
  /** Which period of the limiter counts it as a sender (Limiter.note). */
  period = -1;
  /** It is its turn: called once for each wait. */
  readonly onTurn: () => void;

  constructor(onTurn: () => void) {
    this.onTurn = onTurn;
  }
}

export function isBefore(left: Flow, right: Flow): boolean {
  return left.start < right.start || (left.start === right.start && left.order < right.order);
}

/** Flows that wait, the one that begins first in front: a binary heap. */
export class Turns {
  readonly #heap: Flow[] = [];
  #order = 0;

  /** Flows that wait. */
  get size(): number {
    return this.#heap.length;
  }

  /** At its place, if it has one; else where `start` says, behind those with the same. */
  push(flow: Flow, start: number): void {
    if (!flow.isPlaced) {
      flow.start = start;
      flow.order = this.#order;
      this.#order += 1;
    }
    flow.isPlaced = true;
    flow.isWaiting = true;
    const heap = this.#heap;
    heap.push(flow);
    let at = heap.length - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(flow, heap[above] as Flow)) break;
      heap[at] = heap[above] as Flow;
      at = above;
    }
    heap[at] = flow;
  }

  peek(): Flow | null {
    const [first] = this.#heap;
    return first ?? null;
  }

  /** The flow waits no more, wherever it stands. */
  remove(flow: Flow): void {
    const at = this.#heap.indexOf(flow);
    if (at < 0) return;
    this.#removeAt(at);
  }

  pop(): Flow | null {
    const flow = this.peek();
    if (flow !== null) this.#removeAt(0);
    return flow;
  }

  #removeAt(at: number): void {
    const heap = this.#heap;
    const flow = heap[at] as Flow;
    flow.isWaiting = false;
    const last = heap.pop() as Flow;
    if (at === heap.length) return;
    // Up if it is before what is above, else down.
    let hole = at;
    while (hole > 0 && isBefore(last, heap[(hole - 1) >> 1] as Flow)) {
      heap[hole] = heap[(hole - 1) >> 1] as Flow;
      hole = (hole - 1) >> 1;
    }
    for (let below = hole * 2 + 1; below < heap.length; below = hole * 2 + 1) {
      const right = heap[below + 1];
      if (right !== undefined && isBefore(right, heap[below] as Flow)) below += 1;
      if (!isBefore(heap[below] as Flow, last)) break;
      heap[hole] = heap[below] as Flow;
      hole = below;
    }
    heap[hole] = last;
  }
}
