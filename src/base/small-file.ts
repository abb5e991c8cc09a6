import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

/** What a file is, rather than why the system does not give it. */
export class UnfitFile extends Error {
  override name = 'UnfitFile';
}

/**
 * The text (UTF-8) and mode of a file that is read while calls are served. Throws the system's error, or UnfitFile for one above `bytesMax` and for what is no
 * ordinary file: a pipe would hold the whole process until somebody writes. Size, mode and text are of one file, whatever is put in its place meanwhile.
 */
export function readSmallFile(path: string, bytesMax: number): { readonly text: string; readonly mode: number } {
  // Without O_NONBLOCK the opening of a pipe waits already.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = fstatSync(file);
    // A folder is left to the read, whose error names it.
    if (!found.isFile() && !found.isDirectory()) throw new UnfitFile('it is no ordinary file');
    if (found.size > bytesMax) throw new UnfitFile(`it is larger than ${bytesMax} bytes`);
    // Room for one byte more: the file may grow while it is read.
    const buffer = Buffer.alloc(found.size + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(file, buffer, length, buffer.length - length, null);
    }
    return { text: buffer.toString('utf8', 0, length), mode: found.mode };
  } finally {
    closeSync(file);
  }
}
