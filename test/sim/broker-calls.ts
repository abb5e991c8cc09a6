/** Clients of the public service: single calls with deadlines, and a producer stream that says when it has sent everything. */
import { Anonymous } from '../../src/access/caller.ts';
import type { Done } from '../../src/grpc/engine.ts';
import { PublishStreamRequest, PublishStreamResponse } from '../../src/grpc/gen/broker/v1/producer.ts';
import type { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import {
  decodeErrorDetails,
  decodeMessage,
  decodeNumber,
  encodeFetch,
  encodeIncIdx,
  encodePublish,
  Writer,
} from '../support/wire.ts';
import { type ClientParts, endpointsOf } from './broker-clients.ts';
import { labelIn, labelOf } from './broker-oracle.ts';
import { Actor, EPOCH_MS } from './broker-time.ts';
import type { ClientEnd, SimEndpoints } from './broker-wire.ts';

const DETAILS = 'grpc-status-details-bin';
const CALLER = new Anonymous('default');

/** Publish, Fetch and IncIdx, straight at the front; one after another is begun, whatever became of those before. */
export class SimCalls {
  readonly #parts: ClientParts;
  readonly #dispatcher: Dispatcher;
  readonly #subjects: readonly string[];
  readonly #pauseMsMax: number;
  #number = 0;
  isStopping = false;
  open = 0;

  constructor(parts: ClientParts, dispatcher: Dispatcher, subjects: readonly string[], pauseMsMax: number) {
    this.#parts = parts;
    this.#dispatcher = dispatcher;
    this.#subjects = subjects;
    this.#pauseMsMax = pauseMsMax;
    this.#next();
  }

  #next(): void {
    const { time, server } = this.#parts;
    time.post(server, time.between(0.1, this.#pauseMsMax), () => {
      if (this.isStopping) return;
      this.#call();
      this.#next();
    });
  }

  #call(): void {
    const { time, oracle } = this.#parts;
    const { random } = time;
    const subject = this.#subjects[random.nextBelow(this.#subjects.length)] as string;
    const deadline = EPOCH_MS + time.now + (random.chance(1, 4) ? time.between(1, 50) : time.between(100, 3_000));
    switch (random.nextBelow(8)) {
      case 0:
        this.#dispatcher.incIdx(
          encodeIncIdx(subject),
          deadline,
          this.#begun((error, response) => {
            if (error === null && response !== undefined) oracle.voided(subject, decodeNumber(response));
          }),
          CALLER,
          null,
        );
        return;
      case 1:
      case 2:
      case 3:
        this.fetch(subject, 1 + random.nextBelow(oracle.lastOf(subject) + 2), deadline);
        return;
      default:
        this.#publish(subject, deadline);
    }
  }

  fetch(
    subject: string,
    id: number,
    deadline: number,
    then: (label: string | null, reason: string | null, publishedAt: number) => void = () => undefined,
  ): void {
    const { oracle } = this.#parts;
    const done = this.#begun((error, response) => {
      const message = response === undefined ? null : decodeMessage(response);
      const label = message === null ? null : labelIn(message.body.toString());
      const reason = error === null ? null : detailsOf(error).reason;
      oracle.fetched(subject, id, label, reason);
      if (message !== null) oracle.wasPublished(subject, id, message.publishedAt);
      then(label, reason, message?.publishedAt ?? 0);
    });
    this.#dispatcher.fetch(encodeFetch(subject, id), deadline, done, CALLER, null);
  }

  #publish(subject: string, deadline: number): void {
    const { oracle } = this.#parts;
    this.#number += 1;
    const label = labelOf('u1', subject, this.#number);
    const done = this.#begun((error, response) => {
      if (response !== undefined) oracle.stored(subject, decodeNumber(response), label);
      else oracle.failed(label, detailsOf(error).metadata.outcome === 'none' ? 'none' : 'unknown');
    });
    this.#dispatcher.publish(encodePublish({ subject, body: Buffer.from(`<${label};`) }), deadline, done, CALLER, null);
  }

  #begun(then: Done): Done {
    this.open += 1;
    return (error, response) => {
      this.open -= 1;
      this.#parts.time.note(`call ${error === null ? 'done' : detailsOf(error).reason}`);
      then(error, response);
    };
  }
}

