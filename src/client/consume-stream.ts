/** One Consume stream (proto/broker/v1/consumer.proto), from its opening to its end. */
import type { ClientDuplexStream, Client as GrpcClient, Metadata, StatusObject } from '@grpc/grpc-js';
import { ConsumeRequest, Heartbeat, type Position, Started } from '../grpc/gen/broker/v1/consumer.ts';
import type { Start } from './codec.ts';
import { FieldCursor, MessageBatch } from './message.ts';
import type { Positions, SubjectStart } from './positions.ts';

export interface ConsumeListener {
  /** `sentBytes`, `sentMessages`: what it took of the credit. `batch` is null if all of it had come before. */
  onBatch(batch: MessageBatch | null, sentBytes: number, sentMessages: number): void;
  onPositions(positions: readonly Position[]): void;
  /** Every start is fixed: the answer to a stream of many subjects comes in several pieces, and this is called at the last one. */
  onStarted(): void;
}

export interface StreamCredit {
  readonly bytes: number;
  readonly messages: number;
}

const PATH = '/broker.v1.Consumer/Consume';
const raw = (bytes: Buffer): Buffer => bytes;

/** ConsumeResponse: deliveries = 1, started = 2, heartbeat = 3. */
const DELIVERIES_TAG = 0x0a;
const STARTED_TAG = 0x12;
const HEARTBEAT_TAG = 0x1a;
/** Delivery: subject = 1, first_id = 2, count = 3, published_at = 4, records = 5. */
const SUBJECT_TAG = 0x0a;
const FIRST_ID_TAG = 0x10;
const COUNT_TAG = 0x18;
const PUBLISHED_AT_TAG = 0x20;
const RECORDS_TAG = 0x2a;

export class ConsumeStream {
  readonly #call: ClientDuplexStream<Buffer, Buffer>;
  readonly #positions: Positions;
  readonly #listener: ConsumeListener;
  /** Taken by the reader and not granted again yet. */
  #dueBytes = 0;
  #dueMessages = 0;
  readonly #credit: StreamCredit;
  /** Resolves with the status that the stream ended with; rejects if what came was not of the protocol. */
  readonly ended: Promise<StatusObject>;

  constructor(
    client: GrpcClient,
    options: {
      readonly positions: Positions;
      readonly credit: StreamCredit;
      readonly heartbeatMs: number;
      readonly metadata: Metadata;
      readonly listener: ConsumeListener;
    },
  ) {
    this.#positions = options.positions;
    this.#listener = options.listener;
    this.#credit = options.credit;
    const { starts, token } = this.#positions.open();
    const open = {
      subjects: starts.map(subjectStart),
      resumeToken: token ?? Buffer.alloc(0),
      heartbeatMs: options.heartbeatMs,
    };
    // Written before there is a stream that its failure would leave open, and with nobody who listens.
    const first = ConsumeRequest.encode({ open, credit: options.credit }).finish();
    const call = client.makeBidiStreamRequest(PATH, raw, raw, options.metadata);
    this.#call = call;
    this.ended = new Promise((resolve, reject) => {
      call.on('data', (frame: Buffer) => {
        try {
          this.#onFrame(frame);
        } catch (error) {
          reject(error);
          call.cancel();
        }
      });
      // The same failure comes as `status`; unheard it would be thrown.
      call.on('error', () => undefined);
      call.on('status', resolve);
    });
    this.#write(first);
  }

  /** The reader has taken so much: it may be sent again. Told to the broker when it is worth a frame. */
  taken(bytes: number, messages: number): void {
    this.#dueBytes += bytes;
    this.#dueMessages += messages;
    if (this.#dueBytes * 2 < this.#credit.bytes && this.#dueMessages * 2 < this.#credit.messages) return;
    this.#grant(this.#dueBytes, this.#dueMessages);
    this.#dueBytes = 0;
    this.#dueMessages = 0;
  }

  cancel(): void {
    this.#call.cancel();
  }

  #grant(bytes: number, messages: number): void {
    this.#write(ConsumeRequest.encode({ open: undefined, credit: { bytes, messages } }).finish());
  }

  #write(bytes: Uint8Array): void {
    this.#call.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }

  #onFrame(frame: Buffer): void {
    const fields = new FieldCursor(frame);
    while (fields.next()) {
      if (fields.tag === DELIVERIES_TAG) this.#onDelivery(frame, fields.start, fields.end);
      else if (fields.tag === STARTED_TAG) this.#onStarted(Started.decode(frame.subarray(fields.start, fields.end)));
      else if (fields.tag === HEARTBEAT_TAG) this.#onBeat(Heartbeat.decode(frame.subarray(fields.start, fields.end)));
    }
  }

  #onDelivery(frame: Buffer, start: number, end: number): void {
    const delivery = new FieldCursor(frame, start, end);
    const found = { subject: '', firstId: 0, count: 0, publishedAt: 0, frame, start: end, end };
    while (delivery.next()) {
      if (delivery.tag === SUBJECT_TAG) found.subject = frame.toString('utf8', delivery.start, delivery.end);
      else if (delivery.tag === FIRST_ID_TAG) found.firstId = delivery.value;
      else if (delivery.tag === COUNT_TAG) found.count = delivery.value;
      else if (delivery.tag === PUBLISHED_AT_TAG) found.publishedAt = delivery.value;
      else if (delivery.tag === RECORDS_TAG) {
        found.start = delivery.start;
        found.end = delivery.end;
      }
    }
    const bytes = found.end - found.start;
    const skip = this.#positions.take(found.subject, found.firstId, found.count);
    const batch = skip === found.count ? null : new MessageBatch({ ...found, skip });
    this.#listener.onBatch(batch, bytes, found.count);
  }

  #onStarted({ positions, complete }: Started): void {
    for (const { subject, nextId } of positions) this.#positions.began(subject, nextId);
    this.#listener.onPositions(positions);
    if (complete) this.#listener.onStarted();
  }

  #onBeat({ positions, resumeToken }: Heartbeat): void {
    if (resumeToken.length > 0) this.#positions.noteToken(Buffer.from(resumeToken));
    this.#listener.onPositions(positions);
  }
}

function subjectStart({ subject, start }: SubjectStart) {
  const none = { subject, new: undefined, earliest: undefined, id: undefined, time: undefined };
  if (typeof start === 'string') return { ...none, [start]: true };
  return 'id' in start ? { ...none, id: start.id } : { ...none, time: timeOf(start) };
}

function timeOf(start: Exclude<Start, string | { id: number }>): number {
  return Number(start.time);
}
