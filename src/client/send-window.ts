/** How far the producer may go on a stream: the sender's half of broker.v1.Window. Pure. */

export class SendWindow {
  #sentBytes = 0;
  #sentMessages = 0;
  #bytesLimit = 0;
  #messagesLimit = 0;

  /** A new stream: nothing sent, nothing allowed but a single batch. */
  reset(): void {
    this.#sentBytes = 0;
    this.#sentMessages = 0;
    this.#bytesLimit = 0;
    this.#messagesLimit = 0;
  }

  /** What the broker says. Limits never move back, so of two the higher one counts. */
  widen(bytesLimit: number, messagesLimit: number): void {
    this.#bytesLimit = Math.max(this.#bytesLimit, bytesLimit);
    this.#messagesLimit = Math.max(this.#messagesLimit, messagesLimit);
  }

  /** With nothing in flight one batch is always allowed, so that a window smaller than a batch does not end the conversation. */
  allows(bytes: number, messages: number, batchesInFlight: number): boolean {
    if (batchesInFlight === 0) return true;
    return this.#sentBytes + bytes <= this.#bytesLimit && this.#sentMessages + messages <= this.#messagesLimit;
  }

  /** Every time that a batch is sent, also again. */
  noteSent(bytes: number, messages: number): void {
    this.#sentBytes += bytes;
    this.#sentMessages += messages;
  }
}