function detailsOf(error: Parameters<Done>[0]): ReturnType<typeof decodeErrorDetails> {
  const [details] = error?.metadata?.get(DETAILS) ?? [];
  return decodeErrorDetails(Buffer.isBuffer(details) ? details : Buffer.alloc(0));
}

/** Of a records section, and of a record in it (docs/record-format.md). */
const RECORD_FIELD = 3;
const BODY_FIELD = 1;

/** Opens a stream without a producer id, sends some batches, half-closes, and reads to the end; over and over. */
export class SimHalfCloser {
  readonly actor: Actor;
  readonly endpoints: SimEndpoints;
  readonly #parts: ClientParts;
  readonly #subjects: readonly string[];
  readonly #name: string;
  #number = 0;
  isStopping = false;
  /** Batches of the present stream without a result. */
  readonly pending = new Map<number, { readonly subject: string; readonly label: string }>();
  /** Streams that came to an end in good order. */
  finished = 0;

  constructor(parts: ClientParts, name: string, subjects: readonly string[]) {
    this.#parts = parts;
    this.#name = name;
    this.#subjects = subjects;
    this.actor = new Actor(name);
    this.endpoints = endpointsOf(parts, this.actor);
    parts.oracle.isPlain(name);
    parts.time.post(this.actor, 5, () => this.#open());
  }

  #open(): void {
    if (this.isStopping) return;
    const { time, oracle } = this.#parts;
    const call = this.endpoints.open('/broker.v1.Producer/PublishStream', null);
    call.on('error', () => undefined);
    call.on('data', (frame: Buffer) => {
      const { opened, results } = PublishStreamResponse.decode(frame);
      if (opened !== undefined) this.#send(call);
      for (const { sequence, firstId, error } of results) {
        const batch = this.pending.get(sequence);
        if (batch === undefined)
          throw new Error(`${this.#name} has an answer to ${sequence} that it does not wait for`);
        this.pending.delete(sequence);
        if (error === undefined) oracle.stored(batch.subject, firstId, batch.label);
        else oracle.failed(batch.label, error.outcome === 2 ? 'unknown' : 'none');
      }
    });
    call.on('status', ({ code }: { code: number }) => {
      if (code === 0) {
        this.finished += 1;
        if (this.pending.size > 0)
          throw new Error(`${this.#name} was told the end before ${this.pending.size} results`);
      }
      for (const { label } of this.pending.values()) oracle.failed(label, 'unknown');
      this.pending.clear();
      time.post(this.actor, time.between(1, 100), () => this.#open());
    });
    const open = { producerId: '', firstSequence: 1 };
    call.write(Buffer.from(PublishStreamRequest.encode({ open, batches: [] }).finish()));
  }

  /** A few batches at once, and the half-close right behind them: their results come later. */
  #send(call: ClientEnd): void {
    const { random } = this.#parts.time;
    const count = 1 + random.nextBelow(6);
    for (let sequence = 1; sequence <= count; sequence++) {
      const subject = this.#subjects[random.nextBelow(this.#subjects.length)] as string;
      this.#number += 1;
      const label = labelOf(this.#name, subject, this.#number);
      this.pending.set(sequence, { subject, label });
      const record = new Writer().bytes(BODY_FIELD, `<${label};`).finish();
      const records = new Writer().bytes(RECORD_FIELD, record).finish();
      const batch = new Writer().bytes(1, subject).varint(2, sequence).bytes(3, records).finish();
      call.write(new Writer().bytes(2, batch).finish());
    }
    call.end();
  }
}
