import { write, writeSync } from 'node:fs';

/**
 * Text that waits for a reader that does not read; beyond it lines are dropped and counted, since a log must neither
 * stop nor fill the process.
 */
const WAITING_CHARACTERS_MAX = 4 * 1024 * 1024;
/** Pause before a pipe that is full is tried again. */
const RETRY_MS = 20;
/** Longest time that flush() tries a full pipe. */
const FLUSH_MS_MAX = 500;

/**
 * Lines to a file descriptor, by asynchronous writes of all that waits, one at a time. pino's own destination would do,
 * but its flush never returns when the disk is full (it retries every error for ever), which turns a full log disk into
 * a broker that cannot end.
 */
export class LogSink {
  readonly #descriptor: number;
  #waiting: string[] = [];
  #waitingCharacters = 0;
  #writing = false;
  #dropped = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(line: string): void {
    if (this.#waitingCharacters + line.length > WAITING_CHARACTERS_MAX) {
      this.#dropped += 1;
      return;
    }
    this.#waiting.push(line);
    this.#waitingCharacters += line.length;
    if (!this.#writing) this.#writeWaiting();
  }

  /** Writes what waits before it returns. What an asynchronous write has in hand is written by that one. */
  readonly flush = (): void => {
    let text = this.#take();
    const until = performance.now() + FLUSH_MS_MAX;
    while (text.length > 0 && performance.now() < until) {
      try {
        text = text.subarray(writeSync(this.#descriptor, text));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      }
    }
  };

  #take(): Buffer {
    const lines = this.#waiting;
    if (this.#dropped > 0) {
      const told = {
        level: 'warn',
        time: new Date().toISOString(),
        dropped: this.#dropped,
        msg: 'log lines were dropped',
      };
      lines.push(`${JSON.stringify(told)}\n`);
      this.#dropped = 0;
    }
    this.#waiting = [];
    this.#waitingCharacters = 0;
    return Buffer.from(lines.join(''));
  }

  #writeWaiting(): void {
    this.#writing = this.#waiting.length > 0;
    if (this.#writing) this.#writeText(this.#take());
  }

  #writeText(text: Buffer): void {
    write(this.#descriptor, text, 0, text.length, null, (error, written) => {
      if (error?.code === 'EAGAIN') setTimeout(() => this.#writeText(text), RETRY_MS);
      else if (error === null && written < text.length) this.#writeText(text.subarray(written));
      // Any other error (reader gone, disk full): there is nobody to tell, these lines are lost, and the broker goes on.
      else this.#writeWaiting();
    });
  }
}
