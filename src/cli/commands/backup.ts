import { Command, Option } from 'commander';
import { loadConfig } from '../../config/load.ts';
import type { Context } from '../context.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';
import { withProgress } from '../recovery-report.ts';

export function backupCommand(context: Context): Command {
  const command = withFormat(new Command('backup'))
    .description(
      'Copy the ids, and with the embedded store the messages, of a broker that does not run into a folder, with checksums. The messages of a database are copied by its own ' +
        'tools, and before: dump the database first, then run this.',
    )
    .usage('--data-dir DIR --to FOLDER [options]')
    .addOption(new Option('--to <folder>', 'an empty folder, or one that is not there yet').makeOptionMandatory())
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async ({ to, output }: { readonly to: string; readonly output: Format }) => {
      const { config } = loadConfig({ argv: command.args, environment: context.environment });
      const summary = await withProgress(context, (onProgress) =>
        context.recovery.backup({ config, to, interrupt: context.interrupt, onProgress }),
      );
      const { store, files, bytes, subjects, producers, logIndex, logTime } = summary;
      const row = {
        to,
        store,
        files,
        bytes,
        subjects,
        producers,
        log_index: logIndex,
        log_time: new Date(logTime).toISOString(),
      };
      await context.out.record(row, output);
      if (store === 'embedded') return;
      await context.notes.line(
        'broker: the messages are in the database: this backup goes with a dump of it that was begun before',
      );
    });
  return example(
    command,
    'broker backup --data-dir ./data --to ./backup-1',
    'broker backup --data-dir ./data --to ./backup-1 -o json',
  );
}
