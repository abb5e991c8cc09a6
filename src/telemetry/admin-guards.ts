/** Who may ask for the pages that people read, judged by what browsers say of themselves. Pages for machines are not guarded: probes use any name. */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

/** Why a request is refused, as its answer says it. */
export interface Refusal {
  /** Of HTTP. */
  readonly status: number;
  readonly error: string;
  /** What to do. */
  readonly next: string;
  /** When to try again; absent, or 0: time alone changes nothing. */
  readonly retryAfterMs?: number;
}

/** What the guards look at. `hosts`: all Host headers of the request. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly hosts: readonly string[];
  readonly headers: IncomingHttpHeaders;
}

/** The address of a page that others may link to. */
const ENTRANCE = '/';
const HOST = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::\d{1,5})?$/;

/**
 * Against pages from elsewhere that run in an operator's browser. One whose own name was made to point here (DNS rebinding) carries that name in
 * Host. One that sends requests across (CSRF) carries its origin, or is given away by Sec-Fetch-Site.
 */
export class BrowserGuard {
  readonly #names: ReadonlySet<string>;

  /** `names`: of hosts, beside localhost and addresses, which need no DNS and cannot be rebound. */
  constructor(names: Iterable<string>) {
    this.#names = new Set(['localhost', ...[...names].map((name) => normal(name))]);
  }

  refusal(asked: Asked): Refusal | null {
    return this.#hostRefusal(asked) ?? originRefusal(asked) ?? siteRefusal(asked);
  }

  #hostRefusal({ hosts }: Asked): Refusal | null {
    const [host] = hosts;
    if (hosts.length > 1) return { status: 400, error: 'several Host headers', next: 'send one' };
    const match = HOST.exec(host?.toLowerCase() ?? '');
    const [, bracketed, name] = match ?? [];
    const isKnown =
      (bracketed !== undefined && isIP(bracketed) === 6) ||
      (name !== undefined && (isIP(name) === 4 || this.#names.has(normal(name))));
    if (isKnown) return null;
    return {
      status: 421,
      error: 'this node does not know itself by the host name of this request',
      next: 'call it by address or as localhost, or add the name to console.hosts',
    };
  }
}

/** Browsers send an Origin with whatever could change something, and with what another page asks for. */
function originRefusal({ hosts, headers: { origin } }: Asked): Refusal | null {
  const host = hosts[0]?.toLowerCase() ?? '';
  if (origin === undefined || origin === `http://${host}` || origin === `https://${host}`) return null;
  return {
    status: 403,
    error: 'the request comes from a page of another origin',
    next: 'use the console of this node',
  };
}

/** A link from elsewhere may lead to the entrance; nothing else is for other sites, not even to load. */
function siteRefusal({ method, path, headers }: Asked): Refusal | null {
  const site = headers['sec-fetch-site'];
  if (site === undefined || site === 'same-origin' || site === 'none') return null;
  const isLink = headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
  if (path === ENTRANCE && (method === 'GET' || method === 'HEAD') && isLink) return null;
  return { status: 403, error: 'the request comes from a page of another site', next: 'open the console of this node' };
}

/** As names are compared: in lower case, without the dot that only says that they are complete. */
function normal(name: string): string {
  return name.toLowerCase().replace(/\.$/, '');
}
