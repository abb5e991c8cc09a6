/**
 * What clients do to a cluster that things happen to: producers on publish streams and on unary calls that go to another node when theirs
 * fails them, readers and subscribers on every node. Every step is told to the checker, and to the file of operations.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BrokerClient, type Subscription } from '../support/client.ts';
import { Operations } from '../support/operations.ts';
import { BatchProducer } from './cluster-batches.ts';
import {
  type Draft,
  fetchOnce,
  HOT_SUBJECT,
  type LoadContext,
  outcomeOf,
  publishOnce,
  recordFetch,
} from './cluster-context.ts';
import { Probe } from './cluster-probe.ts';
import { delivered } from './kill-load.ts';

const INC_SUBJECT = 'cluster.a';
const RETRY_MS = 5;
const CALL_TIMEOUT_MS = 15_000;

export interface LoadSize {
  /** Producers on publish streams, over all nodes. */
  readonly batchProducers: number;
  /** On each node. */
  readonly sequencedProducers: number;
  readonly plainProducers: number;
  readonly fetchers: number;
  /** Of a producer on a publish stream between two rounds: leaves a part of the machine to the brokers. */
  readonly roundMs: number;
}

export const LOAD_SIZE: LoadSize = {
  batchProducers: 4,
  sequencedProducers: 2,
  plainProducers: 1,
  fetchers: 1,
  roundMs: 5,
};
/** All that is stored has to be read back from every node: a tenth of it, for tests that must be over soon. */
export const LIGHT_LOAD: LoadSize = { ...LOAD_SIZE, batchProducers: 3, sequencedProducers: 1, roundMs: 150 };

interface Waiting {
  readonly draft: Draft;
  readonly sequence: number;
  readonly start: number;
}

interface SequencedProducer {
  readonly id: string;
  sequence: number;
  pending: Waiting | null;
  /** Index of the node that it is at. */
  at: number;
}

export class ClusterLoad {
  readonly context: LoadContext;
  readonly probes: readonly Probe[];
  readonly #size: LoadSize;
  readonly #batches: readonly BatchProducer[];
  readonly #sequenced: readonly SequencedProducer[];
  /** Of the subscriber of each node: the last id of the hot subject that it has. */
  readonly witnessed: number[];
  readonly #subscriptions = new Set<Subscription>();
  #clients: BrokerClient[] = [];
  #loops: Promise<void>[] = [];
  /** Why a part of it ended by itself: a broker has broken a promise, or this file has a defect. */
  failure: unknown = null;

