/** New inputs from old ones. The same numbers make the same inputs. */
import { numbersFrom } from '../support/fuzz.ts';

const LENGTHS = [0, 1, 2, 4, 8, 16, 32, 64, 127, 128, 255, 256, 1_000, 1_024, 4_096, 65_535, 65_536];
const INTERESTING = [
  ...LENGTHS,
  100,
  0x7fff,
  0x8000,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_fffe,
  0xffff_ffff,
  0x1_0000_0000,
  Number.MAX_SAFE_INTEGER - 1,
  Number.MAX_SAFE_INTEGER,
  2 ** 53,
  2 ** 63,
  2 ** 64 - 2 ** 11,
];
const EDITS_MAX = 6;

export class Mutator {
  readonly number: (below: number) => number;
  readonly #words: readonly Uint8Array[];
  readonly #numbers: readonly number[];
  readonly #lengthMax: number;
  readonly #scratch: Buffer;
  /** The input under way: bytes[0, length). */
  readonly bytes: Buffer;
  length = 0;

  constructor(options: {
    readonly seed: number;
    readonly words: readonly Uint8Array[];
    readonly numbers: readonly number[];
    readonly lengthMax: number;
  }) {
    this.number = numbersFrom(options.seed === 0 ? 1 : options.seed | 0);
    // The first numbers of xorshift from a small seed are small.
    for (let i = 0; i < 16; i++) this.number(2);
    this.#words = options.words;
    this.#numbers = options.numbers.length === 0 ? INTERESTING : options.numbers;
    this.#lengthMax = options.lengthMax;
    this.bytes = Buffer.alloc(options.lengthMax);
    this.#scratch = Buffer.alloc(options.lengthMax);
  }

  /** An input of its own memory. */
  next(corpus: readonly Uint8Array[]): Buffer {
    const { number } = this;
    this.#take(this.#pick(corpus));
    // One edit or two most often: more of them destroy more than they find.
    let edits = 1;
    while (edits < EDITS_MAX && number(2) === 0) edits += 1;
    if (number(16) === 0) edits += number(16);
    for (; edits > 0; edits--) this.#edit(corpus);
    return Buffer.from(this.bytes.subarray(0, this.length));
  }

