import { assert } from '../base/assert.ts';
import { REASONS, type Reason } from '../base/errors.ts';
import { FetchRequest, MessageResponse } from '../grpc/gen/broker.ts';
import type { FetchPort } from './ports.ts';
import { reasonOf } from './refusal.ts';

/** One id, as the API shows it. */
export interface ShownMessage {
  readonly id: number;
  /** Null where there is a message; else why there is none, in the words of the catalogue. */
  readonly absent: { readonly reason: Reason; readonly when: string; readonly next: string } | null;
  /** Epoch ms. */
  readonly publishedAt: number;
  readonly expirationSeconds: number;
  /** Base64 of the first bytes. */
  readonly body: string;
  /** Of the whole body. */
  readonly bodyBytes: number;
  readonly headers: readonly ShownHeader[];
}

interface ShownHeader {
  readonly key: string;
  /** Base64 of the first bytes. */
  readonly value: string;
  readonly valueBytes: number;
}

/** Where a message is looked for by time: ids from `first` to `settled` have their verdict. */
export interface IdRange {
  readonly first: number;
  readonly settled: number;
}

const FETCH_MS = 5_000;
/** A page of the console ends here although more was asked for: bytes of bodies and headers that are shown. */
const PAGE_BYTES_MAX = 1024 * 1024;
const HEADER_BYTES_SHOWN = 4 * 1024;
/** Ids without a message in a row that a search by time looks behind, before it takes them for old ones. */
const ABSENT_RUN_MAX = 64;
/** These are the verdict on one id: the others of the page are shown. Any other refusal is one of the whole page. */
const VERDICTS: readonly Reason[] = ['ID_NOT_FOUND', 'ID_VOID', 'ID_EXPIRED', 'ID_TRIMMED', 'DATA_LOSS'];

type Fetched = MessageResponse | Reason;

/** Messages of a subject for people to look at, by way of Fetch: few, cut, and the ids between them that have none. */
export class MessageReader {
  readonly #port: FetchPort;
  readonly #tenant: string;
  readonly #now: () => number;

  /** `tenant`: in whose space the subjects are; '': in none. */
  constructor(port: FetchPort, tenant: string, now: () => number) {
    this.#port = port;
    this.#tenant = tenant;
    this.#now = now;
  }

  /** Ids from `from` to at most `to`, in order; fewer if they are large. `bodyBytes`: shown of each body. */
  async read(
    subject: string,
    { from, to }: { readonly from: number; readonly to: number },
    bodyBytes: number,
  ): Promise<ShownMessage[]> {
    const shown: ShownMessage[] = [];
    let bytes = 0;
    for (let id = from; id <= to && bytes < PAGE_BYTES_MAX; id += 1) {
      const message = show(id, await this.#fetch(subject, id), bodyBytes);
      shown.push(message);
      bytes +=
        message.body.length + message.headers.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
    }
    return shown;
  }

  /**
   * The first id with a message that was published at `time` (epoch ms) or later; settled + 1 if there is none. Times never fall with rising ids, so
   * it halves the range. Of an id that is void or expired nobody knows the time: those behind it are asked, and a long run of such ids is
   * taken for older ones.
   */
  async firstAt(subject: string, time: number, { first, settled }: IdRange): Promise<number> {
    let low = first;
    let high = settled + 1;
    let best = settled + 1;
    // Readable ids below `low` are too old. None from `high` on, up to `best`, is readable; `best` is new enough.
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2);
      const end = Math.min(high, middle + ABSENT_RUN_MAX);
      const found = await this.#firstReadable(subject, middle, end);
      if (found !== null && found.publishedAt < time) low = found.id + 1;
      else if (found === null && end < high) low = end;
      else {
        if (found !== null) best = found.id;
        high = middle;
      }
    }
    return best;
  }

  async #firstReadable(subject: string, from: number, end: number): Promise<MessageResponse | null> {
    for (let id = from; id < end; id += 1) {
      const found = await this.#fetch(subject, id);
      if (typeof found !== 'string') return found;
    }
    return null;
  }

  #fetch(subject: string, id: number): Promise<Fetched> {
    const request = Buffer.from(FetchRequest.encode({ subject, id }).finish());
    return new Promise((resolve, reject) => {
      const done = (error: object | null, response?: Buffer): void => {
        if (error === null) {
          assert(response !== undefined, 'a fetch was answered with neither a message nor an error');
          resolve(MessageResponse.decode(response));
          return;
        }
        const reason = reasonOf(error);
        if (reason !== null && VERDICTS.includes(reason)) resolve(reason);
        else reject(error);
      };
      this.#port.fetch(request, this.#now() + FETCH_MS, done, this.#tenant);
    });
  }
}

function show(id: number, fetched: Fetched, bodyBytes: number): ShownMessage {
  if (typeof fetched === 'string') {
    const { when, next } = REASONS[fetched];
    const absent = { reason: fetched, when, next };
    return { id, absent, publishedAt: 0, expirationSeconds: 0, body: '', bodyBytes: 0, headers: [] };
  }
  const { body, headers, publishedAt, expirationSeconds } = fetched;
  return {
    id,
    absent: null,
    publishedAt,
    expirationSeconds,
    body: Buffer.from(body.subarray(0, bodyBytes)).toString('base64'),
    bodyBytes: body.length,
    headers: headers.map(({ key, value }) => ({
      key,
      value: Buffer.from(value.subarray(0, HEADER_BYTES_SHOWN)).toString('base64'),
      valueBytes: value.length,
    })),
  };
}
