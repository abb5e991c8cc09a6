/** What the console may change, and who may ask for it. */

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { type AdminPage, type AdminRequest, json } from '../telemetry/admin-http.ts';
import { isBound } from './bound.ts';
import type { ConsoleCaller, ConsoleOptions, ConsoleSources } from './ports.ts';
import { RequestError, reasonOf } from './refusal.ts';

/** Carries the token: a header that no form and no page of another origin can send without being asked first. */
const TOKEN_HEADER = 'x-broker-console';
const TOKEN_BYTES = 32;
const SHARDS_MAX = 1_024;

const READ_ONLY = {
  error: 'this console is read-only',
  next: 'start the broker with --console-write, with access.file or admin.listen on loopback, or use `broker shards resize`',
};

const NOT_ALLOWED = {
  error: 'you may look at this node and not change it',
  next: 'log in with a token that has `admin`, or use `broker shards resize` with one',
};

const BOUND = {
  error: 'what is changed here is for all tenants, and you are of one',
  next: 'log in with a token of the access file that has `admin` and no `tenant`',
};

export class ConsoleWrites {
  readonly #options: ConsoleOptions;
  /** Of this process: a page that was loaded from an earlier one asks for it again. */
  readonly #token = randomBytes(TOKEN_BYTES).toString('base64url');

  constructor(options: ConsoleOptions) {
    this.#options = options;
  }

  /** What a page of this origin has to know to write; no token where nothing may be written. `caller`: who is logged in. */
  session(caller: ConsoleCaller | null): object {
    const refusal = this.#refusalOf(caller);
    if (refusal === null) return { mayWrite: true, token: this.#token, reason: '', next: '' };
    return { mayWrite: false, token: '', reason: refusal.error, next: refusal.next };
  }

  async resize(request: AdminRequest, caller: ConsoleCaller | null, sources: () => ConsoleSources): Promise<AdminPage> {
    return await this.#change(request, caller, 'shards', async (shards) => await sources().node.resizeShards(shards));
  }

  /** Refuses if the advice is another one by now: what is applied is what was read. */
  async applyAdvice(
    request: AdminRequest,
    caller: ConsoleCaller | null,
    sources: () => ConsoleSources,
  ): Promise<AdminPage> {
    return await this.#change(request, caller, 'recommended', async (shards) => {
      const { node } = sources();
      const { recommended } = await node.adviseShards();
      if (recommended !== shards) {
        throw new RequestError(409, `the advice is ${recommended} shards by now`, 'read it again, then apply it');
      }
      return await node.resizeShards(shards);
    });
  }

  /** RequestError unless the request comes from a page of this node, as JSON. The server has compared Origin with Host, where there is one. */
  checkOrigin({ headers }: AdminRequest): void {
    if (headers.origin === undefined) {
      throw new RequestError(403, 'a change needs an Origin header', 'use the console, or `broker shards` in scripts');
    }
    if (!/^application\/json( *;.*)?$/i.test(headers['content-type'] ?? '')) {
      throw new RequestError(415, 'the body is not said to be application/json', 'say so, and send JSON');
    }
  }

  async #change(
    request: AdminRequest,
    caller: ConsoleCaller | null,
    name: string,
    change: (value: number) => Promise<object>,
  ): Promise<AdminPage> {
    this.#authorise(request, caller);
    const value = numberOf(request.body, name);
    const note = (outcome: string): void =>
      this.#options.onChange({
        caller: caller?.name ?? 'anonymous',
        peer: request.peer,
        method: 'ResizeShards',
        arguments: { shards: value, by: 'console' },
        outcome,
      });
    try {
      const changed = await change(value);
      note('ok');
      return json(200, { change: changed });
    } catch (error) {
      note(reasonOf(error) ?? 'refused');
      throw error;
    }
  }

  #refusalOf(caller: ConsoleCaller | null): typeof READ_ONLY | null {
    const { mayWrite, access } = this.#options;
    if (!mayWrite) return READ_ONLY;
    if (access !== null && caller?.administers !== true) return NOT_ALLOWED;
    return isBound(caller) ? BOUND : null;
  }

  /** RequestError unless the request comes from a page of this node, loaded by this process, and its caller may write. */
  #authorise(request: AdminRequest, caller: ConsoleCaller | null): void {
    const refusal = this.#refusalOf(caller);
    if (refusal !== null) {
      const reason = refusal === BOUND ? 'TENANT_BOUND' : refusal === NOT_ALLOWED ? 'PERMISSION_DENIED' : null;
      if (reason !== null) this.#options.access?.refused(reason, caller?.name ?? null, request.peer, 'a change');
      throw new RequestError(403, refusal.error, refusal.next);
    }
    this.checkOrigin(request);
    const given = Buffer.from(String(request.headers[TOKEN_HEADER] ?? ''));
    const token = Buffer.from(this.#token);
    if (given.length !== token.length || !timingSafeEqual(given, token)) {
      throw new RequestError(403, 'the token of this console is missing or of an earlier start', 'load the page again');
    }
  }
}

/** The body is an object with one number. */
function numberOf(body: Buffer, name: string): number {
  let value: unknown = null;
  try {
    value = JSON.parse(body.toString());
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const isRecord = typeof value === 'object' && value !== null && Object.keys(value).join() === name;
  const number: unknown = isRecord ? (value as Record<string, unknown>)[name] : null;
  if (typeof number !== 'number' || !Number.isInteger(number) || number < 1 || number > SHARDS_MAX) {
    throw new RequestError(400, `the body is not {"${name}": NUMBER}`, 'send the number of shards');
  }
  return number;
}
