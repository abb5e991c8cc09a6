/** What a client is ready to take: bytes of records sections, and messages. Deliveries are sent while some of both is left. */
export class StreamCredit {
  /** Granted since the stream was opened. */
  #grantedBytes = 0;
  #grantedMessages = 0;
  #bytes = 0;
  #messages = 0;

  /** What is left; the last delivery may have brought it below 0. */
  get bytes(): number {
    return this.#bytes;
  }

  get messages(): number {
    return this.#messages;
  }

  get isSpent(): boolean {
    return this.#bytes <= 0 || this.#messages <= 0;
  }

  /** False if that is no credit: negative, not a safe integer, or a sum that is not. Then nothing was granted. */
  tryGrant(bytes: number, messages: number): boolean {
    const grantedBytes = this.#grantedBytes + bytes;
    const grantedMessages = this.#grantedMessages + messages;
    if (bytes < 0 || messages < 0) return false;
    if (!Number.isSafeInteger(grantedBytes) || !Number.isSafeInteger(grantedMessages)) return false;
    this.#grantedBytes = grantedBytes;
    this.#grantedMessages = grantedMessages;
    this.#bytes += bytes;
    this.#messages += messages;
    return true;
  }

  /** True if so much can be sent, delivery after delivery, without asking again in between. */
  covers(bytes: number, messages: number): boolean {
    return bytes <= this.#bytes && messages <= this.#messages;
  }

  spend(bytes: number, messages: number): void {
    this.#bytes -= bytes;
    this.#messages -= messages;
  }
}
