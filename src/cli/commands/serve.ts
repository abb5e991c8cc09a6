import { Command } from 'commander';
import { formatKeysForHelp } from '../../config/document.ts';
import { loadConfig } from '../../config/load.ts';
import type { Context } from '../context.ts';
import { example } from '../options.ts';

/** Checks the whole configuration before anything of the server is loaded: a wrong one touches no file and opens no port. */
export function serveCommand(context: Context, outcome: { code: number }): Command {
  const command = new Command('serve')
    .description('Run a broker until SIGTERM or Ctrl-C (a second one ends it at once).')
    .usage('[--key VALUE]…')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async () => {
      outcome.code = await context.serve(loadConfig({ argv: command.args, environment: context.environment }));
    });
  example(command, 'broker serve --data-dir ./data --grpc-listen 127.0.0.1:8081');
  return command.addHelpText('after', () => `\n${formatKeysForHelp()}`);
}
