/**
 * Frames of broker.v1.Producer/PublishStream and Consumer/Consume for the generators: written from templates and scanned in place, without an
 * object a message. The fields are those of proto/broker/v1.
 */
import { randomBody, subjectName, writeVarint } from './frames.ts';

export interface StreamFrames {
  readonly prefix: string;
  readonly subjects: number;
  readonly bodyBytes: number;
  /** A frame is filled up to this. */
  readonly frameBytes: number;
  /** Batches in a frame, each of another subject. */
  readonly batches: number;
}

/** Sections are at most 4 KiB per batch apart; this much holds every header of a frame. */
const HEADER_BYTES = 64;

export class BatchFrameWriter {
  readonly scratch: Buffer;
  readonly messagesPerBatch: number;
  readonly sectionBytes: number;
  readonly batches: number;
  readonly #names: readonly Buffer[];
  readonly #section: Buffer;

  constructor({ prefix, subjects, bodyBytes, frameBytes, batches }: StreamFrames) {
    const names = Array.from({ length: subjects }, (_, index) => Buffer.from(subjectName(prefix, index)));
    const body = randomBody(bodyBytes);
    const record = Buffer.alloc(2 * HEADER_BYTES + bodyBytes);
    // Record { body = 1 } as an element of Records { records = 3 }.
    const inner = Buffer.alloc(HEADER_BYTES + bodyBytes);
    inner[0] = 0x0a;
    const bodyAt = writeVarint(inner, 1, bodyBytes);
    body.copy(inner, bodyAt);
    const innerLength = bodyAt + bodyBytes;
    record[0] = 0x1a;
    const innerAt = writeVarint(record, 1, innerLength);
    inner.copy(record, innerAt, 0, innerLength);
    const recordLength = innerAt + innerLength;
    const overhead = HEADER_BYTES + Math.max(...names.map((name) => name.length));
    this.batches = batches;
    this.messagesPerBatch = Math.max(1, Math.floor((frameBytes / batches - overhead) / recordLength));
    this.sectionBytes = this.messagesPerBatch * recordLength;
    this.#names = names;
    this.#section = Buffer.alloc(this.sectionBytes);
    for (let at = 0; at < this.sectionBytes; at += recordLength) record.copy(this.#section, at, 0, recordLength);
    this.scratch = Buffer.alloc(batches * (overhead + this.sectionBytes));
  }

  get messagesPerFrame(): number {
    return this.messagesPerBatch * this.batches;
  }

  /** The frame whose first batch has this sequence; returns its length in `scratch`. Subjects are used in turn. */
  write(firstSequence: number): number {
    const { scratch } = this;
    let at = 0;
    for (let batch = 0; batch < this.batches; batch++) {
      const sequence = firstSequence + batch;
      const name = this.#names[(sequence - 1) % this.#names.length] as Buffer;
      const head = 2 + name.length + 1 + varintBytes(sequence) + 1 + varintBytes(this.sectionBytes);
      scratch[at] = 0x12;
      at = writeVarint(scratch, at + 1, head + this.sectionBytes);
      scratch[at] = 0x0a;
      scratch[at + 1] = name.length;
      at += 2 + name.copy(scratch, at + 2);
      scratch[at] = 0x10;
      at = writeVarint(scratch, at + 1, sequence);
      scratch[at] = 0x1a;
      at = writeVarint(scratch, at + 1, this.sectionBytes);
      at += this.#section.copy(scratch, at);
    }
    return at;
  }
}

/** The first frame of a publish stream. */
export function openFrame(producerId: string): Buffer {
  const id = Buffer.from(producerId);
  return Buffer.concat([Buffer.from([0x0a, id.length + 2, 0x0a, id.length]), id]);
}

/** What a response of a publish stream says. Values that it does not carry stay as they were. */
export class PublishResponseScan {
  isOpened = false;
  acknowledged = 0;
  bytesLimit = 0;
  messagesLimit = 0;
  /** Of this response. */
  failedBatches = 0;
  /** Number of the last google.rpc.Code. */
  failedCode = 0;
  readonly #fields = new FieldScan();
  readonly #inner = new FieldScan();
  readonly #error = new FieldScan();

