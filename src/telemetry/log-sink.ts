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

const NEWLINE = 0x0a;

/** Text that a full pipe did not take, until it is tried again. */
interface Refused {
  readonly text: Buffer;
  readonly timer: NodeJS.Timeout;
}

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
  #refused: Refused | null = null;

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

  /**
   * Writes what waits before it returns; what a full pipe has not taken by then is dropped and counted. What an asynchronous
   * write has in hand just now is written by that one.
   */
  readonly flush = (): void => {
    let text = Buffer.concat([this.#takeRefused(), this.#take()]);
    const until = performance.now() + FLUSH_MS_MAX;
    while (text.length > 0 && performance.now() < until) {
      try {
        text = text.subarray(writeSync(this.#descriptor, text));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      }
    }
    this.#dropped += linesIn(text);
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

  #takeRefused(): Buffer {
    if (this.#refused === null) return Buffer.alloc(0);
    const { text, timer } = this.#refused;
    clearTimeout(timer);
    this.#refused = null;
    this.#writing = false;
    return text;
  }

  #writeWaiting(): void {
    this.#writing = this.#waiting.length > 0;
    if (this.#writing) this.#writeText(this.#take());
  }

  #writeText(text: Buffer): void {
    write(this.#descriptor, text, 0, text.length, null, (error, written) => {
      if (error?.code === 'EAGAIN') this.#retryLater(text);
      else if (error === null && written < text.length) this.#writeText(text.subarray(written));
      // Any other error (reader gone, disk full): there is nobody to tell, these lines are lost, and the broker goes on.
      else this.#writeWaiting();
    });
  }

  /** A reader that never reads must not keep a process that has nothing else to do: at its end flush() tries once more. */
  #retryLater(text: Buffer): void {
    const retry = (): void => {
      this.#refused = null;
      this.#writeText(text);
    };
    this.#refused = { text, timer: setTimeout(retry, RETRY_MS).unref() };
  }
}

function linesIn(text: Buffer): number {
  let count = 0;
  for (let at = text.indexOf(NEWLINE); at >= 0; at = text.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}
