/** Producers on publish streams: batches in flight, sent again in order on a new stream until each has its ids, with every step told to the checker. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import type { History } from '../support/checker.ts';
import { PublishStream } from '../support/publish-stream.ts';

const IN_FLIGHT = 8;
const MESSAGES_MAX = 12;
const RETRY_MS = 5;
/** Between two rounds: everything that is stored has to be read back. */
const ROUND_MS = 40;

interface PendingBatch {
  readonly sequence: number;
  readonly subject: string;
  readonly bodies: readonly Buffer[];
  readonly submissions: readonly number[];
}

interface StreamProducer {
  readonly id: string;
  nextSequence: number;
  /** Sent or to be sent, without ids, in the order of their sequences. */
  readonly pending: Map<number, PendingBatch>;
}

export class StreamLoad {
  readonly #history: History;
  readonly #prng: Prng;
  readonly #subjects: readonly string[];
  readonly #producers: StreamProducer[];
  #over = true;
  #loops: Promise<void>[] = [];
  #streams = new Set<PublishStream>();
  #messages = 0;
  /** Reasons of refused batches. */
  readonly refusals = new Set<string>();

  constructor(history: History, seed: number, label: string, subjects: readonly string[], producers: number) {
    this.#history = history;
    this.#prng = new Prng(seed);
    this.#subjects = subjects;
    this.#producers = Array.from({ length: producers }, (_, index) => ({
      id: `${label}-stream-${index}`,
      nextSequence: 1,
      pending: new Map(),
    }));
  }

  start(address: string): void {
    this.#over = false;
    this.#loops = this.#producers.map((producer) => this.#produce(producer, address, false));
  }

  /** Resolves when no stream is open any more. */
  async stop(): Promise<void> {
    this.#over = true;
    for (const stream of this.#streams) stream.cancel();
    await Promise.all(this.#loops);
    this.#loops = [];
  }

  /** Sends what has no ids yet until everything has. */
  async settle(address: string): Promise<void> {
    this.#over = false;
    await Promise.all(this.#producers.map((producer) => this.#produce(producer, address, true)));
    this.#over = true;
  }

  async #produce(producer: StreamProducer, address: string, isLast: boolean): Promise<void> {
    while (!this.#over && !(isLast && producer.pending.size === 0)) {
      const first = Math.min(producer.nextSequence, ...producer.pending.keys());
      const stream = await PublishStream.open(address, producer.id, first);
      this.#streams.add(stream);
      while (stream.status === undefined && !this.#over && !(isLast && producer.pending.size === 0)) {
        while (!isLast && producer.pending.size < IN_FLIGHT) this.#draft(producer);
        await this.#round(stream, producer);
        if (!isLast) await sleep(ROUND_MS);
      }
      this.#streams.delete(stream);
      stream.cancel();
      // It has forgotten a producer whose batches it acknowledged.
      if (stream.status?.reason === 'SEQUENCE_UNKNOWN') throw stream.status;
      if (!this.#over) await sleep(RETRY_MS);
    }
  }

  /** All that is pending, in order, and what becomes of it. */
  async #round(stream: PublishStream, producer: StreamProducer): Promise<void> {
    const batches = [...producer.pending.values()].sort((a, b) => a.sequence - b.sequence);
    const attempts = batches.map((batch) =>
      batch.submissions.map((submission) => this.#history.beginAttempt(submission)),
    );
    for (const { sequence, subject, bodies } of batches) {
      stream.results.delete(sequence);
      stream.send({ sequence, subject, bodies });
    }
    await stream.settled(...batches.map(({ sequence }) => sequence));
    batches.forEach(({ sequence, bodies }, index) => {
      const result = stream.results.get(sequence);
      const error = result?.error;
      const isStored = result !== undefined && error === undefined;
      if (isStored) producer.pending.delete(sequence);
      if (error !== undefined) this.refusals.add(error.reason);
      if (error?.retryAfterMs === 0 && error.outcome === 1) throw new Error(`batch refused for ever: ${error.reason}`);
      if (isStored && result.lastId - result.firstId + 1 !== bodies.length)
        throw new Error('a batch has another number of ids');
      (attempts[index] as number[]).forEach((attempt, message) => {
        if (isStored) this.#history.endAttempt(attempt, { outcome: 'ok', id: result.firstId + message });
        else this.#history.endAttempt(attempt, { outcome: error?.outcome === 1 ? 'none' : 'unknown' });
      });
    });
  }

  #draft(producer: StreamProducer): void {
    const subject = this.#subjects[this.#prng.nextBelow(this.#subjects.length)] as string;
    const sequence = producer.nextSequence++;
    const bodies = Array.from({ length: 1 + this.#prng.nextBelow(MESSAGES_MAX) }, () => {
      const body = Buffer.alloc(40 + this.#prng.nextBelow(400));
      body.write(`${producer.id} ${this.#messages++} `);
      return body;
    });
    const submissions = bodies.map((payload, index) =>
      this.#history.submit({
        subject,
        payload,
        lane: producer.id,
        producer: producer.id,
        sequence: sequence * 1_000 + index,
      }),
    );
    producer.pending.set(sequence, { sequence, subject, bodies, submissions });
  }
}
