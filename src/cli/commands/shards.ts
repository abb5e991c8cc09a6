import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { shownName, slotOfSubject } from '../../base/subject-space.ts';
import type { Connection, ShardRow, ShardsChange } from '../connection.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import type { Row } from '../output.ts';
import { parsePositive } from '../parse.ts';
import { counted } from '../top/text.ts';

/** What the columns say; `-o json` has the hottest subjects of each shard, up to five, as `hot_subjects`. */
const LEGEND = `
Columns, as averages of the last ten seconds:
  busy        share of the time in which the thread had something to do (1: all of it)
  store_busy  share of the time in which a write to the store was on its way
  messages_s  messages a second
  wait_ms     how long a request waited for its shard
  write_ms    how long the write of one group took
  group       messages of one group
  hot         the subject with the most messages, its share of them, and its slot
-o json has hot_subjects in place of hot: up to five, each with its share and slot.`;

const COLUMNS = [
  'shard',
  'slots',
  'serving',
  'busy',
  'store_busy',
  'messages_s',
  'wait_ms',
  'write_ms',
  'group',
  'hot',
];
/** How often a change that is under way is asked after, in ms. */
const WATCH_MS = 200;

export function shardsCommand(context: Context): Command {
  const command = new Command('shards').description(
    'The shard threads of a node: what each is busy with, how many would be best, and changing their number while it runs.',
  );
  return command
    .addCommand(listCommand(context))
    .addCommand(resizeCommand(context))
    .addCommand(moveCommand(context))
    .addCommand(adviseCommand(context));
}

function listCommand(context: Context): Command {
  const command = withClient(new Command('list'))
    .description('The shards, with the averages of the last ten seconds. Shares are of 1.')
    .action(async (options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const { shards, change } = await connection.listShards();
        if (options.output === 'json') for (const shard of shards) await context.out.json(jsonOf(shard));
        else await context.out.rows(shards.map(toRow), COLUMNS, options.output);
        if (change.running) await context.notes.line(`broker: ${progressOf(change)}`);
      });
    });
  command.addHelpText('after', LEGEND);
  return example(command, 'broker shards list', 'broker shards list -o json');
}

function resizeCommand(context: Context): Command {
  const command = withClient(new Command('resize'))
    .description('Change the number of shards. Nothing stored moves; subjects pause for some milliseconds each.')
    .argument('<shards>', '1 to shards.max', (text: string) => parsePositive(text, '<shards>'))
    .option('--no-wait', 'return when the change has begun; `broker shards list` shows how it goes')
    .action(async (shards: number, options: ClientOptions & { wait: boolean }) => {
      await withConnection(context, options, async (connection) => {
        const change = await connection.resizeShards(shards);
        await finish(context, connection, change, options);
      });
    });
  return example(command, 'broker shards resize 4');
}

function moveCommand(context: Context): Command {
  const command = withClient(new Command('move'))
    .description(
      'Give one slot, with all its subjects, to another shard. `broker subjects info` says in which slot a subject is.',
    )
    .argument('<slot>', '0 to 1023', (text: string) => parseNumber(text, '<slot>'))
    .argument('<shard>', 'one that `broker shards list` shows', (text: string) => parseNumber(text, '<shard>'))
    .action(async (slot: number, shard: number, options: ClientOptions) => {
      await withConnection(context, options, async (connection) => {
        const change = await connection.moveSlot(slot, shard);
        await finish(context, connection, change, { ...options, wait: true });
      });
    });
  return example(command, 'broker shards move 7 0');
}

function adviseCommand(context: Context): Command {
  const command = withClient(new Command('advise'))
    .description('How many shards would serve the present load best, why, and what to expect.')
    .option('--apply', 'resize to that number', false)
    .action(async (options: ClientOptions & { apply: boolean }) => {
      await withConnection(context, options, async (connection) => {
        const { advice, shards } = await connection.adviseShards();
        if (options.output === 'json') await context.out.json({ ...advice, measured: shards.map(jsonOf) });
        else {
          await context.out.record(advice, options.output);
          await context.out.rows(shards.map(toRow), COLUMNS, options.output);
        }
        if (!options.apply || advice.recommended === advice.shards) return;
        const change = await connection.resizeShards(advice.recommended);
        await finish(context, connection, change, { ...options, wait: true });
      });
    });
  command.addHelpText('after', LEGEND);
  return example(command, 'broker shards advise', 'broker shards advise --apply');
}

/** Waits for the end of a change, with progress on a terminal, and says how it went. */
async function finish(
  context: Context,
  connection: Connection,
  begun: ShardsChange,
  options: ClientOptions & { readonly wait: boolean },
): Promise<void> {
  let change = begun;
  while (change.running && options.wait && !context.interrupt.aborted) {
    if (context.notes.isTerminal) await context.notes.write(`\r\u001b[K${progressOf(change)}`);
    await sleep(WATCH_MS, undefined, { signal: context.interrupt }).catch(() => undefined);
    change = (await connection.listShards()).change;
  }
  if (context.notes.isTerminal && options.wait) await context.notes.write('\r\u001b[K');
  if (change.error !== '') {
    throw new CliError(
      EXIT.failed,
      `${change.what}: ended early: ${change.error}`,
      'what was moved stays; the same command goes on from there',
    );
  }
  await context.out.record(
    {
      change: change.what,
      running: change.running,
      slots_moved: change.slotsMoved,
      pause_ms_max: rounded(change.pauseMsMax),
      ms: Math.round(change.durationMs),
    },
    options.output,
  );
}

function progressOf({ what, slotsMoved, slotsTotal }: ShardsChange): string {
  return `${what}: ${slotsMoved} of ${counted(slotsTotal, 'slot')} moved`;
}

function toRow(shard: ShardRow): Row {
  const [hottest] = shard.hotSubjects;
  const { share = 0 } = hottest ?? {};
  return {
    ...figuresOf(shard),
    hot: hottest === undefined ? null : `${shownName(hottest)} ${Math.round(share * 100)}% (slot ${slotOf(hottest)})`,
  };
}

/** For programs: all hot subjects. */
function jsonOf(shard: ShardRow) {
  const hot = shard.hotSubjects.map((one) => ({
    subject: one.subject,
    tenant: one.tenant,
    share: rounded(one.share),
    slot: slotOf(one),
  }));
  return { ...figuresOf(shard), hot_subjects: hot };
}

function figuresOf(shard: ShardRow) {
  return {
    shard: shard.shard,
    slots: shard.slots,
    serving: shard.serving,
    busy: rounded(shard.utilization),
    store_busy: rounded(shard.storeBusy),
    messages_s: Math.round(shard.messagesPerSecond),
    wait_ms: rounded(shard.queueWaitMs),
    write_ms: rounded(shard.storeWriteMs),
    group: rounded(shard.groupMessages),
  };
}

function slotOf({ subject, tenant }: ShardRow['hotSubjects'][number]): number {
  return slotOfSubject(subject, tenant);
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

function parseNumber(text: string, name: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw usageError(`${name} ${text}: must be a whole number from 0`);
}
