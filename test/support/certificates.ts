/** Certificates for tests, made anew each time by openssl. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificate {
  /** Paths of PEM files. */
  readonly cert: string;
  readonly key: string;
}

/** An authority that signs itself and others; its files lie in `folder`. */
export class CertificateAuthority {
  readonly #folder: string;
  readonly name: string;

  constructor(folder: string, name: string) {
    this.#folder = folder;
    this.name = name;
    this.#openssl(['req', '-x509', '-days', '2', ...this.#newKey(name), '-out', this.cert]);
  }

  get cert(): string {
    return this.#path(this.name, 'crt');
  }

  /** For `subjectAltName`, such as `DNS:localhost`. */
  issue(name: string, subjectAltName: string): Certificate {
    const [request, extensions, cert] = [this.#path(name, 'csr'), this.#path(name, 'ext'), this.#path(name, 'crt')];
    writeFileSync(extensions, `subjectAltName=${subjectAltName}\n`);
    this.#openssl(['req', ...this.#newKey(name), '-out', request]);
    const signer = ['-CA', this.cert, '-CAkey', this.#path(this.name, 'key'), '-CAcreateserial'];
    this.#openssl(['x509', '-req', '-days', '2', '-in', request, ...signer, '-extfile', extensions, '-out', cert]);
    return { cert, key: this.#path(name, 'key') };
  }

  #newKey(name: string): string[] {
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    return [...curve, '-keyout', this.#path(name, 'key'), '-subj', `/CN=${name}`];
  }

  #path(name: string, extension: string): string {
    return join(this.#folder, `${name}.${extension}`);
  }

  #openssl(args: readonly string[]): void {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

export function pem(path: string): string {
  return readFileSync(path, 'utf8');
}
