/** Programs that use the broker: publishers and subscribers with the client's own sessions, over streams that may break. */
import { ChunkPool } from '../../src/client/chunk-pool.ts';
import type { Endpoints } from '../../src/client/endpoints.ts';
import type { ClientError } from '../../src/client/errors.ts';
import type { OutBatch } from '../../src/client/out-batch.ts';
import { recordLengthOf } from '../../src/client/out-batch.ts';
import { PublishLane } from '../../src/client/publish-lane.ts';
import { BACKOFF, RETRY_BUDGET, RetryBudget } from '../../src/client/retry.ts';
import { Subscription } from '../../src/client/subscription.ts';
import { type BrokerOracle, labelIn, labelOf, Violation } from './broker-oracle.ts';
import { Actor, type SimTime } from './broker-time.ts';
import { type Accept, SimEndpoints } from './broker-wire.ts';

export interface ClientParts {
  readonly time: SimTime;
  readonly oracle: BrokerOracle;
  readonly server: Actor;
  readonly accept: Accept;
  /** The last id that the log has given. */
  readonly headOf: (subject: string) => number;
  /** Longest way of a chunk in one direction, in ms. */
  readonly delayMsMax: number;
}

export function endpointsOf({ time, server, accept, delayMsMax }: ClientParts, client: Actor): SimEndpoints {
  return new SimEndpoints({ time, client, server, delayMsMax }, accept);
}

export interface PublisherPlan {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly isIdempotent: boolean;
  readonly deliveryTimeoutMs: number;
  /** Longest pause between two messages, in ms. */
  readonly pauseMsMax: number;
  /** Messages without an end, beyond which it waits. */
  readonly pendingMax: number;
  readonly bodyBytesMax: number;
}

/** Sends numbered messages until it is told to stop. */
export class SimPublisher {
  readonly actor: Actor;
  readonly endpoints: SimEndpoints;
  readonly plan: PublisherPlan;
  readonly #parts: ClientParts;
  readonly #lane: PublishLane;
  readonly #numbers = new Map<string, number>();
  /** Messages without an end, by their labels, and since when in ms. */
  readonly pending = new Map<string, number>();
  broken: ClientError | null = null;
  isStopping = false;

  constructor(parts: ClientParts, plan: PublisherPlan) {
    this.#parts = parts;
    this.plan = plan;
    const { time } = parts;
    this.actor = new Actor(plan.name);
    this.endpoints = endpointsOf(parts, this.actor);
    const port = {
      stored: (batch: OutBatch, firstId: number) => batch.stored(firstId),
      failed: (batch: OutBatch, error: ClientError) => batch.failed(error),
      onBroken: (error: ClientError) => {
        this.broken = error;
      },
    };
    this.#lane = time.as(
      this.actor,
      () =>
        new PublishLane(
          this.endpoints as unknown as Endpoints,
          {
            producerId: plan.isIdempotent ? plan.name : '',
            isFixedId: true,
            lingerMs: 2,
            batchBytes: 4 << 10,
            batchMessages: 50,
            deliveryTimeoutMs: plan.deliveryTimeoutMs,
            budget: new RetryBudget(RETRY_BUDGET),
            backoff: BACKOFF,
            random: Math.random,
            newProducerId: () => `${plan.name}x`,
            pool: new ChunkPool(1 << 20),
            now: () => performance.now(),
          },
          port,
        ),
    );
    if (!plan.isIdempotent) parts.oracle.isPlain(plan.name);
    time.post(this.actor, time.between(0, 20), () => this.#next());
  }

  get streams(): number {
    return this.#lane.streams;
  }

  close(): Promise<void> {
    return this.#parts.time.as(this.actor, () => this.#lane.close());
  }

  #next(): void {
    if (this.isStopping || this.broken !== null) return;
    const { time } = this.#parts;
    if (this.pending.size < this.plan.pendingMax) this.#send();
    time.post(this.actor, time.between(0.05, this.plan.pauseMsMax), () => this.#next());
  }

  #send(): void {
    const { time, oracle } = this.#parts;
    const { subjects, name, bodyBytesMax } = this.plan;
    const subject = subjects[time.random.nextBelow(subjects.length)] as string;
    const n = (this.#numbers.get(subject) ?? 0) + 1;
    this.#numbers.set(subject, n);
    const label = labelOf(name, subject, n);
    const body = `<${label};${'.'.repeat(time.random.nextBelow(bodyBytesMax))}`;
    this.pending.set(label, time.now);
    const batch = this.#lane.append(subject, body, body.length, recordLengthOf(body.length, null), null);
    batch.track(
      {
        stored: (firstId) => {
          this.pending.delete(label);
          time.note(`${label}=${firstId}`);
          oracle.stored(subject, firstId, label);
        },
        failed: (error) => {
          this.pending.delete(label);
          time.note(`${label}!${error.reason}`);
          oracle.failed(label, error.outcome);
        },
      },
      1,
    );
  }
}

