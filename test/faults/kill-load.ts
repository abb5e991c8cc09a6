/** What clients do to a broker that is going to be killed, with every step told to the checker. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import type { History, ReadResult, StreamStart } from '../support/checker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import type { Header, Message } from '../support/wire.ts';
import { StreamLoad } from './stream-load.ts';

export const HOT_SUBJECT = 'kill.hot';
const SUBJECTS = [HOT_SUBJECT, 'kill.a', 'kill.b', 'kill.c', 'kill.größe'];
const PLAIN_PRODUCERS = 4;
const SEQUENCED_PRODUCERS = 4;
const STREAM_PRODUCERS = 2;
const FETCHERS = 2;
/** A client that lost its server waits so long before it tries again. */
const RETRY_MS = 5;
const LARGE_BODY_BYTES = 60_000;

interface Draft {
  readonly submission: number;
  readonly subject: string;
  readonly body: Buffer;
  readonly headers: readonly Header[];
}

interface SequencedProducer {
  readonly id: string;
  sequence: number;
  /** Sent, and not acknowledged yet. */
  pending: Draft | null;
}

/** What the checker knows a message by: everything that the client chose. */
function payloadOf(body: Buffer, headers: readonly Header[]): Buffer {
  const parts = headers.flatMap(({ key, value }) => [Buffer.from(`${key}=`), value, Buffer.from('\n')]);
  return Buffer.concat([...parts, body]);
}

export class KillLoad {
  readonly #history: History;
  readonly #prng: Prng;
  readonly #label: string;
  readonly #sequenced: SequencedProducer[];
  readonly #batches: StreamLoad;
  /** Per subject: the last id that the resuming subscriber has. */
  readonly #resumeAt = new Map<string, number>();
  readonly #acked: { readonly subject: string; readonly id: number }[] = [];
  /** Reasons that the broker itself gave for an outcome that it does not know. */
  readonly unknownReasons = new Set<string>();
  /** Of the acknowledged publishes: when the one that was sent last was sent, in epoch ms. */
  lastAckedSentAt = 0;
  /** When the last acknowledgement came, in epoch ms. */
  lastAckAt = 0;
  /** Ids that IncIdx gave: each is void. */
  incremented = 0;
  readonly refusals = new Map<string, number>();
  #clients: BrokerClient[] = [];
  #loops: Promise<void>[] = [];
  #over = true;
  #messages = 0;
  #streams = 0;

