/** One Subscribe stream of the plain service: a subject, message by message. For brokers without Consume, and for broadcasts. */
import type { ClientReadableStream, Client as GrpcClient, Metadata, StatusObject } from '@grpc/grpc-js';
import { encodeSubscribe, type Start } from './codec.ts';
import { FieldCursor, MessageBatch } from './message.ts';
import type { Positions } from './positions.ts';

const PATH = '/broker.Broker/Subscribe';
const raw = (bytes: Buffer): Buffer => bytes;
/** MessageResponse: id = 2, published_at = 4. */
const ID_TAG = 0x10;
const PUBLISHED_AT_TAG = 0x20;

export class SubscribeStream {
  readonly #call: ClientReadableStream<Buffer>;
  /** Resolves with the status that the stream ended with; rejects if what came was not of the protocol. */
  readonly ended: Promise<StatusObject>;

  constructor(
    client: GrpcClient,
    options: {
      readonly subject: string;
      readonly start: Start;
      readonly positions: Positions;
      readonly metadata: Metadata;
      onBatch(batch: MessageBatch, bytes: number): void;
      onStarted(): void;
    },
  ) {
    const { subject, positions } = options;
    const call = client.makeServerStreamRequest(
      PATH,
      raw,
      raw,
      encodeSubscribe(subject, options.start),
      options.metadata,
    );
    this.#call = call;
    this.ended = new Promise((resolve, reject) => {
      call.on('metadata', () => options.onStarted());
      call.on('data', (frame: Buffer) => {
        try {
          const batch = readMessage(frame, subject, positions);
          if (batch !== null) options.onBatch(batch, frame.length);
        } catch (error) {
          reject(error);
          call.cancel();
        }
      });
      call.on('error', () => undefined);
      call.on('status', resolve);
    });
  }

  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  cancel(): void {
    this.#call.cancel();
  }
}

/** Null if it has come before. */
function readMessage(frame: Buffer, subject: string, positions: Positions): MessageBatch | null {
  const found = { subject, firstId: 0, count: 1, publishedAt: 0, frame, start: 0, end: frame.length, skip: 0 };
  const fields = new FieldCursor(frame);
  while (fields.next()) {
    if (fields.tag === ID_TAG) found.firstId = fields.value;
    else if (fields.tag === PUBLISHED_AT_TAG) found.publishedAt = fields.value;
  }
  // A broadcast has no id, and so no position.
  if (found.firstId > 0 && positions.take(subject, found.firstId, 1) > 0) return null;
  return new MessageBatch({ ...found, isBare: true });
}
