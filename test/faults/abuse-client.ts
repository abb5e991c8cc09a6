/** A client that means well and asks for little: unary publishes, a publish stream and a subscriber, timed and told to the checker. */
import { History } from '../support/checker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { pause } from '../support/until.ts';
import { delivered, reader } from './kill-load.ts';

/** Between two unary publishes, and between two batches, in ms: an open loop, so that a late answer does not make the load smaller. */
const CALL_EVERY_MS = 8;
const BATCH_EVERY_MS = 40;
const BATCH_MESSAGES = 8;
const BODY_BYTES = 200;
const SUBJECT = 'good.calls';
const STREAM_SUBJECT = 'good.batches';
const PRODUCER = 'good-producer';
/** A call that takes longer has failed for this client, unless it is told otherwise. */
const PATIENCE_MS = 5_000;
const ADMISSION_RETRY_MS = 200;
const CATCH_UP_MS = 30_000;

/** What it saw from `begin` to `end`. Times in ms. */
export interface Seen {
  /** Offered, acknowledged, and neither. */
  readonly calls: number;
  readonly acked: number;
  readonly failed: number;
  /** From the moment when a publish was due to its acknowledgement, by its percentiles. */
  readonly p50: number;
  readonly p99: number;
  readonly batchP99: number;
  /** From the publish to its delivery. */
  readonly deliveryP99: number;
  /** By reason, or status. */
  readonly refusals: Readonly<Record<string, number>>;
}

class Window {
  readonly calls: number[] = [];
  readonly batches: number[] = [];
  readonly deliveries: number[] = [];
  offered = 0;
  failed = 0;
  open = 0;
  readonly refusals: Record<string, number> = {};
}

export class GoodClient {
  readonly history = new History();
  readonly #client: BrokerClient;
  readonly #address: string;
  readonly #sentAt = new Map<string, number>();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #witness: number;
  #window = new Window();
  #stream: PublishStream | null = null;
  #isOver = false;
  #streaming: Promise<void> | null = null;
  #number = 0;
  #sequence = 0;
  #witnessed = 0;
  #due = 0;
  /** Streams that were opened again because they had ended. */
  reopened = 0;
  subscriptionEnd: CallError | null | undefined;

  constructor(address: string, patienceMs = PATIENCE_MS) {
    this.#address = address;
    this.#client = new BrokerClient(address, { timeoutMs: patienceMs });
    this.#witness = this.history.openStream({ name: 'good', subject: SUBJECT, start: { at: 'earliest' } });
  }

  async start(): Promise<void> {
    const live = Promise.withResolvers<void>();
    this.#client.subscribe(
      SUBJECT,
      { at: 'earliest' },
      {
        onLive: () => live.resolve(),
        onMessage: (message) => {
          this.history.deliver(this.#witness, delivered(message));
          this.#witnessed = message.id;
          const sentAt = this.#sentAt.get(message.body.toString('latin1', 0, 20));
          if (sentAt !== undefined) this.#window.deliveries.push(performance.now() - sentAt);
        },
        onEnd: (error) => {
          this.subscriptionEnd = error;
          live.resolve();
        },
      },
    );
    await live.promise;
    this.#due = performance.now();
    this.#timers.push(setInterval(() => this.#callDue(), CALL_EVERY_MS / 2));
    this.#streaming = this.#produce();
  }

  begin(): void {
    this.#sentAt.clear();
    this.#window = new Window();
  }

  /** Waits for what is open; nothing new counts. */
  async end(): Promise<Seen> {
    const window = this.#window;
    this.#window = new Window();
    while (window.open > 0) await pause(5);
    const { calls, batches, deliveries, offered, failed, refusals } = window;
    return {
      calls: offered,
      acked: calls.length,
      failed,
      p50: percentile(calls, 0.5),
      p99: percentile(calls, 0.99),
      batchP99: percentile(batches, 0.99),
      deliveryP99: percentile(deliveries, 0.99),
      refusals,
    };
  }

