/** For the programs of this repository: a command line that cannot be read is one line and an exit code, not a stack trace. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

const EXIT_USAGE = 2;

/** `parseArgs`; ends the process with code 2 if it refuses the command line. */
export function readOptions<T extends ParseArgsConfig>(program: string, config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    if (!(error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS_')) throw error;
    // Its first sentence says what is wrong; the rest is on how parseArgs can be told otherwise.
    const [what] = (error as Error).message.split('. ');
    process.stderr.write(`${program}: ${what}; --help shows the options\n`);
    process.exit(EXIT_USAGE);
  }
}
