import { Command } from 'commander';
import type { Context } from '../context.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';

export function statusCommand(context: Context): Command {
  const command = withClient(new Command('status'))
    .description('What a broker says of itself: who it is, what it holds, how it is.')
    .action(async (options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const { warnings, ...status } = await connection.status();
        await context.out.record({ ...status, warnings: warnings.join('; ') }, options.output);
      });
    });
  return example(command, 'broker status -o json');
}
