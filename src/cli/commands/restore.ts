import { Command, Option } from 'commander';
import { loadConfig } from '../../config/load.ts';
import type { Context } from '../context.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';
import { reportRecovery, withProgress } from '../recovery-report.ts';
import { floorOption, STORE_KEYS } from './cluster-recover.ts';

interface RestoreOptions {
  readonly from: string;
  readonly yes: boolean;
  readonly floor: number;
  readonly output: Format;
}

export function restoreCommand(context: Context): Command {
  const command = withFormat(new Command('restore'))
    .description(
      'Put a backup back, as the first node of a new cluster, into an empty data directory. Every subject goes on 2^20 ids behind the last one that backup or store know, ' +
        'so that what was given since is not given again. Of a broker with a database, put back its dump first. Without --yes it checks the backup and shows the plan.',
    )
    .usage('--from FOLDER --data-dir DIR --store STORE [options] [--key VALUE]…')
    .addOption(new Option('--from <folder>', 'what `broker backup` made').makeOptionMandatory())
    .option('--yes', 'do it; processes that still run on the database end', false)
    .addOption(floorOption())
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async ({ from, yes, floor, output }: RestoreOptions) => {
      const { config } = loadConfig({ argv: command.args, environment: context.environment });
      const summary = await withProgress(context, (onProgress) =>
        context.recovery.restore({ config, from, apply: yes, floor, interrupt: context.interrupt, onProgress }),
      );
      await reportRecovery(context, summary, output);
    });
  example(
    command,
    'broker restore --from ./backup-1 --data-dir ./data-new --yes',
    'BROKER_POSTGRES_URL=postgres://broker@db/broker broker restore --from ./backup-1 --data-dir ./data-new --store postgres --yes',
  );
  return command.addHelpText('after', STORE_KEYS);
}
