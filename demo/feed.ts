/** The clients of the demo: producers that repeat until they are answered, and subscribers that go on where they stood. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { History } from '../test/support/checker.ts';
import { type BrokerClient, CallError } from '../test/support/client.ts';
import type { Header, Message } from '../test/support/wire.ts';
import type { Line } from './flights.ts';

const RETRY_MS = 50;

/** What the checker knows a record by: its line number, and its bytes. */
export function payloadOf(headers: readonly Header[], body: Buffer): Buffer {
  const line = headers.find(({ key }) => key === 'line')?.value ?? Buffer.alloc(0);
  return Buffer.concat([line, Buffer.from(' '), body]);
}

export function seen(message: Message) {
  return { id: message.id, publishedAt: message.publishedAt, payload: payloadOf(message.headers, message.body) };
}

export class Tally {
  /** Records that were sent at least once. */
  published = 0;
  acked = 0;
  delivered = 0;
  /** Calls that ended without an answer: nobody knew what had become of the record. */
  unanswered = 0;
  /** Refused without effect, such as while the broker starts. */
  refused = 0;
}

/**
 * Publishes its lines one after the other under its own producer id; a line without answer is sent again with its sequence. Once `over` is
 * aborted it begins no other line.
 */
export async function produce(
  producer: string,
  lines: readonly Line[],
  shared: {
    readonly client: BrokerClient;
    readonly history: History;
    readonly tally: Tally;
    readonly over: AbortSignal;
  },
): Promise<void> {
  const { client, history, tally, over } = shared;
  for (const [index, line] of lines.entries()) {
    if (over.aborted) return;
    tally.published += 1;
    const sequence = index + 1;
    const body = Buffer.from(line.text);
    const headers = [{ key: 'line', value: Buffer.from(String(line.number)) }];
    const { subject } = line;
    const submission = history.submit({
      subject,
      payload: payloadOf(headers, body),
      producer,
      sequence,
      lane: producer,
    });
    for (let acked = false; !acked; ) {
      const attempt = history.beginAttempt(submission);
      try {
        const id = await client.publish({ subject, body, headers, producerId: producer, sequence });
        history.endAttempt(attempt, { outcome: 'ok', id });
        tally.acked += 1;
        acked = true;
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        history.endAttempt(attempt, { outcome: error.outcome });
        if (error.outcome === 'unknown') tally.unanswered += 1;
        else tally.refused += 1;
        if (error.statusName === 'INVALID_ARGUMENT' || error.statusName === 'FAILED_PRECONDITION') throw error;
        await sleep(error.retryAfterMs ?? RETRY_MS);
      }
    }
  }
}

/** A live subscription to one subject, over any number of broken connections. */
export class Follower {
  readonly #client: BrokerClient;
  readonly #history: History;
  readonly #tally: Tally;
  readonly subject: string;
  #last = 0;
  #stream = -1;
  #over = false;
  #waiting: { readonly until: number; readonly resolve: () => void } | null = null;

  constructor(
    subject: string,
    shared: { readonly client: BrokerClient; readonly history: History; readonly tally: Tally },
  ) {
    this.subject = subject;
    this.#client = shared.client;
    this.#history = shared.history;
    this.#tally = shared.tally;
    this.#subscribe();
  }

  #subscribe(): void {
    const start = { at: 'id' as const, id: this.#last + 1 };
    const stream = this.#history.openStream({ name: `follower of ${this.subject}`, subject: this.subject, start });
    this.#stream = stream;
    this.#client.subscribe(this.subject, start, {
      onMessage: (message) => this.#take(stream, message),
      onEnd: () => this.#over || setTimeout(() => this.#over || this.#subscribe(), RETRY_MS),
    });
  }

  #take(stream: number, message: Message): void {
    this.#history.deliver(stream, seen(message));
    this.#last = message.id;
    this.#tally.delivered += 1;
    if (this.#waiting !== null && message.id >= this.#waiting.until) this.#waiting.resolve();
  }

  /** Nothing is asked for any more. */
  stop(): void {
    this.#over = true;
  }

  /** Resolves when it stands at `id`, or after `timeoutMs`; from then on it must have everything. */
  async finish(id: number, timeoutMs: number): Promise<void> {
    if (this.#last < id) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting = { until: id, resolve };
      await Promise.race([promise, sleep(timeoutMs, undefined, { ref: false })]);
    }
    this.#over = true;
    this.#history.completeStream(this.#stream);
  }
}