  read(bytes: Buffer, start: number, end: number): void {
    const fields = this.#fields.reset(bytes, start, end);
    this.failedBatches = 0;
    while (fields.next()) {
      if (fields.number === 1) this.isOpened = true;
      else if (fields.number === 2) this.acknowledged = fields.value;
      else if (fields.number === 3) this.#result(bytes, fields.start, fields.end);
      else if (fields.number === 4) this.#window(bytes, fields.start, fields.end);
    }
  }

  #result(bytes: Buffer, start: number, end: number): void {
    const fields = this.#inner.reset(bytes, start, end);
    while (fields.next()) {
      if (fields.number !== 4) continue;
      this.failedBatches += 1;
      const error = this.#error.reset(bytes, fields.start, fields.end);
      while (error.next()) if (error.number === 1) this.failedCode = error.value;
    }
  }

  #window(bytes: Buffer, start: number, end: number): void {
    const fields = this.#inner.reset(bytes, start, end);
    while (fields.next()) {
      if (fields.number === 1) this.bytesLimit = fields.value;
      else if (fields.number === 2) this.messagesLimit = fields.value;
    }
  }
}

export interface ConsumeStart {
  readonly subjects: readonly string[];
  readonly start: 'new' | 'earliest';
  readonly creditBytes: number;
  readonly creditMessages: number;
}

/** The first frame of a consume stream, with its first credit. */
export function consumeFrame({ subjects, start, creditBytes, creditMessages }: ConsumeStart): Buffer {
  const starts = subjects.map((subject) => {
    const name = Buffer.from(subject);
    const inner = Buffer.concat([
      Buffer.from([0x0a, name.length]),
      name,
      Buffer.from([start === 'new' ? 0x10 : 0x18, 1]),
    ]);
    return Buffer.concat([Buffer.from([0x0a, inner.length]), inner]);
  });
  const open = Buffer.concat(starts);
  const head = Buffer.alloc(6);
  head[0] = 0x0a;
  return Buffer.concat([
    head.subarray(0, writeVarint(head, 1, open.length)),
    open,
    creditFrame(creditBytes, creditMessages),
  ]);
}

export function creditFrame(bytes: number, messages: number): Buffer {
  const inner = Buffer.alloc(24);
  inner[0] = 0x08;
  const at = writeVarint(inner, 1, bytes);
  inner[at] = 0x10;
  const length = writeVarint(inner, at + 1, messages);
  return Buffer.concat([Buffer.from([0x12, length]), inner.subarray(0, length)]);
}

/** What a response of a consume stream brings. */
export class ConsumeResponseScan {
  isStarted = false;
  /** Of this response. */
  messages = 0;
  sectionBytes = 0;
  readonly #fields = new FieldScan();
  readonly #inner = new FieldScan();

  read(bytes: Buffer, start: number, end: number): void {
    const fields = this.#fields.reset(bytes, start, end);
    this.messages = 0;
    this.sectionBytes = 0;
    while (fields.next()) {
      if (fields.number === 2) this.isStarted = true;
      if (fields.number !== 1) continue;
      const delivery = this.#inner.reset(bytes, fields.start, fields.end);
      while (delivery.next()) {
        if (delivery.number === 3) this.messages += delivery.value;
        else if (delivery.number === 5) this.sectionBytes += delivery.end - delivery.start;
      }
    }
  }
}

/** Walks the fields of a message; a message that breaks off is a defect of the server and thrown. */
class FieldScan {
  number = 0;
  /** Of a varint. */
  value = 0;
  /** Of a length-delimited field. */
  start = 0;
  end = 0;
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #limit = 0;

  reset(bytes: Buffer, start: number, end: number): this {
    this.#bytes = bytes;
    this.#at = start;
    this.#limit = end;
    return this;
  }

  next(): boolean {
    if (this.#at >= this.#limit) return false;
    const tag = this.#varint();
    this.number = Math.floor(tag / 8);
    if (tag % 8 === 0) {
      this.value = this.#varint();
    } else {
      if (tag % 8 !== 2) throw new Error(`perf: wire type ${tag % 8} in an answer`);
      const length = this.#varint();
      this.start = this.#at;
      this.end = this.#at + length;
      this.#at = this.end;
    }
    if (this.#at > this.#limit) throw new Error('perf: an answer breaks off');
    return true;
  }

  #varint(): number {
    let value = 0;
    for (let scale = 1; this.#at < this.#limit; scale *= 128) {
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new Error('perf: an answer breaks off');
  }
}

function varintBytes(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length += 1;
  return length;
}
