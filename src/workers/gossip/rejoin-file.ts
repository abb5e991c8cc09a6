import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { appendFile, rename, writeFile } from 'node:fs/promises';
import { formatEndpoint, parseEndpoint } from '../../base/endpoint.ts';
import { type SeenTimes, SerfSnapshot } from '../../gossip/serf/snapshot.ts';
import type { RestoredSerf, SerfEvent } from '../../gossip/serf/types.ts';
import type { Address } from '../../gossip/types.ts';
import type { Log } from '../../telemetry/log.ts';

/** What is read of a file: far more than one that was kept short ever has. */
const READ_BYTES_MAX = 4 * 1024 * 1024;
/** How long lines are gathered; and how long the file is left alone after it could not be written. In ms. */
const FLUSH_MS = 100;
const RETRY_MS = 30_000;

/** Who is there is nobody else's business. */
const FILE_MODE = 0o600;

const KNOWN_LINE = /^(alive: .+ \S+:\d+|not-alive: .+|(event-|query-)?clock: \d+|leave|#.*)$/;
/** A comment for Serf, with what Serf does not keep. */
const SELF_LINE = /^# self: (\S+) (\d{1,10})$/;

/** What the node itself was known as. */
export interface OwnPast {
  readonly address: Address;
  readonly incarnation: number;
}

/**
 * Whom a node knew, so that it finds them again after a restart, whatever has become of its seeds; its clocks, so that it takes no old event for a new one
 * (Serf's own format, gossip/serf/snapshot.ts); and what it was known as itself. Appended in the background and written anew as it grows. Nothing hangs
 * on it: what is damaged is passed over, what cannot be written is not remembered. Not synced, for the same reason.
 */
export class RejoinFile {
  readonly #path: string;
  readonly #log: Log;
  readonly #snapshot: SerfSnapshot;
  #self: OwnPast | null = null;
  #pending = '';
  #mustRewrite = false;
  #retryAt = 0;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> = Promise.resolve();

  /** Reads what there is. */
  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    const text = this.#read();
    this.#snapshot = new SerfSnapshot(text, true);
    for (const line of text.split('\n').slice(0, -1)) this.#takeSelf(line);
  }

  get restored(): RestoredSerf {
    return this.#snapshot.restored;
  }

  /** Null: a first start, or the file is gone. */
  get past(): OwnPast | null {
    return this.#self;
  }

  onEvent(event: SerfEvent): void {
    this.#append(this.#snapshot.onEvent(event));
  }

  onTimes(times: SeenTimes): void {
    this.#append(this.#snapshot.onTimes(times));
  }

  noteSelf(self: OwnPast): void {
    const line = selfLine(self);
    if (this.#self !== null && selfLine(this.#self) === line) return;
    this.#self = self;
    this.#append(line);
  }

  /** Resolves when all that was noted is written, or could not be. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  #append(lines: string): void {
    if (lines === '') return;
    this.#pending += lines;
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => void this.flush(), FLUSH_MS);
    this.#timer.unref();
  }

  async #write(): Promise<void> {
    const now = performance.now();
    const lines = this.#pending;
    this.#pending = '';
    // After a failure the file is written whole, so nothing is missing in it.
    if (now < this.#retryAt || (lines === '' && !this.#mustRewrite)) return;
    try {
      if (this.#mustRewrite || this.#snapshot.isCompactionDue) {
        const own = this.#self === null ? '' : selfLine(this.#self);
        await writeFile(`${this.#path}.tmp`, own + this.#snapshot.compact(), { mode: FILE_MODE });
        await rename(`${this.#path}.tmp`, this.#path);
        this.#mustRewrite = false;
      } else {
        await appendFile(this.#path, lines, { mode: FILE_MODE });
      }
    } catch (error) {
      this.#mustRewrite = true;
      this.#retryAt = now + RETRY_MS;
      this.#log.warn('whom this node knows by gossip cannot be written down', {
        file: this.#path,
        error: String(error),
      });
    }
  }

  #read(): string {
    let text: string;
    try {
      text = readHead(this.#path);
    } catch (error) {
      // None, or none that can be read: the seeds are there.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      this.#mustRewrite = true;
      this.#log.warn('whom this node knew by gossip cannot be read', { file: this.#path, error: String(error) });
      return '';
    }
    const lines = text.split('\n');
    // Behind the last line break: nothing, or the beginning of a line that a crash cut off.
    this.#mustRewrite = lines.pop() !== '';
    const known = lines.filter((line) => KNOWN_LINE.test(line));
    const damaged = lines.length - known.length;
    if (damaged > 0) {
      this.#mustRewrite = true;
      this.#log.warn('lines about whom this node knew by gossip are damaged and were passed over', {
        file: this.#path,
        lines: damaged,
      });
    }
    return known.map((line) => `${line}\n`).join('');
  }

  #takeSelf(line: string): void {
    const found = SELF_LINE.exec(line);
    const address = parseEndpoint(found?.[1] ?? '');
    const incarnation = Number(found?.[2]);
    if (address !== null && incarnation < 2 ** 32) this.#self = { address, incarnation };
  }
}

function selfLine({ address, incarnation }: OwnPast): string {
  return `# self: ${formatEndpoint(address)} ${incarnation}\n`;
}

function readHead(path: string): string {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(Math.min(fstatSync(file).size, READ_BYTES_MAX));
    return bytes.toString('utf8', 0, readSync(file, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(file);
  }
}
