import type { Socket } from 'node:net';
import { AssertionError } from '../base/assert.ts';
import { crc32 } from '../base/checksum.ts';
import type { Message } from '../raft/messages.ts';
import { Deadline } from './deadline.ts';
import { FrameReader } from './framing.ts';
import type { FrameCodec } from './raft-frames.ts';
import { Signal } from './signal.ts';
import { decodeSnapshotFrame, type SnapshotFrame } from './snapshot-frames.ts';
import type { SnapshotReceiver } from './types.ts';
import { WireError } from './wire-error.ts';

export interface IntakeOptions {
  readonly socket: Socket;
  readonly codec: FrameCodec;
  /** Without a chunk for so long, it has failed. */
  readonly progressMs: number;
  /** Null: busy. Throws WireError if the message cannot be from this peer. */
  begin(message: Message): SnapshotReceiver | null;
}

/**
 * Takes a snapshot in from a connection whose hello was answered, and answers with a signal. Reads no further while the receiver writes. Resolves, with a reason
 * for people, when the connection is of no more use; '' means that all went well. Rejects with WireError for what no peer sends. The receiver has been told its
 * end or its abort by then.
 */
export async function takeSnapshot(options: IntakeOptions): Promise<string> {
  const { socket, progressMs } = options;
  const intake = new Intake(options);
  const progress = new Deadline();
  let cut = 'the snapshot was cut off';
  const limit = (): void =>
    progress.set(progressMs, () => {
      cut = `no part of the snapshot came for ${progressMs} ms`;
      socket.destroy();
    });
  const frames = new FrameReader();
  try {
    limit();
    for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      progress.clear();
      const bodies: Buffer[] = [];
      frames.push(chunk, (body) => bodies.push(body));
      for (const body of bodies) {
        const signal = await intake.handle(decodeSnapshotFrame(options.codec, body));
        if (signal === null) continue;
        socket.write(Buffer.of(signal));
        socket.destroySoon();
        return signal === Signal.INSTALLED ? '' : intake.reason;
      }
      limit();
    }
    return cut;
  } catch (error) {
    // Node's errors of sockets and streams have a code; what else is thrown is a defect.
    if (error instanceof WireError || !(error instanceof Error && 'code' in error)) throw error;
    return `${cut}: ${error.message}`;
  } finally {
    progress.clear();
    intake.maybeAbort();
  }
}

class Intake {
  reason = '';
  readonly #options: IntakeOptions;
  /** Null before the header, and when it is told that nothing more comes. */
  #receiver: SnapshotReceiver | null = null;
  #length = 0;
  #checksum = 0;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** The signal that ends the transfer; null if it goes on. */
  async handle(frame: SnapshotFrame): Promise<number | null> {
    if (frame.kind === 'header') return this.#begin(frame.message);
    const receiver = this.#receiver;
    if (receiver === null) throw new WireError('MALFORMED', 'a snapshot without a header');
    if (frame.kind === 'chunk') {
      if (frame.offset !== this.#length) throw new WireError('MALFORMED', 'a chunk in a wrong place');
      this.#length += frame.bytes.length;
      this.#checksum = crc32(frame.bytes, this.#checksum);
      return (await this.#succeeds(() => receiver.write(frame.bytes))) ? null : Signal.FAILED;
    }
    if (frame.length !== this.#length) throw new WireError('MALFORMED', 'a snapshot of a wrong length');
    if (frame.checksum !== this.#checksum) throw new WireError('CHECKSUM', 'the checksum of a snapshot is wrong');
    if (!(await this.#succeeds(() => receiver.end()))) return Signal.FAILED;
    this.#receiver = null;
    return Signal.INSTALLED;
  }

  maybeAbort(): void {
    this.#receiver?.abort();
    this.#receiver = null;
  }

  #begin(message: Message): number | null {
    if (this.#receiver !== null) throw new WireError('MALFORMED', 'a second header of a snapshot');
    this.#receiver = this.#options.begin(message);
    if (this.#receiver !== null) return null;
    this.reason = 'no snapshot can be taken in at the moment';
    return Signal.BUSY;
  }

  /** A receiver may fail, for want of space say; a defect of it stops the thread. */
  async #succeeds(step: () => void | Promise<void>): Promise<boolean> {
    try {
      await step();
      return true;
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.reason = `the receiver failed: ${error instanceof Error ? error.message : String(error)}`;
      return false;
    }
  }
}