  constructor(history: History, seed: number, label: string) {
    this.#history = history;
    this.#prng = new Prng(seed);
    this.#label = label;
    this.#sequenced = Array.from({ length: SEQUENCED_PRODUCERS }, (_, index) => ({
      id: `${label}-producer-${index}`,
      sequence: 1,
      pending: null,
    }));
    this.#batches = new StreamLoad(history, seed + 1, label, SUBJECTS, STREAM_PRODUCERS);
  }

  /** Producers, subscribers and readers begin. `freshSubject` is one that does not exist yet. */
  start(address: string, freshSubject: string): void {
    this.#over = false;
    const open = (): BrokerClient => {
      const client = new BrokerClient(address, { timeoutMs: 10_000 });
      this.#clients.push(client);
      return client;
    };
    const [first, second, reader] = [open(), open(), open()];
    for (let index = 0; index < PLAIN_PRODUCERS; index++) {
      this.#loops.push(
        this.#plainProducer(index % 2 === 0 ? first : second, `${this.#label}-plain-${index}`, freshSubject),
      );
    }
    for (const producer of this.#sequenced) this.#loops.push(this.#sequencedProducer(second, producer, freshSubject));
    this.#batches.start(address);
    for (let index = 0; index < FETCHERS; index++) this.#loops.push(this.#fetcher(reader));
    this.#loops.push(this.#allotter(first));
    this.#subscribe(reader, HOT_SUBJECT, { at: 'earliest' });
    for (const subject of SUBJECTS.slice(0, 3)) this.#subscribe(reader, subject, { at: 'new' });
    this.#resume(reader, HOT_SUBJECT);
    this.#resume(first, freshSubject);
  }

  /** Plain messages that were acknowledged so far, over all starts of the load. */
  get acked(): number {
    return this.#acked.length;
  }

  /** The broker is gone, or is to be left alone: resolves when every call has its answer. */
  async stop(): Promise<void> {
    this.#over = true;
    const clients = this.#clients;
    await Promise.all([...this.#loops, this.#batches.stop()]);
    for (const client of clients) client.close();
    this.#clients = [];
    this.#loops = [];
  }

  /** Retries what producers have no answer for, until each has one. */
  async settle(client: BrokerClient): Promise<void> {
    await this.#batches.settle(client.address);
    for (const producer of this.#sequenced) {
      while (producer.pending !== null) await this.#trySequenced(client, producer, producer.pending);
    }
  }

  /** One more message to the hot subject: who has received it has received everything. */
  async publishLast(client: BrokerClient): Promise<void> {
    for (let isStored = false; !isStored; ) {
      isStored = await this.#attempt(client, this.#draft(HOT_SUBJECT, `${this.#label}-last`), {});
    }
  }

  #draft(subject: string, lane: string, producer?: { readonly id: string; readonly sequence: number }): Draft {
    const number = this.#messages++;
    const size = this.#prng.chance(1, 50) ? LARGE_BODY_BYTES : this.#prng.nextBelow(1_200);
    const body = Buffer.alloc(Math.max(size, 40));
    for (let at = 0; at + 4 <= body.length; at += 4) body.writeUInt32LE(this.#prng.nextUint32(), at);
    body.write(`${lane} ${number} `);
    const headers = this.#prng.chance(1, 4) ? [{ key: 'number', value: Buffer.from(String(number)) }] : [];
    const payload = payloadOf(body, headers);
    const submission = this.#history.submit({
      subject,
      payload,
      lane,
      ...(producer === undefined ? {} : { producer: producer.id, sequence: producer.sequence }),
    });
    return { submission, subject, body, headers };
  }

  #chooseSubject(freshSubject: string): string {
    if (this.#prng.chance(1, 3)) return HOT_SUBJECT;
    return this.#prng.chance(1, 8) ? freshSubject : (SUBJECTS[this.#prng.nextBelow(SUBJECTS.length)] as string);
  }

  /** Sends each message once; what happens to it is only known when it is answered. */
  async #plainProducer(client: BrokerClient, lane: string, freshSubject: string): Promise<void> {
    while (!this.#over) {
      const draft = this.#draft(this.#chooseSubject(freshSubject), lane);
      await this.#attempt(client, draft, {});
    }
  }

  /** Repeats each message with its sequence until it is acknowledged, over any number of restarts. */
  async #sequencedProducer(client: BrokerClient, producer: SequencedProducer, freshSubject: string): Promise<void> {
    while (!this.#over) {
      producer.pending ??= this.#draft(this.#chooseSubject(freshSubject), producer.id, producer);
      await this.#trySequenced(client, producer, producer.pending);
    }
  }

  async #trySequenced(client: BrokerClient, producer: SequencedProducer, draft: Draft): Promise<void> {
    const acked = await this.#attempt(client, draft, { producerId: producer.id, sequence: producer.sequence });
    if (!acked) return;
    producer.pending = null;
    producer.sequence += 1;
  }

  async #attempt(
    client: BrokerClient,
    draft: Draft,
    producer: { producerId?: string; sequence?: number },
  ): Promise<boolean> {
    const { submission, subject, body, headers } = draft;
    const attempt = this.#history.beginAttempt(submission);
    const sentAt = Date.now();
    try {
      const id = await client.publish({ subject, body, headers, ...producer });
      this.#history.endAttempt(attempt, { outcome: 'ok', id });
      this.lastAckedSentAt = Math.max(this.lastAckedSentAt, sentAt);
      this.lastAckAt = Date.now();
      this.#acked.push({ subject, id });
      return true;
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      this.#history.endAttempt(attempt, { outcome: error.outcome, detail: error.message });
      if (error.outcome === 'unknown' && error.reason !== null) this.unknownReasons.add(error.reason);
      if (error.outcome === 'none')
        this.refusals.set(
          `${error.statusName} ${error.reason}`,
          (this.refusals.get(`${error.statusName} ${error.reason}`) ?? 0) + 1,
        );
      // A refusal of the request itself would be repeated for ever.
      if (error.statusName === 'INVALID_ARGUMENT' || error.statusName === 'FAILED_PRECONDITION') throw error;
      await sleep(RETRY_MS);
      return false;
    }
  }

  /** IncIdx: ids that must be void from the moment they are answered. */
  async #allotter(client: BrokerClient): Promise<void> {
    while (!this.#over) {
      await sleep(20);
      try {
        const id = await client.incIdx('kill.a');
        this.incremented += 1;
        this.#history.observeFetch('kill.a', id, this.#history.beginFetch(), { kind: 'void' });
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
      }
    }
  }

  async #fetcher(client: BrokerClient): Promise<void> {
    while (!this.#over) {
      const one = this.#acked[this.#prng.nextBelow(Math.max(1, this.#acked.length))];
      const begunAt = this.#history.beginFetch();
      if (one !== undefined) {
        const result = await readOnce(client, one.subject, one.id);
        this.#history.observeFetch(one.subject, one.id, begunAt, result);
      }
      await sleep(1);
    }
  }

  /** A subscriber that goes on where it stood before the kill. */
  #resume(client: BrokerClient, subject: string): void {
    const last = this.#resumeAt.get(subject) ?? 0;
    this.#subscribe(client, subject, { at: 'id', id: last + 1 }, (id) => this.#resumeAt.set(subject, id));
  }

  #subscribe(client: BrokerClient, subject: string, start: StreamStart, onId?: (id: number) => void): void {
    const name = `stream ${++this.#streams} (${start.at})`;
    const stream = this.#history.openStream({ name, subject, start });
    client.subscribe(subject, start, {
      onLive: () => this.#history.streamLive(stream),
      onMessage: (message) => {
        this.#history.deliver(stream, delivered(message));
        onId?.(message.id);
      },
    });
  }
}

