/** The token that commands show, for every command that connects to a broker. */
import type { Command } from 'commander';
import type { Environment } from '../config/environment.ts';
import { readSecretFile } from '../config/secret-file.ts';
import { usageError } from './failure.ts';

export interface TokenFlags {
  readonly tokenFile?: string;
}

export function withToken(command: Command): Command {
  return command.option(
    '--token-file <file>',
    'file with the bearer token that says who you are (default: the variable BROKER_TOKEN, or the file that BROKER_TOKEN_FILE names). There is no flag for the token itself: every user of the machine sees the flags of a process',
  );
}

/** Undefined: none is shown. Throws a usage error, which does not tell the token. */
export function tokenOf(environment: Environment, { tokenFile }: TokenFlags): string | undefined {
  if (tokenFile !== undefined) return fromFile('--token-file', tokenFile);
  const { BROKER_TOKEN: token, BROKER_TOKEN_FILE: file } = environment;
  if (token && file) throw usageError('BROKER_TOKEN and BROKER_TOKEN_FILE: only one of them may be given');
  if (file) return fromFile('BROKER_TOKEN_FILE', file);
  return token || undefined;
}

function fromFile(option: string, path: string): string {
  try {
    return readSecretFile(path).trim();
  } catch (error) {
    throw usageError(`${option} ${path}: cannot be read: ${(error as Error).message}`);
  }
}