  /** Ends the load, reads everything back, and returns what was promised and not kept. */
  async judge(): Promise<readonly string[]> {
    this.#isOver = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#stream?.cancel();
    await this.#streaming;
    const client = new BrokerClient(this.#address);
    try {
      await admitted(client);
      const last = Buffer.from(`last of all ${this.#number}`);
      const attempt = this.history.beginAttempt(this.history.submit({ subject: SUBJECT, payload: last }));
      this.history.endAttempt(attempt, { outcome: 'ok', id: await client.publish({ subject: SUBJECT, body: last }) });
      const until = performance.now() + CATCH_UP_MS;
      while (this.#witnessed < this.history.highestMessage(SUBJECT) && performance.now() < until) await pause(10);
      this.history.completeStream(this.#witness);
      await this.history.readBack(reader(client), { from: 'start' });
    } finally {
      client.close();
      this.close();
    }
    const { violations } = this.history.judge();
    return violations.map((violation) => JSON.stringify(violation));
  }

  close(): void {
    this.#isOver = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#stream?.cancel();
    this.#client.close();
  }

  #callDue(): void {
    for (const now = performance.now(); this.#due <= now; this.#due += CALL_EVERY_MS) void this.#call(this.#due);
  }

  #body(): Buffer {
    const body = Buffer.alloc(BODY_BYTES);
    body.write(`${this.#number++}`.padEnd(20));
    return body;
  }

  async #call(due: number): Promise<void> {
    const window = this.#window;
    const body = this.#body();
    const attempt = this.history.beginAttempt(this.history.submit({ subject: SUBJECT, payload: body }));
    window.offered += 1;
    window.open += 1;
    this.#sentAt.set(body.toString('latin1', 0, 20), due);
    try {
      const id = await this.#client.publish({ subject: SUBJECT, body });
      this.history.endAttempt(attempt, { outcome: 'ok', id });
      window.calls.push(performance.now() - due);
    } catch (error) {
      const { outcome, reason, statusName } = error as CallError;
      this.history.endAttempt(attempt, { outcome });
      window.failed += 1;
      const name = reason ?? statusName;
      window.refusals[name] = (window.refusals[name] ?? 0) + 1;
    }
    window.open -= 1;
  }

  async #produce(): Promise<void> {
    while (!this.#isOver) {
      const stream = await PublishStream.open(this.#address, PRODUCER, this.#sequence + 1);
      this.#stream = stream;
      while (stream.status === undefined && !this.#isOver) {
        const begun = performance.now();
        await this.#batch(stream);
        await pause(Math.max(0, begun + BATCH_EVERY_MS - performance.now()));
      }
      stream.cancel();
      if (!this.#isOver) this.reopened += 1;
    }
  }

  async #batch(stream: PublishStream): Promise<void> {
    const window = this.#window;
    const begun = performance.now();
    const sequence = ++this.#sequence;
    const bodies = Array.from({ length: BATCH_MESSAGES }, () => this.#body());
    const attempts = bodies.map((payload) =>
      this.history.beginAttempt(this.history.submit({ subject: STREAM_SUBJECT, payload })),
    );
    stream.send({ subject: STREAM_SUBJECT, sequence, bodies });
    const [result] = await stream.settled(sequence);
    stream.results.delete(sequence);
    const error = result?.error;
    const isStored = result !== undefined && error === undefined;
    if (isStored) window.batches.push(performance.now() - begun);
    else if (!this.#isOver) {
      const name = `batch ${error?.reason ?? stream.status?.reason ?? 'lost'}`;
      window.refusals[name] = (window.refusals[name] ?? 0) + 1;
    }
    attempts.forEach((attempt, i) => {
      if (isStored) this.history.endAttempt(attempt, { outcome: 'ok', id: result.firstId + i });
      else this.history.endAttempt(attempt, { outcome: error?.outcome === 1 ? 'none' : 'unknown' });
    });
  }
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.POSITIVE_INFINITY;
}

/** It comes from the address of the attackers, of which only so many new connections are taken for a while: until one is. */
async function admitted(client: BrokerClient): Promise<void> {
  for (const until = performance.now() + CATCH_UP_MS; ; await pause(ADMISSION_RETRY_MS)) {
    try {
      await client.fetch(SUBJECT, 1);
      return;
    } catch (error) {
      const isRefused = error instanceof CallError && error.statusName === 'UNAVAILABLE';
      if (!isRefused || performance.now() > until) throw error;
    }
  }
}