export function delivered(message: Message) {
  return { id: message.id, payload: payloadOf(message.body, message.headers), publishedAt: message.publishedAt };
}

const READ_AS: Readonly<Record<string, 'void' | 'expired' | 'trimmed' | 'absent'>> = {
  ID_VOID: 'void',
  ID_EXPIRED: 'expired',
  ID_TRIMMED: 'trimmed',
  ID_NOT_FOUND: 'absent',
  SUBJECT_NOT_FOUND: 'absent',
};

async function readOnce(client: BrokerClient, subject: string, id: number): Promise<ReadResult> {
  try {
    const message = await client.fetch(subject, id);
    return { kind: 'message', ...delivered(message) };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    const kind = error.reason === null ? undefined : READ_AS[error.reason];
    return kind === undefined ? { kind: 'failed', detail: error.message } : { kind };
  }
}

/** For reading back from a broker that is up: a failure is tried again before it counts. */
export function reader(client: BrokerClient): (subject: string, id: number) => Promise<ReadResult> {
  return async (subject, id) => {
    for (let attempt = 1; ; attempt++) {
      const result = await readOnce(client, subject, id);
      if (result.kind !== 'failed' || attempt === 5) return result;
      await sleep(100 * attempt);
    }
  };
}

/** Subscribes to everything from the beginning and waits until each stream has its subject's last message. */
export async function readStreams(client: BrokerClient, history: History, timeoutMs: number): Promise<void> {
  await Promise.all(
    history.subjects().map(async (subject) => {
      const until = history.highestMessage(subject);
      if (until === 0) return;
      const stream = history.openStream({ name: 'final stream', subject, start: { at: 'earliest' } });
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, timeoutMs);
      const subscription = client.subscribe(
        subject,
        { at: 'earliest' },
        {
          onMessage: (message) => {
            history.deliver(stream, delivered(message));
            if (message.id >= until) resolve();
          },
          onEnd: () => resolve(),
        },
      );
      await promise;
      clearTimeout(timer);
      subscription.cancel();
      history.completeStream(stream);
    }),
  );
}
