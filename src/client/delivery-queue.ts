/** Batches between the stream and the reader, and what of them the reader has taken. One reader. */
import { Fifo } from './fifo.ts';
import type { MessageBatch } from './message.ts';

export class DeliveryQueue {
  readonly #batches = new Fifo<{ batch: MessageBatch; sentBytes: number; sentMessages: number }>();
  readonly #onTaken: (bytes: number, messages: number) => void;
  #waiter: { resolve(batch: MessageBatch | null): void; reject(error: unknown): void } | null = null;
  #isEnded = false;
  #error: unknown = null;
  #bytes = 0;
  #messages = 0;

  /** `onTaken` is told of each batch when the reader has it: what it cost of the credit. */
  constructor(onTaken: (bytes: number, messages: number) => void) {
    this.#onTaken = onTaken;
  }

  /** Bytes that wait for the reader. */
  get bytes(): number {
    return this.#bytes;
  }

  get messages(): number {
    return this.#messages;
  }

  /** `sentBytes`, `sentMessages`: what the broker counts of it, repeats included. */
  push(batch: MessageBatch, sentBytes: number, sentMessages: number): void {
    if (this.#isEnded) return;
    const waiter = this.#waiter;
    if (waiter === null) {
      this.#batches.push({ batch, sentBytes, sentMessages });
      this.#bytes += sentBytes;
      this.#messages += sentMessages;
      return;
    }
    this.#waiter = null;
    this.#onTaken(sentBytes, sentMessages);
    waiter.resolve(batch);
  }

  /** The next batch; null at the end. Rejects with the error that the queue was ended with, behind all batches before it. */
  next(): Promise<MessageBatch | null> {
    const first = this.#batches.shift();
    if (first !== undefined) {
      this.#bytes -= first.sentBytes;
      this.#messages -= first.sentMessages;
      this.#onTaken(first.sentBytes, first.sentMessages);
      return Promise.resolve(first.batch);
    }
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#isEnded) return Promise.resolve(null);
    if (this.#waiter !== null) return Promise.reject(new Error('a subscription has one reader'));
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  /** `error` null: in good order. */
  end(error: unknown): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    const waiter = this.#waiter;
    this.#waiter = null;
    if (waiter === null) this.#error = error;
    else if (error === null) waiter.resolve(null);
    else waiter.reject(error);
  }

  /** What waits is not wanted any more. */
  clear(): void {
    this.#batches.drain();
    this.#bytes = 0;
    this.#messages = 0;
  }
}
