/** Connections to PostgreSQL, and what their errors say about a write that was under way. */
import type { ConnectionOptions } from 'node:tls';
import pgPromise, { type IDatabase } from 'pg-promise';
import { BrokerError } from '../../base/errors.ts';
import { TIMER_MS_MAX } from '../../base/timer.ts';
import { StoreUncertain } from '../store.ts';

export interface PostgresOptions {
  readonly url: string;
  /** Schema of the broker's tables: lower case letters, digits and `_`. */
  readonly schema: string;
  /** Connections of this store at most. */
  readonly pool: number;
  /** store.timeout in ms: how long one request may take; connecting has as long again. */
  readonly timeoutMs: number;
  /** What node:tls takes; null: as the URL's sslmode says. */
  readonly tls: ConnectionOptions | null;
}

export type Database = IDatabase<unknown>;

export interface Statement {
  readonly name: string;
  readonly text: string;
}

export interface Answer<Row> {
  readonly rows: readonly Row[];
  readonly rowCount: number;
  /** The server said something of class 01 (warning) or worse on the way, such as that it did not wait for a standby. */
  readonly warned: boolean;
}

/** One statement of several on one connection. */
export type Ask = <Row>(text: string, values?: readonly unknown[]) => Promise<readonly Row[]>;

/** Beside it `askAtLength`: a statement that may take as long as it takes. The server has its own limit, which a `SET LOCAL` takes away. */
export type AskAtLength = (text: string) => Promise<void>;

/** How the driver is told of a deadline of one query; its types do not have it. */
interface TimedQuery {
  readonly text: string;
  readonly query_timeout: number;
}

/** What a server's notice or error carries beside its text. */
interface Coded {
  readonly code?: unknown;
}

const ENDING = new BrokerError('SHUTTING_DOWN');

export class PostgresConnection {
  readonly database: Database;
  /** How long the server works on a statement, in ms. It gives up before the client does: its answer then is a certain one. */
  readonly statementMs: number;
  readonly #timeoutMs: number;
  readonly #end: () => void;
  #isEnded = false;

  constructor(options: PostgresOptions) {
    const library = pgPromise({ noWarnings: true });
    this.#timeoutMs = options.timeoutMs;
    this.statementMs = Math.ceil(options.timeoutMs * 0.8);
    this.database = library({
      connectionString: options.url,
      ...(options.tls === null ? {} : { ssl: { ...options.tls, host: hostOf(options.url) } as object }),
      max: options.pool,
      application_name: 'broker',
      connectionTimeoutMillis: options.timeoutMs,
      statement_timeout: this.statementMs,
      // For what goes through neither `run` nor `session`, such as the look at the server's settings.
      query_timeout: options.timeoutMs * 2,
      keepAlive: true,
      idleTimeoutMillis: 60_000,
    });
    this.#end = () => this.database.$pool.end();
  }

  /** Runs one prepared statement. Rejects with BrokerError if it certainly had no effect, with StoreUncertain if it may have had one. */
  async run<Row>(statement: Statement, values: readonly unknown[]): Promise<Answer<Row>> {
    if (this.#isEnded) throw ENDING;
    const connected = await this.database.connect().catch((error: unknown) => {
      throw new BrokerError('STORE_UNAVAILABLE', 'no connection to PostgreSQL', { cause: error });
    });
    let isBroken = false;
    let warned = false;
    const onNotice = (notice: Coded): void => {
      if (String(notice.code).startsWith('01')) warned = true;
    };
    connected.client.on('notice', onNotice);
    try {
      const query = connected.result<Row>({ ...statement, values: values as unknown[] });
      const { rows, rowCount } = await withDeadline(query, this.#timeoutMs);
      return { rows: rows as unknown as Row[], rowCount, warned };
    } catch (error) {
      const meaning = meaningOf(error);
      isBroken = meaning instanceof StoreUncertain;
      throw meaning;
    } finally {
      connected.client.removeListener('notice', onNotice);
      // A connection that did not answer is closed: an answer that comes late must not be taken for that of another request.
      connected.done(isBroken);
    }
  }

  /**
   * Several statements on one connection, which is closed afterwards: what they set, or left open when one of them failed, ends with it. They have
   * store.timeout each, or all together. Rejects as the driver does.
   */
  async session<T>(
    deadline: 'each' | 'together',
    work: (ask: Ask, askAtLength: AskAtLength) => Promise<T>,
  ): Promise<T> {
    if (this.#isEnded) throw ENDING;
    const connected = await this.database.connect();
    const end = performance.now() + this.#timeoutMs;
    const ask: Ask = async <Row>(text: string, values: readonly unknown[] = []) => {
      const timeoutMs = deadline === 'each' ? this.#timeoutMs : Math.max(0, end - performance.now());
      return await withDeadline(connected.any<Row>({ text, values: values as unknown[] }), timeoutMs);
    };
    const askAtLength: AskAtLength = async (text) => {
      const query: TimedQuery = { text, query_timeout: TIMER_MS_MAX };
      await connected.client.query(query);
    };
    try {
      return await work(ask, askAtLength);
    } finally {
      connected.done(true);
    }
  }

  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#end();
  }
}

/** Whose certificate is wanted: where the URL has an address, the driver names nobody, and Node would settle for that of `localhost`. */
function hostOf(text: string): string {
  const url = new URL(text);
  return url.searchParams.get('host') ?? url.hostname.replace(/^\[(.*)\]$/, '$1');
}

class Deadline extends Error {
  override name = 'Deadline';
}

async function withDeadline<T>(query: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Deadline(`no answer in ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([query, late]);
  } finally {
    clearTimeout(timer);
    query.catch(() => 'given up already');
  }
}

/**
 * A server that answers ERROR has rolled the statement back. One that ends the session may have committed before: those codes, and every
 * error without a code (the connection was lost), say nothing about the outcome.
 */
function meaningOf(error: unknown): Error {
  const code = codeOf(error);
  if (code === null || isSessionEnd(code)) {
    return new StoreUncertain('PostgreSQL did not say whether the write took effect', { cause: error });
  }
  if (code === '53100') return new BrokerError('STORE_FULL', 'PostgreSQL has no disk space', { cause: error });
  return new BrokerError('STORE_UNAVAILABLE', `PostgreSQL refused with SQLSTATE ${code}`, { cause: error });
}

/** SQLSTATE, five characters; Node's own codes are longer words. */
export function codeOf(error: unknown): string | null {
  const code = (error as Coded | null)?.code;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code) ? code : null;
}

function isSessionEnd(code: string): boolean {
  return /^(08|57P|58|XX|F0|25P03)/.test(code);
}
