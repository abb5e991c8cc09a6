import { Command } from 'commander';
import type { Context } from '../context.ts';
import { usageError } from '../failure.ts';
import { messageToJson } from '../message.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { parsePositive, parseStart } from '../parse.ts';

interface SubscribeOptions extends ClientOptions {
  readonly from: string;
  readonly count?: number;
  readonly broadcasts?: true;
}

export function subscribeCommand(context: Context): Command {
  const command = withClient(new Command('subscribe'))
    .description('Print messages as they come, one body a line, until Ctrl-C.')
    .argument('<subject...>', 'such as orders.eu; patterns: * stands for one token, > at the end for one or more')
    .option('--from <start>', 'new, earliest, an id, a time (2026-05-01T12:00:00Z) or how long ago (15m)', 'new')
    .option('--broadcasts', 'broadcasts too, which are not stored and have the id 0 (a single subject only)')
    .option('--count <n>', 'stop after this many messages', (text: string) => parsePositive(text, '--count'))
    .action(async (subjects: string[], options: SubscribeOptions) => {
      const start = parseStart(options.from, context.now());
      if (options.broadcasts === true && (subjects.length > 1 || /(^|\.)[*>](\.|$)/.test(subjects[0] ?? ''))) {
        throw usageError('--broadcasts: only with a single subject, without wildcards');
      }
      await withConnection(context, options, async (connection) => {
        let count = 0;
        for await (const message of connection.subscribe(subjects, start, options.broadcasts === true)) {
          if (options.output === 'json') await context.out.json(messageToJson(message));
          else await context.out.write(Buffer.concat([message.body, NEWLINE]));
          count += 1;
          if (count === options.count) break;
        }
      });
    });
  return example(command, 'broker subscribe orders.eu --from earliest --count 10 -o json');
}

const NEWLINE = Buffer.from('\n');
