import { Command } from 'commander';
import type { Context } from '../context.ts';
import { messageToJson } from '../message.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { parsePositive } from '../parse.ts';

export function fetchCommand(context: Context): Command {
  const command = withClient(new Command('fetch'))
    .description('Print one message: the bytes of its body as they are (and a line break on a terminal).')
    .argument('<subject>', 'such as orders.eu')
    .argument('<id>', 'the id that its publish answered', (text: string) => parsePositive(text, 'ID'))
    .action(async (subject: string, id: number, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const message = await connection.fetch(subject, id);
        if (options.output === 'json') return await context.out.json(messageToJson(message));
        await context.out.write(message.body);
        if (context.out.isTerminal) await context.out.write('\n');
      });
    });
  return example(command, 'broker fetch orders.eu 1 -o json');
}
