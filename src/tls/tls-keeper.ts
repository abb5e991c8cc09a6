import { fileStamp } from '../base/file-stamp.ts';
import { readMaterial, type TlsFiles, type TlsMaterial } from './material.ts';
import { TlsError } from './tls-error.ts';

/** Between two looks at the files, in ms. */
const LOOK_MS = 2_000;
/** How long before the end of a certificate the log speaks of it, and how often. In ms. */
const WARN_BEFORE_MS = 14 * 24 * 3_600_000;
const WARN_EVERY_MS = 24 * 3_600_000;
/** Files that are changed while they are read are read again, so often. */
const READS_MAX = 3;

export interface TlsLog {
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** Takes new certificates into use, for connections from now on. `isAuthorityNew`: open ones may have come by one that is gone. */
export type OnMaterial = (material: TlsMaterial, isAuthorityNew: boolean) => void;

/**
 * The certificates and keys of this node, read again when their files change: whoever has a port that speaks TLS listens. What cannot be used leaves
 * what is there in force. Files are looked at by themselves, since cert-manager and Kubernetes change them and tell nobody.
 */
export class TlsKeeper {
  readonly #log: TlsLog;
  readonly #listeners = new Set<OnMaterial>();
  #files: TlsFiles;
  #material: TlsMaterial;
  /** Of the files that `#material` is from, or that were refused. */
  #seen: string;
  /** Of files that could not be used when they were first seen: half of a change may have been written. */
  #doubted = '';
  #warnedAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;
  /** How often new files were taken, and how often they could not be used. */
  readonly reloads = { success: 0, failure: 0 };

  /** Throws TlsError if the files cannot be used. */
  constructor(files: TlsFiles, log: TlsLog) {
    this.#log = log;
    this.#files = files;
    this.#seen = stamp(files);
    this.#material = readAll(files);
    for (const warning of this.#material.warnings) log.warn('certificates need attention', { warning });
    this.#warnOfEnd();
  }

  /** In force now. */
  get material(): TlsMaterial {
    return this.#material;
  }

  /** Called with each new one, not with that of now. */
  listen(listener: OnMaterial): void {
    this.#listeners.add(listener);
  }

  /** Looks at the files by itself, until `stop`. */
  start(everyMs: number = LOOK_MS): void {
    this.#timer ??= setInterval(() => this.#look(), everyMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** From these files from now on. Throws TlsError if they cannot be used, and nothing has changed then. */
  use(files: TlsFiles): void {
    if (files.cert === this.#files.cert && files.key === this.#files.key && files.ca === this.#files.ca) return;
    const seen = stamp(files);
    const material = readAll(files);
    this.#files = files;
    this.#take(material, seen);
  }

  /** Reads the files again, changed or not, and says in the log what came of it. */
  reload(): void {
    this.#read(stamp(this.#files));
  }

  #look(): void {
    this.#warnOfEnd();
    const seen = stamp(this.#files);
    if (seen === this.#seen) return;
    if (seen === this.#doubted) {
      this.#read(seen);
      return;
    }
    try {
      this.#take(readAll(this.#files), seen);
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      this.#doubted = seen;
    }
  }

  #read(seen: string): void {
    try {
      this.#take(readAll(this.#files), seen);
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      this.#seen = seen;
      this.#doubted = '';
      this.reloads.failure += 1;
      this.#log.error('new certificates cannot be used; those from before stay in force', { problem: error.message });
    }
  }

  #take(material: TlsMaterial, seen: string): void {
    const before = this.#material;
    this.#seen = seen;
    this.#doubted = '';
    if (before.cert === material.cert && before.key === material.key && before.ca === material.ca) return;
    this.#material = material;
    for (const listener of this.#listeners) listener(material, before.ca !== material.ca);
    this.reloads.success += 1;
    this.#warnedAt = Number.NEGATIVE_INFINITY;
    const expires = new Date(material.expiresAtMs).toISOString();
    this.#log.info('new certificates are in force', { expires, newAuthorities: before.ca !== material.ca });
    for (const warning of material.warnings) this.#log.warn('certificates need attention', { warning });
    this.#warnOfEnd();
  }

  #warnOfEnd(): void {
    const now = Date.now();
    const left = this.#material.expiresAtMs - now;
    if (left > WARN_BEFORE_MS || now - this.#warnedAt < WARN_EVERY_MS) return;
    this.#warnedAt = now;
    const expires = new Date(this.#material.expiresAtMs).toISOString();
    const message = left > 0 ? 'a certificate expires soon' : 'a certificate has expired';
    this.#log.warn(message, { expires, days: Math.floor(left / 86_400_000) });
  }
}

/** What is read while somebody swaps the files would be half of each: the files must be the same before and after. */
function readAll(files: TlsFiles): TlsMaterial {
  for (let tries = 1; ; tries += 1) {
    const before = stamp(files);
    try {
      const material = readMaterial(files, Date.now());
      if (stamp(files) === before || tries === READS_MAX) return material;
    } catch (error) {
      if (stamp(files) === before || tries === READS_MAX) throw error;
    }
  }
}

function stamp({ cert, key, ca }: TlsFiles): string {
  return [cert, key, ca].map((path) => (path === null ? '' : fileStamp(path))).join(' ');
}
