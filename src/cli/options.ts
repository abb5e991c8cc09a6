/** Options that several commands share. */
import { type Command, Option } from 'commander';
import type { Connection } from './connection.ts';
import type { Context } from './context.ts';
import type { Format } from './output.ts';
import { parseAddress, parseFormat, parseTimeout } from './parse.ts';

export const ADDRESS_DEFAULT = '127.0.0.1:8081';

export interface ClientOptions {
  readonly address?: string;
  readonly timeout: number;
  readonly output: Format;
}

export function withFormat(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <format>', 'table for people, json for programs (one object a line)')
      .argParser(parseFormat)
      .default('table'),
  );
}

/** For commands that talk to a broker. */
export function withClient(command: Command): Command {
  return withFormat(command)
    .option('--address <host:port>', `the broker's gRPC address (default: BROKER_ADDRESS, else ${ADDRESS_DEFAULT})`)
    .addOption(
      new Option('--timeout <duration>', 'longest wait for an answer').argParser(parseTimeout).default(10_000, '10s'),
    );
}

/** Runs `work` with a connection and closes it afterwards, however it ends. */
export async function withConnection(
  context: Context,
  options: ClientOptions,
  work: (connection: Connection) => Promise<void>,
): Promise<void> {
  const address = options.address ?? (context.environment.BROKER_ADDRESS || ADDRESS_DEFAULT);
  parseAddress(address);
  const connection = context.connect({ address, timeoutMs: options.timeout, interrupt: context.interrupt });
  try {
    await work(connection);
  } finally {
    connection.close();
  }
}

/** Help that ends with a command that works as it stands. */
export function example(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText('after', `\nExample:\n${lines.map((line) => `  $ ${line}`).join('\n')}`);
}
