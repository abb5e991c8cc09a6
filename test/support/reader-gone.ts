/** For the programs of this repository that print for a person: `npm run perf -- --help | head -1` closes our output before we are done. */

/** What shells say of a program that SIGPIPE ended (128 + 13): not 0, since nobody knows what the rest would have said. */
export const EXIT_READER_GONE = 141;

/** From here on the process ends without a word when nobody reads its output any more. What it has to take along hangs on its `exit` event. */
export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit(EXIT_READER_GONE);
    });
  }
}
