/** The web console: the page, its files and its API, below the admin server's guards. */

import { BrokerError, type Reason } from '../base/errors.ts';
import { type AdminPage, type AdminPages, type AdminRequest, json, notAllowed } from '../telemetry/admin-http.ts';
import { ConsoleApi } from './api.ts';
import { Assets } from './assets.ts';
import type { ConsoleAccess, ConsoleCaller, ConsoleOptions, ConsoleSources } from './ports.ts';
import { failurePage, RequestError, refusalPage } from './refusal.ts';
import { ConsoleSessions } from './sessions.ts';
import { ConsoleWrites } from './writes.ts';

const API = '/api/v1/';
/** Why somebody is refused for who they are. */
const OF_CALLER: ReadonlySet<Reason> = new Set([
  'CREDENTIALS_MISSING',
  'PERMISSION_DENIED',
  'TENANT_BOUND',
  'TENANT_INVALID',
]);

export class WebConsole implements AdminPages {
  readonly hosts: readonly string[];
  readonly #options: ConsoleOptions;
  readonly #api: ConsoleApi;
  readonly #writes: ConsoleWrites;
  readonly #sessions: ConsoleSessions;
  /** Read when the first page is asked for. */
  #assets: Assets | null = null;

  constructor(options: ConsoleOptions) {
    this.hosts = options.hosts;
    this.#options = options;
    this.#api = new ConsoleApi(options);
    this.#writes = new ConsoleWrites(options);
    this.#sessions = new ConsoleSessions(options.now);
  }

  async answer(request: AdminRequest): Promise<AdminPage | null> {
    const { path } = request;
    if (!path.startsWith(API)) {
      if (request.method === 'POST') return notAllowed('POST', 'GET, HEAD');
      this.#assets ??= new Assets();
      return this.#assets.answer(request);
    }
    const name = path.slice(API.length);
    try {
      return await this.#apiPage(request, name);
    } catch (error) {
      if (error instanceof BrokerError && OF_CALLER.has(error.reason)) this.#tell(request, error.reason, name);
      return failurePage(error, this.#options.onDefect);
    }
  }

  #tell(request: AdminRequest, reason: Reason, name: string): void {
    const { access } = this.#options;
    access?.refused(reason, this.#sessions.of(request)?.name ?? null, request.peer, name);
  }

  async #apiPage(request: AdminRequest, name: string): Promise<AdminPage | null> {
    const { access } = this.#options;
    const caller = access === null ? null : this.#sessions.of(request);
    const isPost = request.method === 'POST';
    switch (name) {
      case 'session':
        return isPost ? notAllowed('POST', 'GET, HEAD') : this.#session(caller);
      case 'login':
      case 'logout':
        if (access === null) return null;
        if (!isPost) return notAllowed(request.method, 'POST');
        return name === 'login' ? await this.#logIn(request, access) : this.#logOut(request);
      default:
        if (access !== null && caller === null) throw new BrokerError('CREDENTIALS_MISSING');
        return await this.#knownPage(request, name, caller);
    }
  }

  async #knownPage(request: AdminRequest, name: string, caller: ConsoleCaller | null): Promise<AdminPage | null> {
    const isPost = request.method === 'POST';
    const sources = (): ConsoleSources => this.#sources();
    switch (name) {
      case 'shards/resize':
        return isPost ? await this.#writes.resize(request, caller, sources) : notAllowed(request.method, 'POST');
      case 'advice/apply':
        return isPost ? await this.#writes.applyAdvice(request, caller, sources) : notAllowed(request.method, 'POST');
      default:
        if (!this.#api.knows(name)) return null;
        if (isPost) return notAllowed('POST', 'GET, HEAD');
        return await this.#api.answer(name, this.#sources(), request.query, caller, request.peer);
    }
  }

  /** Who nobody is, is told no more than that they have to log in. */
  #session(caller: ConsoleCaller | null): AdminPage {
    const { access } = this.#options;
    const needsLogin = access !== null && caller === null;
    const without = needsLogin ? [] : this.#api.missing(this.#sources(), caller);
    return json(200, { ...this.#writes.session(caller), without, needsLogin, caller: caller?.name ?? '' });
  }

  async #logIn(request: AdminRequest, access: ConsoleAccess): Promise<AdminPage> {
    this.#writes.checkOrigin(request);
    const token = tokenOf(request.body);
    const caller = await access.observer(`Bearer ${token}`, request.peer, 'console');
    if ('reason' in caller) return refusalPage(caller);
    const page = json(200, { caller: caller.name });
    return { ...page, headers: { 'Set-Cookie': this.#sessions.open(caller, request.isSecure) } };
  }

  #logOut(request: AdminRequest): AdminPage {
    this.#writes.checkOrigin(request);
    return { ...json(200, {}), headers: { 'Set-Cookie': this.#sessions.close(request) } };
  }

  /** BrokerError while the node starts. */
  #sources(): ConsoleSources {
    const sources = this.#options.sources();
    if (sources === null) throw new BrokerError('NOT_READY');
    return sources;
  }
}

/** The body is {"token": TEXT}. */
function tokenOf(body: Buffer): string {
  let value: unknown = null;
  try {
    value = JSON.parse(body.toString());
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const isRecord = typeof value === 'object' && value !== null && Object.keys(value).join() === 'token';
  const token: unknown = isRecord ? (value as Record<string, unknown>).token : null;
  if (typeof token === 'string' && token !== '') return token;
  throw new RequestError(400, 'the body is not {"token": TEXT}', 'send the token');
}
