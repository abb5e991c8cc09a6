import { fileStamp } from '../../base/file-stamp.ts';
import type { Log } from '../../telemetry/log.ts';

/** Between two looks, in ms. A change is seen at one and taken at the next: what was taken out of the file has to end within a second. */
const LOOK_MS = 200;
/** A file that is another one at so many looks in a row is told of, since nothing of it is taken: 5 s. */
const UNSETTLED_LOOKS_MAX = 25;

export interface AccessFileWatchOptions<Loaded> {
  readonly path: string;
  /** Reads and checks it; throws an Error that says what is wrong. `onRead`: each file that belongs to it, before that one is read. */
  readonly load: (path: string, onRead: (file: string) => void) => Loaded;
  /** A file that is in order, and another one than before. */
  readonly apply: (loaded: Loaded) => void;
  readonly log: Log;
}

/** `stamp`: of all files, each before it was read. */
type Reading<Loaded> = { readonly files: readonly string[]; readonly stamp: string } & (
  | { readonly loaded: Loaded }
  | { readonly error: unknown }
);

/**
 * Follows the access file: a good one is applied, a bad one is told of and changes nothing. One that is being written is left alone: cut in the middle
 * it may be a good file, without the denials at its end. So it is read when two looks have found the same, and what was read counts if the files are
 * the same afterwards.
 */
export class AccessFileWatch<Loaded> {
  /** Files that were taken, and that had problems. */
  loads = 0;
  failures = 0;
  readonly #options: AccessFileWatchOptions<Loaded>;
  /**
   * All that were read the last time, or should have been. Also of a file that was refused: what was wrong with it may be a file that it names, and
   * the one that is in force may name others.
   */
  #files: readonly string[] = [];
  /** What they were when they were taken or refused; '': they are to be read again, changed or not. */
  #seen = '';
  /** What they were at the look before, if that was not `#seen`; '' otherwise. */
  #doubted = '';
  /** Looks in a row that found something else than the one before. */
  #unsettledLooks = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: AccessFileWatchOptions<Loaded>) {
    this.#options = options;
  }

  /** As it is at the start. Throws what `load` throws. */
  open(): Loaded {
    const reading = this.#read();
    this.#files = reading.files;
    this.#seen = reading.stamp;
    if ('error' in reading) throw reading.error;
    return reading.loaded;
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Has it read again, changed or not: by the next looks, since it may be half-written when somebody asks. */
  reload(): void {
    this.#seen = '';
  }

  #look(): void {
    const found = stampOf(this.#files);
    if (found === this.#seen) {
      this.#settle(found);
    } else if (found !== this.#doubted) {
      this.#doubt(found);
    } else {
      const reading = this.#read();
      this.#files = reading.files;
      const after = stampOf(reading.files);
      // Also where other files are named than before: those were looked at once.
      if (reading.stamp !== found || after !== found) this.#doubt(after);
      else this.#take(reading);
    }
  }

  #settle(found: string): void {
    this.#seen = found;
    this.#doubted = '';
    this.#unsettledLooks = 0;
  }

  #doubt(found: string): void {
    this.#doubted = found;
    this.#unsettledLooks += 1;
    if (this.#unsettledLooks !== UNSETTLED_LOOKS_MAX) return;
    this.failures += 1;
    this.#options.log.error('the access file changes all the time, and what was in force stays', {
      file: this.#options.path,
      next: 'write the new one beside it and rename it',
    });
  }

  #take(reading: Reading<Loaded>): void {
    const { path, apply, log } = this.#options;
    this.#settle(reading.stamp);
    if ('error' in reading) {
      const { error } = reading;
      this.failures += 1;
      const problems = error instanceof Error ? error.message : String(error);
      log.error('the access file has problems, and what was in force stays', { file: path, problems });
      return;
    }
    this.loads += 1;
    apply(reading.loaded);
    log.info('the access file is read again', { file: path });
  }

  #read(): Reading<Loaded> {
    const { path, load } = this.#options;
    const stamps = new Map([[path, fileStamp(path)]]);
    const onRead = (file: string): void => {
      // The first time counts, if two issuers have one file: what changes it behind that is seen then.
      if (!stamps.has(file)) stamps.set(file, fileStamp(file));
    };
    let outcome: { readonly loaded: Loaded } | { readonly error: unknown };
    try {
      outcome = { loaded: load(path, onRead) };
    } catch (error) {
      outcome = { error };
    }
    return { files: [...stamps.keys()], stamp: joined(stamps), ...outcome };
  }
}

function stampOf(files: readonly string[]): string {
  return joined(files.map((file) => [file, fileStamp(file)]));
}

/** With the paths: another list of files is another stamp, whatever they are. */
function joined(stamps: Iterable<readonly [string, string]>): string {
  return [...stamps].map(([file, stamp]) => `${file} ${stamp}`).join('\n');
}
