import { Command } from 'commander';
import { loadConfig } from '../../config/load.ts';
import type { Context } from '../context.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';

export function configCommand(context: Context): Command {
  const command = new Command('config').description('Show or check the configuration that `serve` would run with.');
  return command.addCommand(printCommand(context)).addCommand(checkCommand(context));
}

function printCommand(context: Context): Command {
  const command = withFormat(new Command('print'))
    .description('Print every key and its value; takes the flags of `serve`, the variables and the file.')
    .usage('[options] [--key VALUE]…')
    .option('--origins', 'say where each value comes from')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: { output: Format; origins?: true }) => {
      const { rows } = loadConfig({ argv: command.args, environment: context.environment });
      const shown = rows.map(({ key, value, origin }) => ({
        key,
        value,
        ...(options.origins === true
          ? { origin: origin.source, place: origin.place === '' ? null : origin.place }
          : {}),
      }));
      const columns = options.origins === true ? ['key', 'value', 'origin', 'place'] : ['key', 'value'];
      await context.out.rows(shown, columns, options.output);
    });
  return example(command, 'broker config print --origins --shards 4');
}

function checkCommand(context: Context): Command {
  const command = withFormat(new Command('check'))
    .description('Check flags, variables and file; exit code 2 and one line for each problem.')
    .usage('[options] [--key VALUE]…')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: { output: Format }) => {
      const { rows, file } = loadConfig({ argv: command.args, environment: context.environment });
      const set = rows.filter((row) => row.origin.source !== 'default').length;
      await context.out.record({ valid: true, keys_set: set, file }, options.output);
    });
  return example(command, 'broker config check --config broker.yaml');
}
