/** Where certificates and keys are kept: one folder, readable by its owner alone. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CliError, EXIT, usageError } from '../failure.ts';
import type { Authority, Issued } from './issue.ts';

/** Name of the files of the authority. */
export const AUTHORITY = 'ca';

export interface Paths {
  readonly cert: string;
  readonly key: string;
}

export class CertificateFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  pathsOf(name: string): Paths {
    return { cert: join(this.path, `${name}.pem`), key: join(this.path, `${name}.key`) };
  }

  /** Before anything is made, so that a command makes all of its files or none. Throws a usage error. */
  checkFree(names: readonly string[]): void {
    if (new Set(names).size < names.length) throw usageError(`${names.join(', ')}: each needs a name of its own`);
    for (const path of names.flatMap((name) => Object.values(this.pathsOf(name)))) {
      if (existsSync(path)) throw taken(path);
    }
  }

  /** Nothing is ever overwritten. */
  write(name: string, { cert, key }: Issued): Paths {
    const paths = this.pathsOf(name);
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
    create(paths.key, key);
    try {
      create(paths.cert, cert);
    } catch (error) {
      rmSync(paths.key, { force: true });
      throw error;
    }
    return paths;
  }

  /** Throws a CliError. */
  async authority(): Promise<Authority> {
    const { cert, key } = this.pathsOf(AUTHORITY);
    const { readAuthority } = await import('./issue.ts');
    try {
      return await readAuthority(readFileSync(cert, 'utf8'), readFileSync(key, 'utf8'));
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const why = code === 'ENOENT' ? 'it is not there' : message;
      const next = `make one with \`broker certs ca --dir ${this.path}\``;
      throw new CliError(EXIT.failed, `${cert}, ${key}: cannot be used as an authority: ${why}`, next, { cause });
    }
  }
}

function create(path: string, text: string): void {
  try {
    writeFileSync(path, text, { flag: 'wx', mode: 0o600 });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw code === 'EEXIST' ? taken(path) : new CliError(EXIT.failed, `${path}: ${message}`, '', { cause });
  }
}

function taken(path: string): CliError {
  return usageError(
    `${path}: is there already, and nothing is overwritten`,
    'choose another name or --dir, or move it away',
  );
}
