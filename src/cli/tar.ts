/** Writes tar archives (ustar, POSIX.1-1988): names, sizes and bytes of plain files, which every tar reads. */

const BLOCK_BYTES = 512;
/** Of the last part of a name, and of all in front of it. */
const NAME_BYTES_MAX = 100;
const PREFIX_BYTES_MAX = 155;

export interface TarFile {
  /** With "/" between folders. */
  readonly name: string;
  readonly content: Uint8Array;
}

/** `now`: ms since 1970, the time of all files. Files are for their owner only. */
export function tarOf(files: readonly TarFile[], now: number): Buffer {
  const blocks = files.flatMap(({ name, content }) => [
    header(name, content.length, Math.floor(now / 1_000)),
    content,
    Buffer.alloc((BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES),
  ]);
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK_BYTES)]);
}

function header(path: string, size: number, seconds: number): Buffer {
  const { prefix, name } = split(path);
  const block = Buffer.alloc(BLOCK_BYTES);
  block.write(name, 0);
  block.write(octal(0o600, 8), 100);
  block.write(octal(0, 8), 108);
  block.write(octal(0, 8), 116);
  block.write(octal(size, 12), 124);
  block.write(octal(seconds, 12), 136);
  // The checksum is taken with spaces in its own place.
  block.write(' '.repeat(8), 148);
  block.write('0', 156);
  block.write('ustar\u000000', 257);
  block.write(prefix, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function octal(value: number, length: number): string {
  return `${value.toString(8).padStart(length - 1, '0')}\0`;
}

function split(path: string): { readonly prefix: string; readonly name: string } {
  if (Buffer.byteLength(path) <= NAME_BYTES_MAX) return { prefix: '', name: path };
  const at = path.lastIndexOf('/');
  const [prefix, name] = [path.slice(0, Math.max(0, at)), path.slice(at + 1)];
  if (Buffer.byteLength(prefix) > PREFIX_BYTES_MAX || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new RangeError(`a name is too long for a tar archive: ${path}`);
  }
  return { prefix, name };
}
