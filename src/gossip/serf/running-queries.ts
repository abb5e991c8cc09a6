import { RUNNING_QUERIES_MAX } from './limits.ts';
import type { QueryResponseMessage } from './messages.ts';
import type { QueryWatcher } from './types.ts';

interface RunningQuery {
  readonly handle: number;
  readonly id: number;
  readonly deadline: number;
  readonly watcher: QueryWatcher;
  readonly acks: Set<string>;
  readonly responses: Set<string>;
}

/** Queries of this node that wait for answers, by the Lamport time that each has for itself (hashicorp/serf serf/query.go QueryResponse). */
export class RunningQueries {
  readonly #byTime = new Map<number, RunningQuery>();
  #nextHandle = 1;

  get isFull(): boolean {
    return this.#byTime.size >= RUNNING_QUERIES_MAX;
  }

  start(time: number, id: number, deadline: number, watcher: QueryWatcher): number {
    const handle = this.#nextHandle++;
    this.#byTime.set(time, { handle, id, deadline, watcher, acks: new Set(), responses: new Set() });
    return handle;
  }

  /** Answers of one node count once; the caller has seen to it that it is a member, which bounds how many there are. */
  handleResponse(message: QueryResponseMessage, now: number): void {
    const query = this.#byTime.get(message.time);
    if (query === undefined || query.id !== message.id || now > query.deadline) return;
    const answered = message.isAck ? query.acks : query.responses;
    if (answered.has(message.from)) return;
    answered.add(message.from);
    if (message.isAck) query.watcher.onAck?.(message.from);
    else query.watcher.onResponse?.(message.from, message.payload);
  }

  /** Ends one before its time; `onDone` is called. */
  end(handle: number): void {
    for (const [time, query] of this.#byTime) if (query.handle === handle) this.#end(time, query);
  }

  tick(now: number): void {
    for (const [time, query] of this.#byTime) if (now >= query.deadline) this.#end(time, query);
  }

  nextAt(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const query of this.#byTime.values()) next = Math.min(next, query.deadline);
    return next;
  }

  #end(time: number, query: RunningQuery): void {
    this.#byTime.delete(time);
    query.watcher.onDone?.();
  }
}
