/** Splits a byte stream into lines without decoding it: bodies are bytes. */

const NEWLINE = 0x0a;

/** A line may not be longer than the largest body that a broker can be set to take. */
export const LINE_BYTES_MAX = 64 * 1024 * 1024;

/** The lines without their line breaks; what follows the last line break is a line unless it is empty. Throws RangeError past the limit. */
export async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  bytesMax: number = LINE_BYTES_MAX,
): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      size = 0;
      start = end + 1;
    }
    if (start === chunk.length) continue;
    parts.push(chunk.subarray(start));
    size += chunk.length - start;
    if (size > bytesMax) throw new RangeError(`a line is longer than ${bytesMax} bytes`);
  }
  if (size > 0) yield Buffer.concat(parts);
}
