/** The archive of `broker debug bundle`. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { VERSION } from '../base/version.ts';
import type { Context } from './context.ts';
import { CliError, EXIT } from './failure.ts';
import { SubjectHasher, withoutQuotas } from './hash-subjects.ts';
import { type TarFile, tarOf } from './tar.ts';

/** Of all files together; what comes then is left out, and that is said. */
const BYTES_MAX = 256 * 1024 * 1024;
/** What a node may call a file: nothing that leads out of the folder in which somebody unpacks the bundle. */
const FILE_NAME = /^[\w-]+(\/[\w-]+)*(\.[\w-]+)*$/;
/** Behind the name of a file that a node does not have, in front of the reason. */
const MISSING = '.missing';

const README = `What is in this bundle of \`broker debug bundle\`:

bundle.json         when and how it was made, which files it has, and what could not be had
process.json        versions, memory, resources of the process
threads.json        load and heap of each thread
settings.json       the configuration and where it comes from; *** stands for secrets
log.jsonl           the newest lines of the log
metrics.txt         as Prometheus gets them
profiles/           where the threads spent their time, if asked for; browsers open them
status.json, members.json, shards.json, subscriptions.json, connections.json, subjects.json, tenants.json
                    what the node answered to the commands for operators
data-directory.json, node.json
                    names and sizes of files, and whose directory it is, if --data-dir was given

Messages are not in it. Names of subjects and addresses of clients are, unless --hash-subjects was given, which hides the names.
`;

/** What is gathered, in memory: it is small. */
export class Bundle {
  readonly missing: { readonly what: string; readonly why: string }[] = [];
  readonly #context: Context;
  readonly #hasher: SubjectHasher | null;
  readonly #files = new Map<string, Buffer[]>();
  #bytes = 0;

  constructor(context: Context, hashes: boolean) {
    this.#context = context;
    this.#hasher = hashes ? new SubjectHasher() : null;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Says it once, however many parts of a file there are. */
  miss(what: string, why: string): void {
    if (!this.missing.some((one) => one.what === what)) this.missing.push({ what, why });
  }

  json(name: string, value: unknown): void {
    this.append(name, Buffer.from(`${JSON.stringify(value, null, 2)}\n`));
  }

  async answer(name: string, call: () => Promise<object>): Promise<void> {
    try {
      this.json(name, await call());
    } catch (error) {
      if (!(error instanceof CliError) || this.#context.interrupt.aborted) throw error;
      this.miss(name, error.message);
    }
  }

  /** The next part of a file. A node names one `X.missing` that says why it has no X. */
  append(name: string, content: Uint8Array): void {
    if (name.endsWith(MISSING)) {
      this.miss(name.slice(0, -MISSING.length), Buffer.from(content).toString());
    } else if (!FILE_NAME.test(name)) {
      this.miss('a file of the node', 'its name is not one of a bundle');
    } else if (this.#bytes + content.length > BYTES_MAX) {
      this.miss(name, `it is cut: the bundle would be larger than ${BYTES_MAX} bytes`);
    } else {
      this.#bytes += content.length;
      const parts = this.#files.get(name) ?? [];
      parts.push(Buffer.from(content));
      this.#files.set(name, parts);
    }
  }

  /** Resolves with what it wrote, for the person who asked. */
  async write(path: string | undefined, addresses: readonly string[]) {
    const now = this.#context.now();
    const time = new Date(now).toISOString().replace(/[-:]|\.\d+/g, '');
    const folder = `broker-debug-${time}`;
    const gathered = this.#hidden([...this.#files].map(([name, parts]) => ({ name, content: Buffer.concat(parts) })));
    const files: TarFile[] = [
      { name: 'README.txt', content: Buffer.from(README) },
      ...gathered,
      {
        name: 'bundle.json',
        content: Buffer.from(`${JSON.stringify(this.#manifest(gathered, addresses, now), null, 2)}\n`),
      },
    ];
    const archive = await promisify(gzip)(
      tarOf(
        files.map((file) => ({ ...file, name: `${folder}/${file.name}` })),
        now,
      ),
    );
    const target = path ?? `${folder}.tar.gz`;
    try {
      writeFileSync(target, archive, { flag: 'wx', mode: 0o600 });
    } catch (error) {
      const next = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'name another one with --file' : '';
      throw new CliError(EXIT.failed, `${target} cannot be written: ${(error as Error).message}`, next, {
        cause: error,
      });
    }
    return { file: target, bytes: archive.length, files: files.length, missing: this.missing.length };
  }

  #manifest(files: readonly TarFile[], addresses: readonly string[], now: number): object {
    return {
      made_at: new Date(now).toISOString(),
      command_version: VERSION,
      addresses,
      subjects_hashed: this.#hasher !== null,
      files: files.map(({ name, content }) => ({ name, bytes: content.length, sha256: sha256(content) })),
      missing: this.missing,
    };
  }

  /** In an order in which the log comes when all names are known. */
  #hidden(files: readonly TarFile[]): readonly TarFile[] {
    const hasher = this.#hasher;
    if (hasher === null) return files;
    const edited = (name: string, edit: (text: string) => string): TarFile[] =>
      files
        .filter((file) => file.name === name || (name === '*.json' && file.name.endsWith('.json')))
        .map((file) => ({ name: file.name, content: Buffer.from(edit(Buffer.from(file.content).toString())) }));
    const json = edited('*.json', (text) => `${JSON.stringify(hasher.value(hidden(JSON.parse(text))), null, 2)}\n`);
    const others = files.filter(
      ({ name }) => !name.endsWith('.json') && name !== 'metrics.txt' && name !== 'log.jsonl',
    );
    return [
      ...json,
      ...edited('metrics.txt', (text) => hasher.metrics(text)),
      ...edited('log.jsonl', (text) => hasher.lines(text)),
      ...others,
    ];
  }
}

function hidden(value: unknown): unknown {
  return Array.isArray(value) ? value.map(withoutQuotas) : value;
}

function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
