import { Packr } from 'msgpackr';
import { FRAME_HEADER_BYTES, sealFrame } from './framing.ts';
import { WireError } from './wire-error.ts';

/** Values in one body, arrays included. An append has 4 for each of its entries, which weigh 24 bytes at least: 175,000 a MiB. */
export const VALUES_MAX = 524_288;
/** Arrays in arrays; the deepest of ours are the voters of a snapshot's configuration. */
const DEPTH_MAX = 4;
/** UTF-8 bytes of a string. */
const STRING_BYTES_MAX = 4_096;

/** msgpackr's option to leave so many bytes free in front of what it packs (RESERVE_START_SPACE, which its types do not name). */
const RESERVE_START_SPACE = 2_048;

/**
 * msgpack of nil, booleans, numbers, strings, bytes and arrays, which is all that frames need. What a peer sent is measured before msgpackr reads it: no maps,
 * no extensions (msgpackr makes errors, expressions and dates of some), no length beyond what came, a cap on the number of values: so that a body costs its own
 * size and a few bytes for each value, and not what it claims.
 */
export class PlainMsgpack {
  readonly #packr = new Packr({ useRecords: false });

  /** A sealed frame with `value` as its body. */
  frame(value: readonly unknown[]): Buffer {
    return sealFrame(this.#packr.pack(value, RESERVE_START_SPACE + FRAME_HEADER_BYTES));
  }

  /** Byte strings in it are views of `bytes`. Throws WireError. */
  array(bytes: Buffer): readonly unknown[] {
    const measure = new Measure(bytes);
    if (measure.value(0) !== bytes.length) throw new WireError('MALFORMED', 'bytes behind a value');
    const value: unknown = this.#packr.unpack(bytes);
    if (!Array.isArray(value)) throw new WireError('MALFORMED', 'not an array');
    return value;
  }
}

/** Walks over values without making any; each method returns where the value ends. */
class Measure {
  readonly #bytes: Buffer;
  #values = 0;
  #depth = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  value(at: number): number {
    this.#values += 1;
    if (this.#values > VALUES_MAX) throw new WireError('TOO_LONG', `more than ${VALUES_MAX} values in a frame`);
    const type = this.#uint(at, 1);
    if (type <= 0x7f || type >= 0xe0) return at + 1;
    if (type >= 0xa0 && type <= 0xbf) return this.#string(at + 1, type & 0x1f);
    if (type >= 0x90 && type <= 0x9f) return this.#array(at + 1, type & 0x0f);
    switch (type) {
      case 0xc0: // nil
      case 0xc2: // false
      case 0xc3: // true
        return at + 1;
      case 0xc4: // bin 8, 16, 32
      case 0xc5:
      case 0xc6: {
        const width = 1 << (type - 0xc4);
        return this.#end(at + 1 + width, this.#uint(at + 1, width));
      }
      case 0xca: // float 32
        return this.#end(at + 1, 4);
      case 0xcb: // float 64
        return this.#end(at + 1, 8);
      case 0xcc: // uint 8 to 64
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#end(at + 1, 1 << (type - 0xcc));
      case 0xd0: // int 8 to 64
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return this.#end(at + 1, 1 << (type - 0xd0));
      case 0xd9: // str 8, 16, 32
      case 0xda:
      case 0xdb: {
        const width = 1 << (type - 0xd9);
        return this.#string(at + 1 + width, this.#uint(at + 1, width));
      }
      case 0xdc: // array 16, 32
      case 0xdd: {
        const width = type === 0xdc ? 2 : 4;
        return this.#array(at + 1 + width, this.#uint(at + 1, width));
      }
      default:
        throw new WireError('MALFORMED', `a value of type 0x${type.toString(16)}`);
    }
  }

  #array(at: number, count: number): number {
    this.#end(at, count);
    this.#depth += 1;
    if (this.#depth > DEPTH_MAX) throw new WireError('MALFORMED', 'arrays are nested too deep');
    let end = at;
    for (let i = 0; i < count; i++) end = this.value(end);
    this.#depth -= 1;
    return end;
  }

  #string(at: number, length: number): number {
    if (length > STRING_BYTES_MAX) throw new WireError('TOO_LONG', `a string of ${length} bytes`);
    return this.#end(at, length);
  }

  #uint(at: number, width: number): number {
    this.#end(at, width);
    return this.#bytes.readUIntBE(at, width);
  }

  #end(at: number, length: number): number {
    const end = at + length;
    if (end > this.#bytes.length) throw new WireError('MALFORMED', 'a value is cut off');
    return end;
  }
}
