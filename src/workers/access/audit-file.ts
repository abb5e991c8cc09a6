import {
  closeSync,
  constants,
  createWriteStream,
  fchmodSync,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  statSync,
  type WriteStream,
} from 'node:fs';
import { Socket } from 'node:net';
import { Writable } from 'node:stream';
import type { Redactor } from '../../base/redactor.ts';
import type { Log } from '../../telemetry/log.ts';

/** What waits for a disk that takes nothing; beyond it lines are left out and counted. */
const WAITING_BYTES_MAX = 1 << 20;
/** Only the broker's user reads who does what. */
const MODE = 0o600;
const MODE_BITS = 0o777;
/** How long a file that cannot be written is left alone, in ms. */
const RETRY_MS = 10_000;
const NEWLINE = 0x0a;

export interface AuditFileOptions {
  readonly path: string;
  /** 0: without a bound. */
  readonly maxBytes: number;
  readonly redactor: Redactor;
  readonly log: Log;
  /** ms that never fall. */
  readonly now?: () => number;
}

/**
 * Lines of JSON at the end of a file, which is renamed before it grows too large. It is opened again at SIGHUP, so that others can move it away. A file that
 * cannot be written ends nothing: the log has the same lines. It is told there, what is missing is counted, and the file is tried again from time to
 * time; it then says itself how many lines it lacks.
 */
export class AuditFile {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #redactor: Redactor;
  readonly #log: Log;
  readonly #now: () => number;
  #stream: Writable;
  /** Written to it and before, as far as it is a file that has a size. */
  #bytes = 0;
  #isCapped = false;
  /** When a file that could not be written is tried again; null: it can be. */
  #retryAt: number | null = null;
  /** It was told of and has taken nothing since. */
  #isTold = false;
  /** Lines that are missing in it, at most: of those that were written together when the disk was full, some are there. */
  missing = 0;
  /** The same, as far as the file says so. */
  #missingTold = 0;
  /** Ends when those have that were moved away. */
  #retired: Promise<unknown> = Promise.resolve();

