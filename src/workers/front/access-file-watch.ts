import { statSync } from 'node:fs';
import type { Log } from '../../telemetry/log.ts';

/** How often the file is looked at, in ms: what was taken out of it has to end within a second. */
const LOOK_MS = 400;

export interface AccessFileWatchOptions<Loaded extends { readonly files: readonly string[] }> {
  readonly path: string;
  /** As it is at the start. */
  readonly loaded: Loaded;
  /** Reads and checks it; throws an Error that says what is wrong. */
  readonly load: () => Loaded;
  /** A file that is in order, and another one than before. */
  readonly apply: (loaded: Loaded) => void;
  readonly log: Log;
}

/** Follows the access file: a good one is applied, a bad one is told of and changes nothing. */
export class AccessFileWatch<Loaded extends { readonly files: readonly string[] }> {
  /** Files that were taken, and that had problems. */
  loads = 0;
  failures = 0;
  readonly #options: AccessFileWatchOptions<Loaded>;
  /** The file, and those that it names. */
  #files: readonly string[];
  #seen: string;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: AccessFileWatchOptions<Loaded>) {
    this.#options = options;
    this.#files = options.loaded.files;
    this.#seen = stampsOf(this.#files);
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Reads it again, changed or not. */
  reload(): void {
    const { path, load, apply, log } = this.#options;
    // Before it is read: a change meanwhile is seen at the next look.
    this.#seen = stampsOf(this.#files);
    let loaded: Loaded;
    try {
      loaded = load();
    } catch (error) {
      this.failures += 1;
      const problems = error instanceof Error ? error.message : String(error);
      log.error('the access file has problems, and what was in force stays', { file: path, problems });
      return;
    }
    this.loads += 1;
    if (loaded.files.join('\0') !== this.#files.join('\0')) {
      this.#files = loaded.files;
      this.#seen = stampsOf(this.#files);
    }
    apply(loaded);
    log.info('the access file is read again', { file: path });
  }

  #look(): void {
    if (stampsOf(this.#files) !== this.#seen) this.reload();
  }
}

function stampsOf(paths: readonly string[]): string {
  return paths.map(stampOf).join(';');
}

/** Changes when another file is there, or its content was written; '' for none. A file that a link of Kubernetes leads to is another one by its inode. */
function stampOf(path: string): string {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found === undefined ? '' : [found.dev, found.ino, found.mtimeNs, found.ctimeNs, found.size].join();
}
