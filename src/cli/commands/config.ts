import { Command } from 'commander';
import { ConfigError, type LoadedConfig, loadConfig } from '../../config/load.ts';
import { preflight } from '../../config/preflight.ts';
import type { Context } from '../context.ts';
import { EXIT } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection, withFormat } from '../options.ts';
import type { Format } from '../output.ts';

export function configCommand(context: Context, outcome: { code: number }): Command {
  const command = new Command('config').description(
    'The configuration: what `serve` would run with, what a running node runs with, and changing what needs no restart.',
  );
  return command
    .addCommand(printCommand(context))
    .addCommand(checkCommand(context, outcome))
    .addCommand(showCommand(context))
    .addCommand(setCommand(context));
}

function printCommand(context: Context): Command {
  const command = withFormat(new Command('print'))
    .description('Print every key and its value; takes the flags of `serve`, the variables and the file.')
    .usage('[options] [--key VALUE]…')
    .option('--origins', 'say where each value comes from')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: { output: Format; origins?: true }) => {
      const { rows, warnings } = loadConfig({ argv: command.args, environment: context.environment });
      await warn(context, warnings);
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

async function warn(context: Context, warnings: readonly string[]): Promise<void> {
  for (const warning of warnings) await context.notes.line(`broker: warning: ${warning}`);
}

function checkCommand(context: Context, outcome: { code: number }): Command {
  const command = withFormat(new Command('check'))
    .description(
      'Check flags, variables and file, and what they name: files, the data directory, ports. Nothing is started or written. Exit code 2 and one line for each problem.',
    )
    .usage('[options] [--key VALUE]…')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: { output: Format }) => {
      const { loaded, problems, warnings } = checked(command.args, context);
      if (problems.length > 0) outcome.code = EXIT.usage;
      if (options.output === 'table' && problems.length > 0) throw new ConfigError(problems);
      const set = (loaded?.rows ?? []).filter((row) => row.origin.source !== 'default').length;
      const found = { valid: problems.length === 0, keys_set: set, file: loaded?.file ?? null };
      if (options.output === 'json') return await context.out.json({ ...found, problems, warnings });
      await warn(context, warnings);
      await context.out.record({ ...found, warnings: warnings.length }, options.output);
    });
  return example(command, 'broker config check --config broker.yaml');
}

interface Checked {
  /** Null if it could not be read as a whole. */
  readonly loaded: LoadedConfig | null;
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

function checked(argv: readonly string[], context: Context): Checked {
  try {
    const loaded = loadConfig({ argv, environment: context.environment });
    return { loaded, ...preflight(loaded) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { loaded: null, problems: error.problems, warnings: [] };
  }
}

const SHOWN = ['key', 'value', 'origin', 'place', 'live'];

function showCommand(context: Context): Command {
  const command = withClient(new Command('show'))
    .description(
      'What a running node runs with, and where each value comes from. What is `live` can be changed with `broker config set`.',
    )
    .option('--set', 'only what is not left at its default')
    .option('--live', 'only what can be changed without a restart')
    .action(async (options: ClientOptions & { set?: true; live?: true }) => {
      await withConnection(context, options, async (connection) => {
        const settings = await connection.settings();
        const rows = settings
          .filter(({ origin }) => options.set !== true || origin !== 'default')
          .filter(({ live }) => options.live !== true || live)
          .map(({ key, value, origin, place, live }) => ({
            key,
            value,
            origin,
            place: place === '' ? null : place,
            live,
          }));
        await context.out.rows(rows, SHOWN, options.output);
      });
    });
  return example(command, 'broker config show --set', 'broker config show -o json');
}

function setCommand(context: Context): Command {
  const command = withClient(new Command('set'))
    .description(
      'Change a setting of the node that is connected to, without a restart. It holds until the node is started again or gets SIGHUP: what shall stay belongs into the file.',
    )
    .argument('<key>', 'one that `broker config show --live` lists')
    .argument('<value>', 'as in a flag')
    .action(async (key: string, value: string, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const setting = await connection.changeSetting(key, value);
        await context.out.record({ key: setting.key, value: setting.value, origin: setting.origin }, options.output);
      });
    });
  return example(command, 'broker config set log.level debug');
}
