/** Options that several commands share. */
import { type Command, Option } from 'commander';
import { ADDRESS_DEFAULT, readAddress } from '../client/index.ts';
import type { Connection } from './connection.ts';
import type { Context } from './context.ts';
import type { Format } from './output.ts';
import { parseAddress, parseFormat, parseTenant, parseTimeout } from './parse.ts';
import { type TlsFlags, tlsOf, withTls } from './tls.ts';
import { type TokenFlags, tokenOf, withToken } from './token.ts';

export interface ClientOptions extends TlsFlags, TokenFlags {
  readonly address?: string;
  readonly tenant?: string;
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
  return withToken(withTls(withFormat(command)))
    .option(
      '--address <host:port>',
      `the broker's gRPC address, or several of one cluster with commas (default: BROKER_ADDRESS, else ${ADDRESS_DEFAULT})`,
    )
    .addOption(
      new Option('--tenant <name>', 'whose calls these are, for quotas (default: default)').argParser(parseTenant),
    )
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
  const addresses = addressesOf(context, options);
  const { timeout: timeoutMs, tenant } = options;
  const tls = tlsOf(context.environment, options, addresses);
  const token = tokenOf(context.environment, options);
  const connection = context.connect({ addresses, tenant, timeoutMs, tls, token, interrupt: context.interrupt });
  try {
    await work(connection);
  } finally {
    await connection.close();
  }
}

export function addressesOf(context: Context, options: Pick<ClientOptions, 'address'>): readonly string[] {
  const text = options.address ?? (context.environment.BROKER_ADDRESS || ADDRESS_DEFAULT);
  const addresses = text.split(',').map((address) => address.trim());
  for (const address of addresses) parseAddress(readAddress(address).address);
  return addresses;
}

/** Help that ends with a command that works as it stands. */
export function example(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText('after', `\nExample:\n${lines.map((line) => `  $ ${line}`).join('\n')}`);
}