export interface SubscriberPlan {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly start: 'new' | 'earliest' | { readonly id: number } | { readonly time: number };
  /** By Subscribe, message by message, of one subject. */
  readonly isPlain: boolean;
  readonly creditBytes: number;
  readonly creditMessages: number;
  /** Longest pause between two batches, in ms. */
  readonly pauseMsMax: number;
}

/** Reads what comes, and remembers it. */
export class SimSubscriber {
  readonly actor: Actor;
  readonly endpoints: SimEndpoints;
  readonly plan: SubscriberPlan;
  readonly #parts: ClientParts;
  readonly #subscription: Subscription;
  /** By subject: what came, in order. */
  readonly ids = new Map<string, number[]>();
  readonly #starts = new Map<string, number>();
  /** Takes nothing before, in ms of the run. */
  idleUntil = 0;
  ended: unknown = undefined;
  isClosed = false;

  constructor(parts: ClientParts, plan: SubscriberPlan) {
    this.#parts = parts;
    this.plan = plan;
    this.actor = new Actor(plan.name);
    this.endpoints = endpointsOf(parts, this.actor);
    const { creditBytes: bytes, creditMessages: messages, start, subjects } = plan;
    this.#subscription = parts.time.as(this.actor, () => {
      const subscription = new Subscription(
        this.endpoints as unknown as Endpoints,
        subjects,
        { start, credit: { bytes, messages }, heartbeatMs: 500, broadcasts: plan.isPlain },
        () => Promise.resolve(0),
      );
      void this.#read(subscription).catch((error: unknown) => {
        if (error instanceof Violation) parts.time.fail(error);
        this.ended = error;
      });
      subscription.started.then(
        () => {
          for (const { subject, nextId } of subscription.positions) {
            this.#starts.set(subject, nextId);
            // What is published from now on will come.
            const head = parts.headOf(subject);
            if (start === 'new' && nextId > head + 1)
              parts.time.fail(new Violation(`${plan.name} begins at ${subject} ${nextId}, the last id is ${head}`));
          }
        },
        () => undefined,
      );
      return subscription;
    });
  }

  /** The ids that it must have, as far as they are known; null: it was not told yet where it begins. */
  owed(subject: string): number[] | null {
    const { start } = this.plan;
    const { oracle } = this.#parts;
    if (start === 'earliest') return oracle.idsOf(subject, 1);
    if (start !== 'new') return 'id' in start ? oracle.idsOf(subject, start.id) : oracle.idsSince(subject, start.time);
    const first = this.#starts.get(subject);
    return first === undefined ? null : oracle.idsOf(subject, first);
  }

  nextOf(subject: string): number {
    return (this.ids.get(subject)?.at(-1) ?? 0) + 1;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.#parts.time.as(this.actor, () => this.#subscription.close());
  }

  async #read(subscription: Subscription): Promise<void> {
    const { time, oracle } = this.#parts;
    const { name, start } = this.plan;
    const from = typeof start === 'object' && 'time' in start ? start.time : 0;
    for await (const batch of subscription.batches()) {
      const { publishedAt } = batch;
      if (publishedAt < from)
        throw new Violation(`${name}, from ${from} on, was given ${batch.subject} ${batch.firstId} of ${publishedAt}`);
      let id = batch.firstId;
      for (const message of batch) {
        const label = labelIn(message.text);
        const ids = this.ids.get(batch.subject) ?? [];
        this.ids.set(batch.subject, ids);
        const last = ids.at(-1) ?? 0;
        if (message.id !== id || message.id <= last)
          throw new Violation(`${name} was given ${batch.subject} ${message.id} behind ${last}`);
        ids.push(message.id);
        time.note(`${name}+${message.id}`);
        oracle.wasDelivered(batch.subject, message.id, label, name);
        oracle.wasPublished(batch.subject, message.id, publishedAt);
        id += 1;
      }
      const pause = Math.max(this.idleUntil - time.now, time.between(0, this.plan.pauseMsMax));
      if (pause > 0.5) await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