  constructor(context: LoadContext, size: LoadSize = LOAD_SIZE) {
    this.context = context;
    this.#size = size;
    const { addresses, label } = context;
    const nodes = addresses.length;
    this.probes = addresses.map((address, node) => new Probe(context, address, node));
    this.#batches = Array.from(
      { length: size.batchProducers },
      (_, index) =>
        new BatchProducer(context, `${label}-batch-${index}`, { node: index % nodes, roundMs: size.roundMs }),
    );
    this.#sequenced = Array.from({ length: size.sequencedProducers * nodes }, (_, index) => ({
      id: `${label}-unary-${index}`,
      sequence: 1,
      pending: null,
      at: index % nodes,
    }));
    this.witnessed = addresses.map(() => 0);
  }

  get acked(): number {
    return this.context.ackedCount;
  }

  start(): void {
    const { context } = this;
    context.isOver = false;
    const clients = context.addresses.map((address) => new BrokerClient(address, { timeoutMs: CALL_TIMEOUT_MS }));
    this.#clients = clients;
    const loops = [...this.probes.map((probe) => probe.run()), ...this.#batches.map((producer) => producer.run())];
    for (const producer of this.#sequenced) loops.push(this.#sequencedProducer(producer));
    for (const [node, client] of clients.entries()) {
      for (let n = 0; n < this.#size.plainProducers; n++) loops.push(this.#plainProducer(client, node, n));
      for (let n = 0; n < this.#size.fetchers; n++) loops.push(this.#fetcher(client, node));
      loops.push(this.#witness(client, node));
    }
    loops.push(this.#allotter());
    this.#loops = loops.map((loop) => loop.catch(this.#onFailure));
  }

  readonly #onFailure = (error: unknown): void => {
    this.failure ??= error;
  };

  /** Resolves when every call has its answer. All nodes must be able to give one. */
  async stop(): Promise<void> {
    this.context.isOver = true;
    for (const batches of this.#batches) batches.interrupt();
    for (const subscription of this.#subscriptions) subscription.cancel();
    await Promise.all(this.#loops);
    for (const client of this.#clients) client.close();
    this.#clients = [];
    this.#loops = [];
  }

  /** With the load stopped and all nodes up: retries what producers have no answer for, until each has one. */
  async settle(): Promise<void> {
    const clients = this.context.addresses.map((address) => new BrokerClient(address, { timeoutMs: CALL_TIMEOUT_MS }));
    this.#clients = clients;
    await Promise.all([
      ...this.#batches.map((producer) => producer.settle()),
      ...this.#sequenced.map(async (producer) => {
        while (producer.pending !== null) await this.#trySequenced(producer, producer.pending);
      }),
    ]);
    for (const client of clients) client.close();
    this.#clients = [];
  }

  async #plainProducer(client: BrokerClient, node: number, number: number): Promise<void> {
    const lane = `${this.context.label}-plain-${node}-${number}`;
    while (!this.context.isOver) {
      if (!(await publishOnce(this.context, client, lane, this.context.chooseSubject()))) await sleep(RETRY_MS);
    }
  }

  /** Repeats each message with its sequence until it is acknowledged, on whichever node answers. */
  async #sequencedProducer(producer: SequencedProducer): Promise<void> {
    while (!this.context.isOver) {
      const { id, sequence } = producer;
      producer.pending ??= {
        draft: this.context.draft(this.context.chooseSubject(), id, { producer: id, sequence }),
        sequence,
        start: Operations.now(),
      };
      await this.#trySequenced(producer, producer.pending);
    }
  }

  async #trySequenced(producer: SequencedProducer, { draft, sequence, start }: Waiting): Promise<void> {
    const { history, operations } = this.context;
    const { subject, body, submission } = draft;
    const attempt = history.beginAttempt(submission);
    const client = this.#clients[producer.at] as BrokerClient;
    try {
      const id = await client.publish({ subject, body, producerId: producer.id, sequence });
      if (this.context.isDoubtful) {
        history.endAttempt(attempt, { outcome: 'unknown' });
        return;
      }
      history.endAttempt(attempt, { outcome: 'ok', id });
      const times = { client: producer.id, subject, start, end: Operations.now() };
      operations.publish({ ...times, key: submission, count: 1, outcome: 'ok', id });
      this.context.onAcked(subject, id, 1);
      producer.pending = null;
      producer.sequence += 1;
    } catch (error) {
      history.endAttempt(attempt, { outcome: outcomeOf(this.context, error) });
      producer.at = (producer.at + 1) % this.context.addresses.length;
      await sleep(RETRY_MS);
    }
  }

  /** IncIdx through each node in turn: ids that must be void from the moment they are answered. */
  async #allotter(): Promise<void> {
    const { history, operations } = this.context;
    for (let turn = 0; !this.context.isOver; turn++) {
      await sleep(20);
      const client = this.#clients[turn % this.#clients.length] as BrokerClient;
      const start = Operations.now();
      try {
        const id = await client.incIdx(INC_SUBJECT);
        if (this.context.isDoubtful) continue;
        history.observeFetch(INC_SUBJECT, id, history.beginFetch(), { kind: 'void' });
        const times = { client: `${this.context.label}-inc`, subject: INC_SUBJECT, start, end: Operations.now() };
        operations.inc({ ...times, outcome: 'ok', id });
      } catch (error) {
        outcomeOf(this.context, error);
      }
    }
  }

  async #fetcher(client: BrokerClient, node: number): Promise<void> {
    const { acked, prng, history, operations, label } = this.context;
    while (!this.context.isOver) {
      const one = prng.chance(1, 2) ? this.context.latestAcked : acked[prng.nextBelow(Math.max(1, acked.length))];
      if (one !== undefined && one !== null) {
        const begunAt = history.beginFetch();
        const start = Operations.now();
        const found = await fetchOnce(client, one.subject, one.id);
        history.observeFetch(one.subject, one.id, begunAt, found.result);
        recordFetch(operations, found, { client: `${label}-fetch-${node}`, ...one, start });
      }
      await sleep(2);
    }
  }

  /** A subscriber of the hot subject that stays with its node, and goes on where it stood when the node is back. */
  async #witness(client: BrokerClient, node: number): Promise<void> {
    const { history } = this.context;
    while (!this.context.isOver) {
      const id = (this.witnessed[node] as number) + 1;
      const start = { at: 'id', id } as const;
      const stream = history.openStream({
        name: `witness of node ${node + 1} from ${id}`,
        subject: HOT_SUBJECT,
        start,
      });
      const subscription = client.subscribe(HOT_SUBJECT, start, {
        onLive: () => history.streamLive(stream),
        onMessage: (message) => {
          history.deliver(stream, delivered(message));
          this.witnessed[node] = message.id;
        },
      });
      this.#subscriptions.add(subscription);
      await subscription.ended;
      this.#subscriptions.delete(subscription);
      if (!this.context.isOver) await sleep(RETRY_MS);
    }
  }
}
