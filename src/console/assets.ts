/** The files of the page: read once, and served under a name that changes with what is in them. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import type { AdminPage, AdminRequest } from '../telemetry/admin-http.ts';

const SCRIPTS = [
  'main',
  'dom',
  'text',
  'api',
  'table',
  'chart',
  'status-pages',
  'data-pages',
  'messages',
  'login',
] as const;
const SCRIPT = 'text/javascript; charset=utf-8';
const STYLE = 'text/css; charset=utf-8';
/** Stands in the page for the folder of the files. */
const PLACE = '/console/VERSION/';
const HASH_LENGTH = 16;
const FOR_EVER = 'public, max-age=31536000, immutable';
/** Scripts, styles, images and requests of this origin only; nothing inline, no frame, no form that leads elsewhere. */
const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

interface Asset {
  readonly type: string;
  readonly plain: Buffer;
  readonly packed: Buffer;
  readonly tag: string;
}

export class Assets {
  readonly #page: Asset;
  readonly #files = new Map<string, Asset>();
  /** Where the files are served. */
  readonly #folder: string;

  /** Reads all files; throws if one is missing, which is a broken installation. */
  constructor() {
    const own = (name: string): Buffer => readFileSync(new URL(`./page/${name}`, import.meta.url));
    const library = (name: string): Buffer => readFileSync(new URL(import.meta.resolve(`uplot/dist/${name}`)));
    for (const name of SCRIPTS) this.#files.set(`${name}.js`, asset(SCRIPT, own(`${name}.js`)));
    this.#files.set('console.css', asset(STYLE, own('console.css')));
    this.#files.set('icon.svg', asset('image/svg+xml', own('icon.svg')));
    this.#files.set('uplot.js', asset(SCRIPT, library('uPlot.esm.js')));
    this.#files.set('uplot.css', asset(STYLE, library('uPlot.min.css')));
    const hash = createHash('sha256');
    for (const { plain } of this.#files.values()) hash.update(plain).update('\0');
    this.#folder = `/console/${hash.digest('hex').slice(0, HASH_LENGTH)}/`;
    const html = own('index.html').toString().replaceAll(PLACE, this.#folder);
    this.#page = asset('text/html; charset=utf-8', Buffer.from(html));
  }

  /** Null: there is no such file. */
  answer({ path, headers }: Pick<AdminRequest, 'path' | 'headers'>): AdminPage | null {
    if (path === '/') return toPage(this.#page, headers, { 'Content-Security-Policy': PAGE_POLICY });
    const found = path.startsWith(this.#folder) ? this.#files.get(path.slice(this.#folder.length)) : undefined;
    return found === undefined ? null : toPage(found, headers, { 'Cache-Control': FOR_EVER });
  }
}

function asset(type: string, plain: Buffer): Asset {
  const tag = `"${createHash('sha256').update(plain).digest('base64url').slice(0, HASH_LENGTH)}"`;
  return { type, plain, packed: gzipSync(plain, { level: 9 }), tag };
}

function toPage(
  { type, plain, packed, tag }: Asset,
  asked: AdminRequest['headers'],
  beside: Readonly<Record<string, string>>,
): AdminPage {
  // The entrance is asked for again each time (no-cache), since the names of the other files stand in it.
  const headers = { 'Cache-Control': 'no-cache', ETag: tag, Vary: 'Accept-Encoding', ...beside };
  if (asked['if-none-match'] === tag) return { status: 304, type, body: '', headers };
  const takesGzip = /\bgzip\b(?!;q=0(\.0*)?(,|$))/.test(String(asked['accept-encoding'] ?? ''));
  if (!takesGzip) return { status: 200, type, body: plain, headers };
  return { status: 200, type, body: packed, headers: { ...headers, 'Content-Encoding': 'gzip' } };
}
