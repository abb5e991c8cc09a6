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

  /** One that is valid from one moment to another, to the second; `issue` counts in days. */
  issueFor(name: string, subjectAltName: string, [from, to]: readonly [Date, Date]): Certificate {
    const [request, extensions, cert] = [this.#path(name, 'csr'), this.#path(name, 'ext'), this.#path(name, 'crt')];
    const [settings, index, serial] = [this.#path(name, 'cnf'), this.#path(name, 'index'), this.#path(name, 'srl')];
    writeFileSync(extensions, `subjectAltName=${subjectAltName}\n`);
    writeFileSync(index, '');
    const folder = `database=${index}\nserial=${serial}\nnew_certs_dir=${this.#folder}\n`;
    writeFileSync(
      settings,
      `[ca]\ndefault_ca=d\n[d]\n${folder}default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n`,
    );
    this.#openssl(['req', ...this.#newKey(name), '-out', request]);
    const signer = [
      '-cert',
      this.cert,
      '-keyfile',
      this.#path(this.name, 'key'),
      '-create_serial',
      '-rand_serial',
      '-batch',
      '-notext',
    ];
    const times = ['-startdate', timeOf(from), '-enddate', timeOf(to)];
    const files = ['-config', settings, '-in', request, '-extfile', extensions, '-out', cert];
    this.#openssl(['ca', ...signer, ...times, ...files]);
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

/** YYYYMMDDHHMMSSZ */
function timeOf(date: Date): string {
  return `${date.toISOString().replace(/[-:T]|\..*/g, '')}Z`;
}

export function pem(path: string): string {
  return readFileSync(path, 'utf8');
}
