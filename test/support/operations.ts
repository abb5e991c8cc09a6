/**
 * What clients did and saw, as a file of JSON lines for tools/porcupine: publishes, IncIdx and reads, each with its start and end in ns of
 * one monotonic clock. Messages are named by keys, such as their numbers in the checker's History.
 */
import { closeSync, openSync, writeSync } from 'node:fs';

/** Key of an id that was answered as void. */
export const VOID_KEY = -1;
/** Key of a message that nobody sent. */
export const FOREIGN_KEY = -3;

interface Times {
  readonly client: string;
  readonly subject: string;
  /** From `now`. The end of what has no answer is when it was given up. */
  readonly start: number;
  readonly end: number;
}

export interface PublishRecord extends Times {
  /** Of the first message; those of the others follow. */
  readonly key: number;
  readonly count: number;
  /** Over all attempts. */
  readonly outcome: 'ok' | 'none' | 'unknown';
  /** First id; 0 without one. */
  readonly id: number;
}

export interface IncRecord extends Times {
  readonly outcome: 'ok' | 'unknown';
  readonly id: number;
}

export interface FetchRecord extends Times {
  readonly id: number;
  readonly outcome: 'ok' | 'absent';
  /** Of the message that was found, or VOID_KEY. */
  readonly key: number;
}

export interface ScanRecord extends Times {
  /** Of the first; `keys` has what each id from it on is. */
  readonly id: number;
  readonly keys: readonly number[];
}

const BUFFERED_BYTES = 1 << 20;

export class Operations implements Disposable {
  readonly path: string;
  readonly #file: number;
  #text: string[] = [];
  #bytes = 0;
  #isOpen = true;
  count = 0;

  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, 'w');
  }

  /** ns of the machine's monotonic clock; exact for the 104 days after it started that a double can hold. */
  static now(): number {
    return Number(process.hrtime.bigint());
  }

  publish(record: PublishRecord): void {
    this.#add({ op: 'publish', ...record });
  }

  inc(record: IncRecord): void {
    this.#add({ op: 'inc', ...record });
  }

  fetch(record: FetchRecord): void {
    this.#add({ op: 'fetch', ...record });
  }

  scan(record: ScanRecord): void {
    this.#add({ op: 'scan', outcome: 'ok', ...record });
  }

  #add(record: object): void {
    const line = JSON.stringify(record);
    this.#text.push(line);
    this.#bytes += line.length;
    this.count += 1;
    if (this.#bytes > BUFFERED_BYTES) this.#flush();
  }

  #flush(): void {
    if (this.#text.length > 0) writeSync(this.#file, `${this.#text.join('\n')}\n`);
    this.#text = [];
    this.#bytes = 0;
  }

  /** Writes what is left. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#flush();
    closeSync(this.#file);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
