/**
 * LZW as Go's compress/lzw writes and reads it with LSB first and 8-bit literals, which is all that memberlist has (util.go). Codes are 9 to 12 bits: 256 clears the
 * table, 257 ends, each further one stands for the string before it and one more byte. The writer clears as soon as the table is full; a reader must also
 * take input that goes on with a full table.
 */

const CLEAR = 256;
const END = 257;
const WIDTH_MIN = 9;
const WIDTH_MAX = 12;
const CODES = 1 << WIDTH_MAX;
const NONE = -1;

/** `malformed`: not LZW, or no end. `tooLarge`: it becomes more than allowed, which is found before more is allocated. */
export type LzwFailure = 'malformed' | 'tooLarge';

/** At most `bytesMax` bytes. Bytes behind the end code are not looked at. */
export function lzwDecode(input: Uint8Array, bytesMax: number): Uint8Array | LzwFailure {
  // Each string of the table has been put out once: it is found there again.
  const starts = new Int32Array(CODES);
  const lengths = new Int32Array(CODES);
  let output = new Uint8Array(Math.min(bytesMax, Math.max(256, input.length * 4)));
  let used = 0;
  let [bits, bitCount, at] = [0, 0, 0];
  let width = WIDTH_MIN;
  // The newest code, whose string is the previous one and the first byte of what comes now.
  let high = END;
  let previousStart = NONE;
  let previousLength = 0;
  for (;;) {
    while (bitCount < width) {
      if (at === input.length) return 'malformed';
      bits |= (input[at++] as number) << bitCount;
      bitCount += 8;
    }
    const code = bits & ((1 << width) - 1);
    bits >>>= width;
    bitCount -= width;
    if (code === END) return output.subarray(0, used);
    if (code === CLEAR) {
      [width, high, previousStart] = [WIDTH_MIN, END, NONE];
      continue;
    }
    if (code > high) return 'malformed';
    if (previousStart !== NONE) {
      starts[high] = previousStart;
      lengths[high] = previousLength + 1;
    }
    const length = code < CLEAR ? 1 : (lengths[code] as number);
    if (length > bytesMax - used) return 'tooLarge';
    if (used + length > output.length) output = grown(output, used, Math.min(bytesMax, (used + length) * 2));
    if (code < CLEAR) output[used] = code;
    // Byte by byte and forwards: the newest string may reach into what is written here.
    else for (let i = 0, from = starts[code] as number; i < length; i++) output[used + i] = output[from + i] as number;
    [previousStart, previousLength] = [used, length];
    used += length;
    high += 1;
    if (high === 1 << width) {
      if (width < WIDTH_MAX) width += 1;
      else [high, previousStart] = [high - 1, NONE];
    }
  }
}

function grown(bytes: Uint8Array<ArrayBuffer>, used: number, length: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(length);
  larger.set(bytes.subarray(0, used));
  return larger;
}

const SLOTS = 1 << 14;

/** The same bytes as Go's writer; may be larger than `input`. */
export function lzwEncode(input: Uint8Array): Uint8Array {
  // Worst case: 12 bits for a byte, and the clear codes between.
  const output = new Uint8Array(Math.ceil(input.length * 1.5) + Math.ceil(input.length / 2_000) * 2 + 8);
  // Open addressing: (string's code, next byte) as a key of 20 bits, beside its own code of 12. 0 is free: no code is 0.
  const table = new Uint32Array(SLOTS);
  let [bits, bitCount, used] = [0, 0, 0];
  let width = WIDTH_MIN;
  let high = END;
  const write = (code: number): void => {
    bits |= code << bitCount;
    bitCount += width;
    for (; bitCount >= 8; bitCount -= 8) {
      output[used++] = bits & 0xff;
      bits >>>= 8;
    }
  };
  /** False if the table was full and is empty now. */
  const nextCode = (): boolean => {
    high += 1;
    if (high === 1 << width) width += 1;
    if (high < CODES - 1) return true;
    write(CLEAR);
    [width, high] = [WIDTH_MIN, END];
    table.fill(0);
    return false;
  };

  write(CLEAR);
  let code = NONE;
  for (const byte of input) {
    if (code === NONE) {
      code = byte;
      continue;
    }
    const key = (code << 8) | byte;
    let slot = ((key >>> 12) ^ key) & (SLOTS - 1);
    while (table[slot] !== 0 && (table[slot] as number) >>> 12 !== key) slot = (slot + 1) & (SLOTS - 1);
    if (table[slot] !== 0) {
      code = (table[slot] as number) & (CODES - 1);
      continue;
    }
    write(code);
    code = byte;
    if (nextCode()) table[slot] = ((key << 12) | high) >>> 0;
  }
  if (code !== NONE) {
    write(code);
    nextCode();
  }
  write(END);
  if (bitCount > 0) output[used++] = bits & 0xff;
  return output.slice(0, used);
}
