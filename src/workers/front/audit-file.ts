import { createWriteStream, type WriteStream } from 'node:fs';
import type { Redactor } from '../../base/redactor.ts';
import type { Log } from '../../telemetry/log.ts';

/** What waits for a disk that takes nothing; beyond it lines are left out and counted. */
const WAITING_BYTES_MAX = 1 << 20;
/** Only the broker's user reads who does what. */
const MODE = 0o600;

/**
 * Lines of JSON at the end of a file. It is opened again at SIGHUP, so that logrotate can move it away; a file that cannot be written is told of in the
 * log, which has the same lines, and ends nothing.
 */
export class AuditFile {
  readonly #path: string;
  readonly #redactor: Redactor;
  readonly #log: Log;
  #stream: WriteStream;
  #isBroken = false;
  /** Lines that are missing in it. */
  missing = 0;

  constructor(path: string, redactor: Redactor, log: Log) {
    this.#path = path;
    this.#redactor = redactor;
    this.#log = log;
    this.#stream = this.#open();
  }

  write(fields: Readonly<Record<string, unknown>>): void {
    if (this.#isBroken || this.#stream.writableLength > WAITING_BYTES_MAX) {
      this.missing += 1;
      return;
    }
    const line = JSON.stringify({ time: new Date().toISOString(), ...fields });
    this.#stream.write(`${this.#redactor.redact(line)}\n`);
  }

  reopen(): void {
    this.#stream.end();
    this.#isBroken = false;
    this.#stream = this.#open();
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isBroken) resolve();
      else this.#stream.end(resolve);
    });
  }

  #open(): WriteStream {
    const stream = createWriteStream(this.#path, { flags: 'a', mode: MODE });
    stream.on('error', (error) => {
      if (stream !== this.#stream) return;
      this.#isBroken = true;
      this.#log.error('the audit file cannot be written; its lines are in the log alone, until SIGHUP', {
        file: this.#path,
        error: error.message,
      });
    });
    return stream;
  }
}