  constructor({ path, maxBytes, redactor, log, now = () => performance.now() }: AuditFileOptions) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#redactor = redactor;
    this.#log = log;
    this.#now = now;
    this.#stream = this.#open(MODE);
  }

  write(fields: Readonly<Record<string, unknown>>): void {
    if (this.#retryAt !== null && this.#now() >= this.#retryAt) this.reopen();
    const isFull = this.#stream.writableLength > WAITING_BYTES_MAX;
    if (isFull) this.#tell('the audit file takes nothing', `${WAITING_BYTES_MAX} bytes wait for it`);
    if (this.#retryAt !== null || isFull) {
      this.missing += 1;
      return;
    }
    const told = this.#missingTold;
    if (this.missing > told) {
      const gap = this.missing - told;
      this.#missingTold = this.missing;
      // Not counted itself: if it is lost, the next one says it.
      this.#append({ msg: 'lines are missing here, at most so many, which the log has', missing: gap }, (isLost) => {
        if (isLost) this.#missingTold = told;
      });
    }
    this.#append(fields, (isLost) => {
      if (isLost) this.missing += 1;
    });
  }

  /** The file of that name, also if it is not the one that was written so far. */
  reopen(): void {
    this.#retire();
    this.#retryAt = null;
    this.#stream = this.#open(MODE);
  }

  async close(): Promise<void> {
    this.#retire();
    await this.#retired;
  }

  #append(fields: Readonly<Record<string, unknown>>, done: (isLost: boolean) => void): void {
    const text = this.#redactor.redact(JSON.stringify({ time: new Date().toISOString(), ...fields }));
    const line = Buffer.from(`${text}\n`);
    if (this.#isCapped && this.#bytes > 0 && this.#bytes + line.length > this.#maxBytes) this.#rotate();
    if (this.#retryAt !== null) {
      done(true);
      return;
    }
    this.#bytes += line.length;
    const stream = this.#stream;
    stream.write(line, (error: Error | null | undefined) => {
      // What was moved away meanwhile says nothing of the one that is there now.
      const isLost = error !== null && error !== undefined;
      if (!isLost && stream === this.#stream) this.#works();
      done(isLost);
    });
  }

  /** Puts the file aside and begins it anew. What waits for the disk goes into the one that is put aside. */
  #rotate(): void {
    const stream = this.#stream as WriteStream & { readonly fd: number };
    // It could not be opened, which is about to be told.
    if (stream.pending) return;
    try {
      const own = fstatSync(stream.fd);
      const named = statSync(this.#path, { throwIfNoEntry: false });
      if (named?.ino === own.ino && named.dev === own.dev) {
        // Somebody has cut it, as logrotate does with copytruncate.
        this.#bytes = own.size + stream.writableLength;
        if (this.#bytes < this.#maxBytes / 2) return;
        renameSync(this.#path, `${this.#path}.1`);
      }
      this.#retire();
      this.#stream = this.#open(own.mode & MODE_BITS);
    } catch (error) {
      this.#failed('the audit file has its largest size and cannot be renamed', error as Error);
    }
  }

  #retire(): void {
    const stream = this.#stream;
    this.#retired = Promise.all([this.#retired, new Promise((resolve) => stream.end(resolve))]);
  }

  #open(mode: number): Writable {
    const { size, isFile, isPipe, isCut } = lookAt(this.#path);
    this.#bytes = size;
    this.#isCapped = isFile && this.#maxBytes > 0;
    // At once, so that it can be renamed as soon as it is full; a device may keep its opener waiting.
    const descriptor = isFile ? tryOpen(this.#path, mode) : null;
    const stream = isPipe
      ? openPipe(this.#path)
      : createWriteStream(this.#path, descriptor === null ? { flags: 'a', mode } : { fd: descriptor });
    stream.on('error', (error: Error) => {
      if (stream === this.#stream) this.#failed('the audit file cannot be written', error);
    });
    if (isCut) stream.write('\n');
    return stream;
  }

  #failed(what: string, error: Error): void {
    this.#retryAt = this.#now() + RETRY_MS;
    this.#tell(what, error.message);
  }

  #tell(what: string, error: string): void {
    if (this.#isTold) return;
    this.#isTold = true;
    const message = `${what}; what it lacks is in the log alone until it can be written again`;
    this.#log.error(message, { file: this.#path, error });
  }

  #works(): void {
    if (!this.#isTold) return;
    this.#isTold = false;
    this.#log.info('the audit file is written again', { file: this.#path, missing: this.missing });
  }
}

/** What is there. Nothing is as good as an empty file; what is wrong is told when it is opened. `isCut`: by a power cut, or a disk that was full. */
function lookAt(path: string): {
  readonly size: number;
  readonly isFile: boolean;
  readonly isPipe: boolean;
  readonly isCut: boolean;
} {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined) return { size: 0, isFile: true, isPipe: false, isCut: false };
    const { size } = found;
    const isFile = found.isFile();
    const isCut = isFile && size > 0 && lastByteOf(path, size) !== NEWLINE;
    return { size, isFile, isPipe: found.isFIFO(), isCut };
  } catch {
    return { size: 0, isFile: false, isPipe: false, isCut: false };
  }
}

/**
 * Without a wait: a pipe that nobody reads would hold a thread of libuv, where files are opened and written, for as long as nobody does, and the process
 * cannot end before it. Here it is as good as a file that cannot be written.
 */
function openPipe(path: string): Writable {
  let fd = -1;
  try {
    fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    return new Socket({ fd, readable: false, writable: true });
  } catch (error) {
    // By now something else may be there.
    if (fd >= 0) closeSync(fd);
    return new Writable().destroy(error as Error);
  }
}

/** Null: it cannot be opened, which the stream that tries again tells of. */
function tryOpen(path: string, mode: number): number | null {
  try {
    const descriptor = openSync(path, 'a', mode);
    // What the file had before, whatever the mask of the process takes from it.
    if (mode !== MODE) fchmodSync(descriptor, mode);
    return descriptor;
  } catch {
    return null;
  }
}

function lastByteOf(path: string, size: number): number | undefined {
  const last = Buffer.alloc(1);
  const descriptor = openSync(path, 'r');
  try {
    readSync(descriptor, last, 0, 1, size - 1);
  } finally {
    closeSync(descriptor);
  }
  return last[0];
}