  /** Those that were found last lead on more often. */
  #pick(corpus: readonly Uint8Array[]): Uint8Array {
    const { length } = corpus;
    const recent = Math.min(length, 16 + (length >>> 3));
    const index = this.number(2) === 0 ? this.number(length) : length - 1 - this.number(recent);
    return corpus[index] as Uint8Array;
  }

  #take(source: Uint8Array): void {
    this.length = Math.min(source.length, this.#lengthMax);
    this.bytes.set(source.subarray(0, this.length));
  }

  #edit(corpus: readonly Uint8Array[]): void {
    const { number, bytes, length } = this;
    const place = length === 0 ? 0 : number(length);
    switch (length === 0 ? 20 + number(3) : number(27)) {
      case 0:
      case 1:
      case 2:
        bytes[place] = (bytes[place] as number) ^ (1 << number(8));
        break;
      case 3:
      case 4:
        bytes[place] = number(256);
        break;
      case 5:
        bytes[place] = [0, 1, 0x7f, 0x80, 0xff, 0x20, 0x0a, 0x30][number(8)] as number;
        break;
      case 6:
      case 7:
        bytes[place] = (bytes[place] as number) + number(35) - 17;
        break;
      case 8:
        this.#addToWide(place);
        break;
      case 9:
      case 10:
        this.#writeWide(place, this.#number());
        break;
      case 11:
        // The length of what follows, or nearly.
        this.#writeWide(place, Math.max(0, length - place - number(12) + number(3)));
        break;
      case 12:
      case 13:
        this.#remove(place, this.#span());
        break;
      case 14:
        this.length = place;
        break;
      case 15:
      case 16:
        this.#insert(number(length + 1), bytes, place, Math.min(length, place + this.#span()));
        break;
      case 17: {
        const from = number(length);
        bytes.copyWithin(place, from, Math.min(length, from + this.#span(), from + length - place));
        break;
      }
      case 18:
        bytes.fill(number(3) === 0 ? number(256) : 0, place, Math.min(length, place + this.#span()));
        break;
      case 19:
      case 20: {
        const other = corpus[number(corpus.length)] as Uint8Array;
        const from = number(other.length + 1);
        this.#insert(length === 0 ? 0 : number(length + 1), other, from, Math.min(other.length, from + this.#span()));
        break;
      }
      case 21:
      case 22: {
        const word = this.#words[number(Math.max(1, this.#words.length))];
        if (word !== undefined) this.#insert(length === 0 ? 0 : number(length + 1), word, 0, word.length);
        break;
      }
      case 23: {
        const word = this.#words[number(Math.max(1, this.#words.length))];
        if (word !== undefined) bytes.set(word.subarray(0, length - place), place);
        break;
      }
      case 24: {
        // The head of this one and the tail of another.
        const other = corpus[number(corpus.length)] as Uint8Array;
        const from = number(other.length + 1);
        this.length = place;
        this.#insert(place, other, from, other.length);
        break;
      }
      case 25:
        this.#insertVarint(place, this.#number());
        break;
      default:
        for (let at = place; at < Math.min(length, place + 8); at++) bytes[at] = number(256);
    }
  }

  /** One that is interesting anyway, or one that the source compares with. */
  #number(): number {
    const list = this.number(2) === 0 ? INTERESTING : this.#numbers;
    return list[this.number(list.length)] as number;
  }

  #span(): number {
    return 1 + this.number(this.number(4) === 0 ? 256 : 12);
  }

  #remove(at: number, count: number): void {
    const end = Math.min(this.length, at + count);
    this.bytes.copyWithin(at, end, this.length);
    this.length -= end - at;
  }

  #insert(at: number, source: Uint8Array, from: number, to: number): void {
    const count = Math.min(to - from, this.#lengthMax - this.length);
    if (count <= 0) return;
    this.#scratch.set(source.subarray(from, from + count));
    this.bytes.copyWithin(at + count, at, this.length);
    this.bytes.set(this.#scratch.subarray(0, count), at);
    this.length += count;
  }

  #addToWide(at: number): void {
    const { bytes, number } = this;
    const change = number(35) - 17;
    const wide = number(2) === 0 ? 2 : 4;
    if (at + wide > this.length) return;
    if (wide === 2) {
      if (number(2) === 0) bytes.writeUInt16LE((bytes.readUInt16LE(at) + change) & 0xffff, at);
      else bytes.writeUInt16BE((bytes.readUInt16BE(at) + change) & 0xffff, at);
    } else if (number(2) === 0) bytes.writeUInt32LE((bytes.readUInt32LE(at) + change) >>> 0, at);
    else bytes.writeUInt32BE((bytes.readUInt32BE(at) + change) >>> 0, at);
  }

  /** Over what is there, as far as it has room: in 1, 2, 4 or 8 bytes of either order, as a varint, or in digits. */
  #writeWide(at: number, value: number): void {
    const { bytes, number } = this;
    const room = this.length - at;
    const low = (value % 0x1_0000_0000) >>> 0;
    const high = Math.floor(value / 0x1_0000_0000) >>> 0;
    switch (number(8)) {
      case 0:
        bytes[at] = low;
        break;
      case 1:
        if (room >= 2) bytes.writeUInt16LE(low & 0xffff, at);
        break;
      case 2:
        if (room >= 2) bytes.writeUInt16BE(low & 0xffff, at);
        break;
      case 3:
        if (room >= 4) bytes.writeUInt32LE(low, at);
        break;
      case 4:
        if (room >= 4) bytes.writeUInt32BE(low, at);
        break;
      case 5:
        if (room < 8) break;
        bytes.writeUInt32LE(low, at);
        bytes.writeUInt32LE(high, at + 4);
        break;
      case 6:
        if (room < 8) break;
        bytes.writeUInt32BE(high, at);
        bytes.writeUInt32BE(low, at + 4);
        break;
      default: {
        const digits = Buffer.from(String(value));
        digits.copy(bytes, at, 0, Math.min(digits.length, room));
      }
    }
  }

  #insertVarint(at: number, value: number): void {
    const varint: number[] = [];
    let rest = value;
    for (; rest >= 0x80 && varint.length < 9; rest = Math.floor(rest / 0x80)) varint.push((rest % 0x80) | 0x80);
    varint.push(rest & 0x7f);
    this.#insert(at, Uint8Array.from(varint), 0, varint.length);
  }
}
