/** The clients of the demo: producers on publish streams that outlive the broker, and subscribers that go on where they stood. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, ClientError, type Publisher } from '../src/client/index.ts';
import type { History } from '../test/support/checker.ts';
import type { BrokerClient } from '../test/support/client.ts';
import type { Header, Message } from '../test/support/wire.ts';
import type { Line } from './flights.ts';

const RETRY_MS = 50;
/** Records of one producer without an acknowledgement. */
const IN_FLIGHT_MAX = 64;

/** What the checker knows a record by: its line number, and its bytes. */
export function payloadOf(headers: readonly Header[], body: Buffer): Buffer {
  const line = headers.find(({ key }) => key === 'line')?.value ?? Buffer.alloc(0);
  return Buffer.concat([line, Buffer.from(' '), body]);
}

export function seen(message: Message) {
  return { id: message.id, publishedAt: message.publishedAt, payload: payloadOf(message.headers, message.body) };
}

export class Tally {
  /** Records that were handed to a publisher. */
  published = 0;
  acked = 0;
  delivered = 0;
  /** Publish streams that were opened: those beyond the number of producers are reconnections. */
  streams = 0;
}

/**
 * Publishes its lines one by one under its own producer id, on one publish stream, with up to IN_FLIGHT_MAX of them on their way. What a broken
 * stream leaves without an answer, the client sends again with the same sequences. Once `over` is aborted no other line is begun.
 */
export async function produce(
  producer: string,
  lines: readonly Line[],
  shared: { readonly client: Client; readonly history: History; readonly tally: Tally; readonly over: AbortSignal },
): Promise<void> {
  const { client, tally, over } = shared;
  const publisher = client.publisher({ producerId: producer });
  const waiting: Promise<void>[] = [];
  try {
    for (const [index, line] of lines.entries()) {
      if (over.aborted) break;
      const publishing = publishLine(publisher, line, index + 1, shared);
      publishing.catch(() => undefined); // Its failure is met when its turn comes; until then it is not unhandled.
      waiting.push(publishing);
      if (waiting.length >= IN_FLIGHT_MAX) await waiting.shift();
    }
    await Promise.all(waiting);
  } finally {
    tally.streams += publisher.stats.streams;
    await publisher.close();
  }
}

async function publishLine(
  publisher: Publisher,
  { subject, number, text }: Line,
  sequence: number,
  { history, tally }: { readonly history: History; readonly tally: Tally },
): Promise<void> {
  tally.published += 1;
  const body = Buffer.from(text);
  const headers = [{ key: 'line', value: Buffer.from(String(number)) }];
  const producer = publisher.producerId;
  const payload = payloadOf(headers, body);
  const attempt = history.beginAttempt(history.submit({ subject, payload, producer, sequence, lane: producer }));
  try {
    const id = await publisher.publish(subject, body, { headers });
    history.endAttempt(attempt, { outcome: 'ok', id });
    tally.acked += 1;
  } catch (error) {
    history.endAttempt(attempt, { outcome: error instanceof ClientError ? error.outcome : 'unknown' });
    throw error;
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
