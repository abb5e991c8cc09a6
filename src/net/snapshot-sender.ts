import { crc32 } from '../base/checksum.ts';
import type { Message } from '../raft/messages.ts';
import { Deadline } from './deadline.ts';
import { type DialContext, Dialed } from './dialed.ts';
import type { FrameCodec } from './raft-frames.ts';
import { Signal } from './signal.ts';
import { chunkHead, endFrame, headerFrame } from './snapshot-frames.ts';
import type { Peer } from './types.ts';

export type SnapshotOutcome = 'delivered' | 'failed';
export type SnapshotChunks = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** Sends one snapshot on a connection of its own. */
export class SnapshotSender {
  readonly #caps: DialContext['caps'];
  readonly #codec: FrameCodec;
  readonly #dialed: Dialed;
  readonly #progress = new Deadline();
  /** Waits for the opening, or for room. */
  #wake: (() => void) | null = null;
  /** Null while it is under way. */
  #outcome: SnapshotOutcome | null = null;
  #reason = '';

  constructor(peer: Peer, context: DialContext, codec: FrameCodec) {
    this.#caps = context.caps;
    this.#codec = codec;
    this.#dialed = new Dialed(peer, 'snapshot', context, {
      onOpen: () => this.#resume(),
      onSignal: (signal) => this.#handleSignal(signal),
      onEnd: ({ refusal, words }) => this.#finish('failed', refusal === null ? words : `${refusal.code}: ${words}`),
    });
    this.#dialed.socket.on('drain', () => this.#resume());
  }

  /** Why it failed, for people. */
  get reason(): string {
    return this.#reason;
  }

  /** Once. Rejects with what `chunks` throws. */
  async send(message: Message, chunks: SnapshotChunks): Promise<SnapshotOutcome> {
    try {
      await this.#pause();
      await this.#sendAll(message, chunks);
    } catch (error) {
      this.#finish('failed', 'the snapshot could not be read');
      throw error;
    }
    return this.#outcome ?? 'failed';
  }

  cancel(): void {
    this.#finish('failed', 'cancelled');
  }

  async #sendAll(message: Message, chunks: SnapshotChunks): Promise<void> {
    const { socket } = this.#dialed;
    let length = 0;
    let checksum = 0;
    if (this.#outcome !== null) return;
    this.#limit(this.#caps.snapshotProgressMs, 'no progress');
    socket.write(headerFrame(this.#codec, message));
    for await (const whole of chunks) {
      for (let start = 0; start < whole.length; start += this.#caps.chunkBytesMax) {
        if (this.#outcome !== null) return;
        const chunk = whole.subarray(start, start + this.#caps.chunkBytesMax);
        checksum = crc32(chunk, checksum);
        socket.cork();
        socket.write(chunkHead(length, chunk));
        const hasRoom = socket.write(chunk);
        socket.uncork();
        length += chunk.length;
        this.#progress.restart();
        if (!hasRoom) await this.#pause();
      }
      if (this.#outcome !== null) return;
    }
    socket.write(endFrame(length, checksum));
    this.#limit(this.#caps.snapshotInstallMs, 'the peer did not say that it is installed');
    while (this.#outcome === null) await this.#pause();
  }

  /** Until something happened: open, room, a signal, the end. */
  #pause(): Promise<void> {
    if (this.#outcome !== null) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #resume(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  #limit(ms: number, words: string): void {
    this.#progress.set(ms, () => this.#finish('failed', `${words} for ${ms} ms`));
  }

  #handleSignal(signal: number): void {
    if (signal === Signal.INSTALLED) this.#finish('delivered', '');
    else if (signal === Signal.BUSY) this.#finish('failed', 'the peer takes no snapshot in at the moment');
    else if (signal !== Signal.ALIVE) this.#finish('failed', 'the peer could not install it');
  }

  #finish(outcome: SnapshotOutcome, reason: string): void {
    if (this.#outcome !== null) return;
    this.#outcome = outcome;
    this.#reason = reason;
    this.#progress.clear();
    this.#dialed.close();
    this.#resume();
  }
}
