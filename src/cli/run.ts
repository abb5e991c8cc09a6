/** The `broker` command: finds the subcommand, runs it, and turns how it ended into an exit code and at most two lines on stderr. */

import type { Writable } from 'node:stream';
import { Command, CommanderError } from 'commander';
import { VERSION } from '../base/version.ts';
import { ConfigError } from '../config/config-error.ts';
import { processEnvironment } from '../config/environment.ts';
import { connectWithClient } from './client-connection.ts';
import type { Context } from './context.ts';
import { CHECK_UNKNOWN, CliError, EXIT, type ExitCode } from './failure.ts';
import { Output, OutputClosed } from './output.ts';

export interface RunOptions {
  readonly serve: Context['serve'];
  readonly copyStore: Context['copyStore'];
  readonly recovery: Context['recovery'];
  readonly connect?: Context['connect'];
  readonly environment?: Context['environment'];
  readonly stdin?: Context['stdin'];
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
    const program = await build(argv[0], context, outcome, (text) => help.push(text));
    try {
      await program.parseAsync([...argv], { from: 'user' });
    } finally {
      if (help.length > 0) await context.out.write(help.join(''));
    }
  } catch (error) {
    const code = await explainEnd(error, context);
    // Monitoring reads the codes of `check` by other rules: what kept it from judging is unknown, not critical.
    outcome.code = argv[0] === 'check' && code !== EXIT.ok ? CHECK_UNKNOWN : code;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
  return interrupt.signal.aborted ? EXIT.interrupted : outcome.code;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

type MakeCommand = (context: Context, outcome: { code: number }) => Command;

/** In the order of the help. Only the one that is asked for is loaded: a probe is made every few seconds and must cost little. */
const COMMANDS: Readonly<Record<string, () => Promise<MakeCommand>>> = {
  serve: async () => (await import('./commands/serve.ts')).serveCommand,
  publish: async () => (await import('./commands/publish.ts')).publishCommand,
  subscribe: async () => (await import('./commands/subscribe.ts')).subscribeCommand,
  fetch: async () => (await import('./commands/fetch.ts')).fetchCommand,
  status: async () => (await import('./commands/status.ts')).statusCommand,
  top: async () => (await import('./commands/top.ts')).topCommand,
  check: async () => (await import('./commands/check.ts')).checkCommand,
  health: async () => (await import('./commands/health.ts')).healthCommand,
  subjects: async () => (await import('./commands/subjects.ts')).subjectsCommand,
  shards: async () => (await import('./commands/shards.ts')).shardsCommand,
  quotas: async () => (await import('./commands/quotas.ts')).quotasCommand,
  store: async () => (await import('./commands/store.ts')).storeCommand,
  cluster: async () => (await import('./commands/cluster.ts')).clusterCommand,
  access: async () => (await import('./commands/access.ts')).accessCommand,
  verify: async () => (await import('./commands/verify.ts')).verifyCommand,
  backup: async () => (await import('./commands/backup.ts')).backupCommand,
  restore: async () => (await import('./commands/restore.ts')).restoreCommand,
  bench: async () => (await import('./commands/bench.ts')).benchCommand,
  certs: async () => (await import('./commands/certs.ts')).certsCommand,
  debug: async () => (await import('./commands/debug.ts')).debugCommand,
  config: async () => (await import('./commands/config.ts')).configCommand,
};

async function build(
  name: string | undefined,
  context: Context,
  outcome: { code: number },
  print: (text: string) => void,
): Promise<Command> {
  const program = new Command('broker')
    .description('A message broker: durable before it acknowledges, ids 1, 2, 3, … in each subject, none given twice.')
    .version(VERSION, '-V, --version', 'print the version')
    .addHelpText('after', AFTER_HELP)
    .helpCommand(false);
  const isKnown = name !== undefined && Object.hasOwn(COMMANDS, name);
  for (const command of isKnown ? [name] : Object.keys(COMMANDS)) {
    const make = await COMMANDS[command]?.();
    if (make !== undefined) program.addCommand(make(context, outcome));
  }
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
