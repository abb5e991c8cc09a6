/** A producer on publish streams of a cluster: rounds of batches, sent again in order on a stream to the next node until each has its ids. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Operations } from '../support/operations.ts';
import { PublishStream } from '../support/publish-stream.ts';
import type { Draft, LoadContext } from './cluster-context.ts';

const IN_FLIGHT = 8;
const MESSAGES_MAX = 60;
const RETRY_MS = 5;
const OPEN_TIMEOUT_MS = 15_000;

interface PendingBatch {
  readonly sequence: number;
  readonly subject: string;
  readonly drafts: readonly Draft[];
  /** Of its first attempt. */
  start: number;
}

export class BatchProducer {
  readonly #context: LoadContext;
  readonly #id: string;
  readonly #pending = new Map<number, PendingBatch>();
  readonly #roundMs: number;
  #nextSequence = 1;
  #node: number;
  #stream: PublishStream | null = null;

  constructor(context: LoadContext, id: string, options: { readonly node: number; readonly roundMs: number }) {
    this.#context = context;
    this.#id = id;
    this.#node = options.node;
    this.#roundMs = options.roundMs;
  }

  async run(): Promise<void> {
    while (!this.#context.isOver) await this.#onStream(() => !this.#context.isOver, false);
  }

  /** The stream that is open ends now. */
  interrupt(): void {
    this.#stream?.cancel();
  }

  /** Sends what has no ids yet until everything has. */
  async settle(): Promise<void> {
    while (this.#pending.size > 0) await this.#onStream(() => this.#pending.size > 0, true);
  }

  async #onStream(goesOn: () => boolean, isLast: boolean): Promise<void> {
    const { addresses } = this.#context;
    const first = Math.min(this.#nextSequence, ...this.#pending.keys());
    const stream = new PublishStream(addresses[this.#node % addresses.length] as string);
    this.#stream = stream;
    const late = setTimeout(() => stream.opened === null && stream.cancel(), OPEN_TIMEOUT_MS);
    stream.write({ open: { producerId: this.#id, firstSequence: first }, batches: [] });
    await stream.until(() => stream.opened !== null || stream.status !== undefined);
    clearTimeout(late);
    while (stream.status === undefined && goesOn()) {
      while (!isLast && this.#pending.size < IN_FLIGHT) this.#draft();
      await this.#round(stream);
      await sleep(this.#roundMs);
    }
    this.#stream = null;
    stream.cancel();
    // It has forgotten a producer whose batches it acknowledged.
    if (stream.status?.reason === 'SEQUENCE_UNKNOWN') throw stream.status;
    this.#node += 1;
    if (goesOn()) await sleep(RETRY_MS);
  }

  /** All that is pending, in order, and what becomes of it. */
  async #round(stream: PublishStream): Promise<void> {
    const { history, operations } = this.#context;
    const batches = [...this.#pending.values()].sort((a, b) => a.sequence - b.sequence);
    const attempts = batches.map(({ drafts }) => drafts.map(({ submission }) => history.beginAttempt(submission)));
    for (const { sequence } of batches) stream.results.delete(sequence);
    stream.send(
      ...batches.map(({ sequence, subject, drafts }) => ({
        sequence,
        subject,
        bodies: drafts.map(({ body }) => body),
      })),
    );
    await stream.settled(...batches.map(({ sequence }) => sequence));
    const end = Operations.now();
    batches.forEach(({ sequence, subject, drafts, start }, index) => {
      const result = this.#context.isDoubtful ? undefined : stream.results.get(sequence);
      const error = result?.error;
      const isStored = result !== undefined && error === undefined;
      for (const [message, attempt] of (attempts[index] as number[]).entries()) {
        if (isStored) history.endAttempt(attempt, { outcome: 'ok', id: result.firstId + message });
        else history.endAttempt(attempt, { outcome: error?.outcome === 1 ? 'none' : 'unknown' });
      }
      if (error?.outcome === 1) this.#context.onRefused(`batch ${error.reason}`, error.retryAfterMs > 0);
      if (!isStored) return;
      if (result.lastId - result.firstId + 1 !== drafts.length) throw new Error('a batch has another number of ids');
      this.#pending.delete(sequence);
      const key = (drafts[0] as Draft).submission;
      const times = { client: this.#id, subject, start, end };
      operations.publish({ ...times, key, count: drafts.length, outcome: 'ok', id: result.firstId });
      this.#context.onAcked(subject, result.firstId, drafts.length);
    });
  }

  #draft(): void {
    const { prng } = this.#context;
    const subject = this.#context.chooseSubject();
    const sequence = this.#nextSequence++;
    const drafts = Array.from({ length: 1 + prng.nextBelow(MESSAGES_MAX) }, (_, index) =>
      this.#context.draft(subject, this.#id, { producer: this.#id, sequence: sequence * 1_000 + index }),
    );
    this.#pending.set(sequence, { sequence, subject, drafts, start: Operations.now() });
  }
}
