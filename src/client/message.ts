/** Messages as the client hands them out and takes them. */
import { RecordFields } from '../batch/records-scan.ts';
import { VarintCursor } from '../batch/varint.ts';
import { protocolError } from './errors.ts';

export interface Header {
  /** 1 to 255 bytes of UTF-8. */
  readonly key: string;
  readonly value: Uint8Array;
}

/** Headers to publish; keys may repeat in a list. */
export type HeadersInput =
  | readonly { readonly key: string; readonly value: string | Uint8Array }[]
  | Readonly<Record<string, string | Uint8Array>>;

/** Text is sent as UTF-8. */
export type Body = string | Uint8Array;

export interface Message {
  /** Position in its subject, from 1; 0 for a broadcast, which has none. */
  readonly id: number;
  readonly subject: string;
  /** Milliseconds since 1970; never falls with rising ids. */
  readonly publishedAt: number;
  readonly body: Buffer;
  readonly headers: readonly Header[];
  /** 0: never. */
  readonly expirationSeconds: number;
  /** The body as UTF-8. */
  readonly text: string;
}

export function checkBody(body: Body): void {
  if (typeof body !== 'string' && !(body instanceof Uint8Array)) throw new TypeError('a body is text or bytes');
}

export function listHeaders(input: HeadersInput | undefined): readonly Header[] {
  if (input === undefined) return NONE;
  const list = Array.isArray(input)
    ? (input as readonly { key: string; value: string | Uint8Array }[])
    : Object.entries(input as Record<string, string | Uint8Array>).map(([key, value]) => ({ key, value }));
  return list.map(({ key, value }) => {
    if (typeof key !== 'string') throw new TypeError('the key of a header is text');
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    if (!(bytes instanceof Uint8Array)) throw new TypeError('the value of a header is text or bytes');
    return { key, value: bytes };
  });
}

const NONE: readonly Header[] = [];

/** A record of a delivery. Its bytes are looked at when they are asked for; body and header values are views of the received frame. */
export class RecordMessage implements Message {
  readonly subject: string;
  readonly id: number;
  readonly publishedAt: number;
  readonly #frame: Buffer;
  readonly #start: number;
  readonly #end: number;
  #fields: RecordFields | null = null;

  constructor(batch: MessageBatch, id: number, frame: Buffer, start: number, end: number) {
    this.subject = batch.subject;
    this.publishedAt = batch.publishedAt;
    this.id = id;
    this.#frame = frame;
    this.#start = start;
    this.#end = end;
  }

  get body(): Buffer {
    const { bodyStart, bodyEnd } = this.#read();
    return this.#frame.subarray(bodyStart, bodyEnd);
  }

  get text(): string {
    const { bodyStart, bodyEnd } = this.#read();
    return this.#frame.toString('utf8', bodyStart, bodyEnd);
  }

  get headers(): readonly Header[] {
    return this.#read().headersCount === 0 ? NONE : readHeaders(this.#frame, this.#start, this.#end);
  }

  get expirationSeconds(): number {
    return this.#read().expirationSeconds;
  }

  #read(): RecordFields {
    if (this.#fields === null) {
      this.#fields = new RecordFields();
      if (!this.#fields.read(this.#frame, this.#start, this.#end))
        throw protocolError('the broker sent a malformed record');
    }
    return this.#fields;
  }
}

/** Messages of one subject with consecutive ids that came together. Walking it makes one small object a message. */
export class MessageBatch implements Iterable<Message> {
  readonly subject: string;
  readonly firstId: number;
  readonly count: number;
  readonly publishedAt: number;
  readonly #frame: Buffer;
  readonly #start: number;
  readonly #end: number;
  /** Leading records that were delivered before the stream broke. */
  readonly #skip: number;
  readonly #isBare: boolean;

  constructor(fields: {
    readonly subject: string;
    readonly firstId: number;
    readonly count: number;
    readonly publishedAt: number;
    readonly frame: Buffer;
    readonly start: number;
    readonly end: number;
    readonly skip: number;
    /** The bytes are one record, without its tag and length. */
    readonly isBare?: boolean;
  }) {
    this.subject = fields.subject;
    this.firstId = fields.firstId + fields.skip;
    this.count = fields.count - fields.skip;
    this.publishedAt = fields.publishedAt;
    this.#frame = fields.frame;
    this.#start = fields.start;
    this.#end = fields.end;
    this.#skip = fields.skip;
    this.#isBare = fields.isBare ?? false;
  }

  get lastId(): number {
    return this.firstId + this.count - 1;
  }

  /** Size of the records, in bytes. */
  get bytes(): number {
    return this.#end - this.#start;
  }

  *[Symbol.iterator](): Iterator<Message> {
    if (this.#isBare) {
      yield new RecordMessage(this, this.firstId, this.#frame, this.#start, this.#end);
      return;
    }
    const varint = new VarintCursor();
    let at = this.#start;
    let index = -this.#skip;
    while (at < this.#end) {
      const start = varint.read(this.#frame, at + 1, this.#end);
      const end = start + varint.value;
      if (start < 0 || end > this.#end) throw protocolError('the broker sent a malformed batch');
      if (index >= 0) yield new RecordMessage(this, this.firstId + index, this.#frame, start, end);
      index += 1;
      at = end;
    }
  }
}

const HEADERS_TAG = 0x2a;
const KEY_TAG = 0x0a;
const VALUE_TAG = 0x12;

/** The headers among the fields of a record or of a MessageResponse, whose numbers are the same. */
export function readHeaders(bytes: Buffer, start: number, end: number): Header[] {
  const headers: Header[] = [];
  const fields = new FieldCursor(bytes, start, end);
  while (fields.next()) {
    if (fields.tag !== HEADERS_TAG) continue;
    let key = '';
    let value: Buffer = EMPTY;
    const inner = new FieldCursor(bytes, fields.start, fields.end);
    while (inner.next()) {
      if (inner.tag === KEY_TAG) key = bytes.toString('utf8', inner.start, inner.end);
      else if (inner.tag === VALUE_TAG) value = bytes.subarray(inner.start, inner.end);
    }
    headers.push({ key, value });
  }
  return headers;
}

const EMPTY = Buffer.alloc(0);

/** Walks the fields of a protobuf message that the broker sent; throws where it is malformed. */
export class FieldCursor {
  tag = 0;
  /** Of a length-delimited field. */
  start = 0;
  end = 0;
  /** Of a varint. */
  value = 0;
  readonly #bytes: Buffer;
  readonly #limit: number;
  readonly #varint = new VarintCursor();
  #at: number;

  constructor(bytes: Buffer, start = 0, end: number = bytes.length) {
    this.#bytes = bytes;
    this.#at = start;
    this.#limit = end;
  }

  next(): boolean {
    if (this.#at >= this.#limit) return false;
    this.tag = this.#read();
    switch (this.tag & 7) {
      case 0:
        this.value = this.#read();
        return true;
      case 1:
        this.#at += 8;
        break;
      case 2:
        this.value = this.#read();
        this.start = this.#at;
        this.#at += this.value;
        this.end = this.#at;
        break;
      case 5:
        this.#at += 4;
        break;
      default:
        throw protocolError('the broker sent a malformed message');
    }
    if (this.#at > this.#limit) throw protocolError('the broker sent a malformed message');
    return true;
  }

  #read(): number {
    this.#at = this.#varint.read(this.#bytes, this.#at, this.#limit);
    if (this.#at < 0) throw protocolError('the broker sent a malformed message');
    return this.#varint.value;
  }
}
