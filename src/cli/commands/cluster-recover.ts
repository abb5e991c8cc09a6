import { Command, Option } from 'commander';
import { loadConfig } from '../../config/load.ts';
import type { Context } from '../context.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';
import { parseFloor } from '../parse.ts';
import { reportRecovery, withProgress } from '../recovery-report.ts';

interface RecoverOptions {
  readonly yes: boolean;
  readonly discardState: boolean;
  readonly floor: number;
  readonly output: Format;
}

export function recoverCommand(context: Context): Command {
  const command = withFormat(new Command('recover'))
    .description(
      'Make new Raft state for messages that the store still has: the data directory, or most nodes of the cluster, are lost for ever. It is a new cluster, whose first node ' +
        'starts in this data directory; every subject goes on 2^20 ids behind its last one, so that no id is given twice. Without --yes it shows the plan.',
    )
    .usage('--data-dir DIR --store STORE [options] [--key VALUE]…')
    .option('--yes', 'do it; processes that still run on the database end', false)
    .option('--discard-state', 'also if the directory has Raft state: its heads are taken over, it is put aside', false)
    .addOption(floorOption())
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: RecoverOptions) => {
      const { config } = loadConfig({ argv: command.args, environment: context.environment });
      const { yes, discardState, floor, output } = options;
      const summary = await withProgress(context, (onProgress) =>
        context.recovery.recover({ config, apply: yes, discardState, floor, interrupt: context.interrupt, onProgress }),
      );
      await reportRecovery(context, summary, output);
    });
  example(
    command,
    'BROKER_POSTGRES_URL=postgres://broker@db/broker broker cluster recover --data-dir ./data --store postgres',
    'BROKER_POSTGRES_URL=postgres://broker@db/broker broker cluster recover --data-dir ./data --store postgres --yes',
    'broker cluster recover --data-dir ./data --store embedded --yes -o json',
  );
  return command.addHelpText('after', STORE_KEYS);
}

/** Shared with `restore`. */
export function floorOption(): Option {
  return new Option(
    '--floor <id>',
    'no subject is given an id up to this one: for subjects all of whose messages have expired',
  )
    .argParser(parseFloor)
    .default(0);
}

export const STORE_KEYS =
  '\nWhat the store needs (postgres.url, cassandra.contact_points, …) is read as `serve` reads it: from flags, BROKER_* variables, or --config FILE.';
