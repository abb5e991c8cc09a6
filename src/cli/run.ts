/** The `broker` command: finds the subcommand, runs it, and turns how it ended into an exit code and at most two lines on stderr. */

import type { Readable, Writable } from 'node:stream';
import { Command, CommanderError } from 'commander';
import { VERSION } from '../base/version.ts';
import { processEnvironment } from '../config/environment.ts';
import { ConfigError } from '../config/load.ts';
import { connectWithClient } from './client-connection.ts';
import { backupCommand } from './commands/backup.ts';
import { benchCommand } from './commands/bench.ts';
import { clusterCommand } from './commands/cluster.ts';
import { configCommand } from './commands/config.ts';
import { fetchCommand } from './commands/fetch.ts';
import { publishCommand } from './commands/publish.ts';
import { restoreCommand } from './commands/restore.ts';
import { serveCommand } from './commands/serve.ts';
import { shardsCommand } from './commands/shards.ts';
import { statusCommand } from './commands/status.ts';
import { storeCommand } from './commands/store.ts';
import { subjectsCommand } from './commands/subjects.ts';
import { subscribeCommand } from './commands/subscribe.ts';
import type { Context } from './context.ts';
import { CliError, EXIT, type ExitCode } from './failure.ts';
import { Output, OutputClosed } from './output.ts';

export interface RunOptions {
  readonly serve: Context['serve'];
  readonly copyStore: Context['copyStore'];
  readonly recovery: Context['recovery'];
  readonly connect?: Context['connect'];
  readonly environment?: Context['environment'];
  readonly stdin?: Readable & { readonly isTTY?: boolean };
  readonly stdout?: Writable & { readonly isTTY?: boolean };
  readonly stderr?: Writable & { readonly isTTY?: boolean };
  readonly now?: () => number;
}

const AFTER_HELP = `
Exit codes: 0 done, 1 the broker answered with an error, 2 wrong usage or configuration, 3 no broker at the address, 130 interrupted.
Every command has its own help and example: broker COMMAND --help.`;

/** Never throws. `argv` begins with the subcommand. */
export async function run(argv: readonly string[], options: RunOptions): Promise<number> {
  const interrupt = new AbortController();
  const context: Context = {
    environment: options.environment ?? processEnvironment(),
    stdin: options.stdin ?? process.stdin,
    out: new Output(options.stdout ?? process.stdout),
    notes: new Output(options.stderr ?? process.stderr),
    interrupt: interrupt.signal,
    serve: options.serve,
    copyStore: options.copyStore,
    recovery: options.recovery,
    connect: options.connect ?? connectWithClient,
    now: options.now ?? Date.now,
  };
  const outcome: { code: number } = { code: EXIT.ok };
  const onSignal = (): void => {
    interrupt.abort();
    context.stdin.destroy(); // A command that waits for input waits no longer.
  };
  // The server has its own handling of signals, which drains.
  const isClient = argv[0] !== 'serve';
  if (isClient) for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const help: string[] = [];
    const program = build(context, outcome, (text) => help.push(text));
    try {
      await program.parseAsync([...argv], { from: 'user' });
    } finally {
      if (help.length > 0) await context.out.write(help.join(''));
    }
  } catch (error) {
    outcome.code = await explainEnd(error, context);
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
  return interrupt.signal.aborted ? EXIT.interrupted : outcome.code;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function build(context: Context, outcome: { code: number }, print: (text: string) => void): Command {
  const program = new Command('broker')
    .description('A message broker: durable before it acknowledges, ids 1, 2, 3, … in each subject, none given twice.')
    .version(VERSION, '-V, --version', 'print the version')
    .addHelpText('after', AFTER_HELP)
    .helpCommand(false);
  program.addCommand(serveCommand(context, outcome));
  program.addCommand(publishCommand(context));
  program.addCommand(subscribeCommand(context));
  program.addCommand(fetchCommand(context));
  program.addCommand(statusCommand(context));
  program.addCommand(subjectsCommand(context));
  program.addCommand(shardsCommand(context));
  program.addCommand(storeCommand(context));
  program.addCommand(clusterCommand(context));
  program.addCommand(backupCommand(context));
  program.addCommand(restoreCommand(context));
  program.addCommand(benchCommand(context));
  program.addCommand(configCommand(context));
  const prepare = (command: Command): void => {
    command
      .exitOverride()
      .configureOutput({ writeOut: print, writeErr: (text) => text.startsWith('Usage:') && print(text) });
    command.commands.forEach(prepare);
  };
  prepare(program);
  return program;
}

async function explainEnd(error: unknown, context: Context): Promise<ExitCode> {
  if (context.interrupt.aborted) return EXIT.interrupted;
  if (error instanceof OutputClosed) return EXIT.ok;
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT.ok;
    if (error.code === 'commander.help') return EXIT.usage; // No subcommand: its help says what there is.
    const message = error.message.replace(/^error: /, '').replace(/\n/g, ' ');
    return await complain(context, message, '`broker COMMAND --help` shows how it is used', EXIT.usage);
  }
  if (error instanceof ConfigError) {
    for (const problem of error.problems) await complain(context, problem, '', EXIT.usage);
    return EXIT.usage;
  }
  if (error instanceof CliError) return await complain(context, error.message, error.next, error.exitCode);
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return await complain(context, text, 'this is a defect of the command: please report it', EXIT.failed);
}

/** Errors that cannot be written either (stderr closed) are told by the exit code alone. */
async function complain(context: Context, message: string, next: string, code: ExitCode): Promise<ExitCode> {
  const lines = [`broker: ${message}`, ...(next === '' ? [] : [`  ${next}`])];
  await Promise.allSettled([context.notes.line(lines.join('\n'))]);
  return code;
}
