import { Fields } from './fields.ts';
import { bodyLength, bodyOf, FRAME_HEADER_BYTES } from './framing.ts';
import { PlainMsgpack } from './plain-msgpack.ts';
import { NAME_LENGTH_MAX } from './raft-frames.ts';
import { type Hello, type Purpose, REFUSAL_CODES, type Refusal } from './types.ts';
import { WireError } from './wire-error.ts';

/** The first bytes in either direction, for all versions: what does not begin so is not from a broker. */
const MAGIC = Buffer.from('BRKR', 'latin1');
const GREETING_BODY_BYTES_MAX = 4_096;
const GREETING_BYTES_MAX = MAGIC.length + FRAME_HEADER_BYTES + GREETING_BODY_BYTES_MAX;
const WORDS_LENGTH_MAX = 512;
const VERSION_MAX = 0xffff;

/** Place = number on the wire; append-only. */
const PURPOSES: readonly Purpose[] = ['frames', 'snapshot'];

/** The dialer is taken, and frames of this version are spoken; or it is not. */
export type Answer = { readonly version: number } | { readonly refusal: Refusal };

/**
 * Hello: versionMin, versionMax, clusterId, node, instance, targetNode, targetInstance, purpose.
 * Answer: version (0: refused), number of the refusal's code, its words.
 * Both are understood by every version: fields are only ever appended.
 */
export class GreetingCodec {
  readonly #msgpack = new PlainMsgpack();

  encodeHello(hello: Hello): Buffer {
    const { versionMin, versionMax, clusterId, node, instance, targetNode, targetInstance, purpose } = hello;
    const who = [clusterId, node, instance, targetNode, targetInstance];
    return this.#greeting([versionMin, versionMax, ...who, PURPOSES.indexOf(purpose)]);
  }

  /** Throws WireError. */
  decodeHello(body: Buffer): Hello {
    const fields = new Fields(this.#msgpack.array(body), 'hello');
    const versionMin = fields.uint(VERSION_MAX);
    const versionMax = fields.uint(VERSION_MAX);
    const clusterId = fields.text(NAME_LENGTH_MAX);
    const node = fields.text(NAME_LENGTH_MAX);
    if (node === '') throw fields.wrong('name');
    const instance = fields.text(NAME_LENGTH_MAX);
    const targetNode = fields.text(NAME_LENGTH_MAX);
    const targetInstance = fields.text(NAME_LENGTH_MAX);
    const purpose = fields.oneOf(PURPOSES);
    return { versionMin, versionMax, clusterId, node, instance, targetNode, targetInstance, purpose };
  }

  encodeAnswer(answer: Answer): Buffer {
    if ('version' in answer) return this.#greeting([answer.version, 0, '']);
    const { code, words } = answer.refusal;
    return this.#greeting([0, REFUSAL_CODES.indexOf(code), words.slice(0, WORDS_LENGTH_MAX)]);
  }

  /** Throws WireError. */
  decodeAnswer(body: Buffer): Answer {
    const fields = new Fields(this.#msgpack.array(body), 'answer');
    const version = fields.uint(VERSION_MAX);
    if (version > 0) return { version };
    return { refusal: { code: fields.oneOf(REFUSAL_CODES), words: fields.text(WORDS_LENGTH_MAX) } };
  }

  #greeting(values: readonly unknown[]): Buffer {
    return Buffer.concat([MAGIC, this.#msgpack.frame(values)]);
  }
}

/** The newest version that both speak; 0 if there is none. */
export function commonVersion(ours: { min: number; max: number }, hello: Hello): number {
  const version = Math.min(ours.max, hello.versionMax);
  return version >= Math.max(ours.min, hello.versionMin) ? version : 0;
}

/** Reads the greeting with which a direction of a connection begins. */
export class GreetingReader {
  #bytes = Buffer.alloc(0);

  /** Null while it is not whole, then its body and the bytes behind it. Throws WireError at the first byte that is wrong. */
  push(chunk: Buffer): { readonly body: Buffer; readonly rest: Buffer } | null {
    const end = Math.min(chunk.length, GREETING_BYTES_MAX - this.#bytes.length);
    this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, end)]);
    const bytes = this.#bytes;
    const seen = Math.min(bytes.length, MAGIC.length);
    if (bytes.compare(MAGIC, 0, seen, 0, seen) !== 0) throw new WireError('MAGIC', 'not a peer of a broker');
    if (bytes.length < MAGIC.length + FRAME_HEADER_BYTES) return null;
    const length = FRAME_HEADER_BYTES + bodyLength(bytes, MAGIC.length, GREETING_BODY_BYTES_MAX);
    if (bytes.length < MAGIC.length + length) return null;
    const body = bodyOf(bytes.subarray(MAGIC.length, MAGIC.length + length));
    const rest = Buffer.concat([bytes.subarray(MAGIC.length + length), chunk.subarray(end)]);
    return { body, rest };
  }
}
