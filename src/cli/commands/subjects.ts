import { Command } from 'commander';
import { slotOfSubject } from '../../base/subject-space.ts';
import type { SubjectInfo } from '../../client/index.ts';
import type { Context } from '../context.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import type { Row } from '../output.ts';
import { parsePositive } from '../parse.ts';

const COLUMNS = ['subject', 'first', 'settled', 'head'];

export function subjectsCommand(context: Context): Command {
  const command = new Command('subjects').description('List, look at and trim subjects.');
  return command.addCommand(listCommand(context)).addCommand(infoCommand(context)).addCommand(trimCommand(context));
}

/** `tenant` is there for a subject in a space only. */
function toRow({ tenant, subject, first, settled, head }: SubjectInfo): Row {
  const row = { subject, first, settled, head };
  return tenant === '' ? row : { tenant, ...row };
}

function listCommand(context: Context): Command {
  const command = withClient(new Command('list'))
    .description('Subjects and their ids: first kept, settled up to, last given.')
    .option('--prefix <text>', 'only subjects that begin with this', '')
    .option('--limit <n>', 'at most so many', (text: string) => parsePositive(text, '--limit'), 1_000)
    .action(async (options: ClientOptions & { prefix: string; limit: number }) => {
      await withConnection(context, options, async (connection) => {
        const rows: Row[] = [];
        let isCut = false;
        for await (const info of connection.listSubjects(options.prefix)) {
          isCut = rows.length === options.limit;
          if (isCut || context.interrupt.aborted) break;
          rows.push(toRow(info));
        }
        const hasTenants = rows.some(({ tenant }) => tenant !== undefined);
        await context.out.rows(rows, hasTenants ? ['tenant', ...COLUMNS] : COLUMNS, options.output);
        if (isCut) await context.notes.line(`broker: there are more than ${options.limit}; --limit shows more`);
      });
    });
  return example(command, 'broker subjects list --prefix orders.');
}

function infoCommand(context: Context): Command {
  const command = withClient(new Command('info'))
    .description('One subject: its ids, and the slot that `broker shards move` takes.')
    .argument('<subject>', 'such as orders.eu')
    .action(async (subject: string, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const info = await connection.subjectInfo(subject);
        await context.out.record({ ...toRow(info), slot: slotOfSubject(subject, info.tenant) }, options.output);
      });
    });
  return example(command, 'broker subjects info orders.eu -o json');
}

function trimCommand(context: Context): Command {
  const command = withClient(new Command('trim'))
    .description('Give up all messages of a subject below an id, for ever. Their space is freed by and by.')
    .argument('<subject>', 'such as orders.eu')
    .requiredOption('--before <id>', 'the first id to keep', (text: string) => parsePositive(text, '--before'))
    .action(async (subject: string, options: ClientOptions & { before: number }) => {
      await withConnection(context, options, async (connection) => {
        await context.out.record(toRow(await connection.trim(subject, options.before)), options.output);
      });
    });
  return example(command, 'broker subjects trim orders.eu --before 100');
}
