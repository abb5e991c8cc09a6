import { Command } from 'commander';
import type { Tenants } from '../../client/index.ts';
import {
  formatLimits,
  formatQuotaRules,
  NO_RULES,
  nameOf,
  parseQuotaLimits,
  parseQuotaName,
  parseQuotaRules,
  type QuotaRule,
} from '../../config/quota-rules.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import type { Row } from '../output.ts';
import { parsePositive } from '../parse.ts';

const USAGE = ['tenant', 'prefix', 'messages_s', 'messages_s_max', 'bytes_s', 'bytes_s_max'];
const TOTALS = ['messages', 'bytes', 'refused', 'shrunk'];
const LIMIT = 100;

export function quotasCommand(context: Context): Command {
  return new Command('quotas')
    .description('What tenants publish and what they may: messages and bytes a second.')
    .addCommand(listCommand(context))
    .addCommand(setCommand(context))
    .addCommand(removeCommand(context));
}

const KEY = 'quotas.rules';
const NAME = 'a tenant, or "*" for all that have no rule of their own; with "/" and a prefix: of its subjects';
const ONE_NODE =
  'Of the node that is connected to, until it is started again or gets SIGHUP: what shall stay belongs into the file, the same on all nodes.';

function setCommand(context: Context): Command {
  const command = withClient(new Command('set'))
    .description(`Give a tenant a quota, in force at once. ${ONE_NODE}`)
    .argument('<tenant>', NAME)
    .argument('<limits...>', 'such as 100msg/s, 1MiB/s, both, or unlimited; for all nodes together')
    .action(async (name: string, limits: readonly string[], options: ClientOptions) => {
      const rate = parseQuotaLimits(limits.join(' '));
      if (typeof rate === 'string') throw usageError(`${limits.join(' ')}: ${rate}`);
      await change(context, options, name, (rules, named) => [...rules, { ...named, ...rate }]);
    });
  return example(command, 'broker quotas set acme 1000msg/s 1MiB/s', "broker quotas set '*' 100msg/s");
}

function removeCommand(context: Context): Command {
  const command = withClient(new Command('remove'))
    .description(`Take the quota of a tenant away, at once. ${ONE_NODE}`)
    .argument('<tenant>', NAME)
    .action(async (name: string, options: ClientOptions) => {
      await change(context, options, name, (rules) => rules);
    });
  return example(command, 'broker quotas remove acme');
}

type Named = Pick<QuotaRule, 'tenant' | 'prefix'>;

/** `next` makes the new rules of those for other names. */
async function change(
  context: Context,
  options: ClientOptions,
  name: string,
  next: (others: readonly QuotaRule[], named: Named) => readonly QuotaRule[],
): Promise<void> {
  const named = parseQuotaName(name);
  if (typeof named === 'string') throw usageError(`${name}: ${named}`);
  await withConnection(context, options, async (connection) => {
    const before = (await connection.settings()).find(({ key }) => key === KEY);
    const rules = before === undefined || before.value === NO_RULES ? [] : parseQuotaRules(before.value);
    if (typeof rules === 'string') throw new CliError(EXIT.failed, `${KEY} of the broker: ${rules}`, '');
    const others = rules.filter((rule) => nameOf(rule) !== nameOf(named));
    const changed = next(others, named);
    const setting = await connection.changeSetting(KEY, changed.length === 0 ? NO_RULES : formatQuotaRules(changed));
    await context.out.record({ key: setting.key, value: setting.value, origin: setting.origin }, options.output);
  });
}

function listCommand(context: Context): Command {
  const command = withClient(new Command('list'))
    .description(
      "Tenants that the node has met, the busiest first: rates of the last seconds, this node's share of their quotas (- = not limited), what was refused and what had to wait.",
    )
    .option('--limit <n>', 'rows, up to 1,000', (text: string) => parsePositive(text, '--limit'), LIMIT)
    .action(async (options: ClientOptions & { readonly limit: number }) => {
      await withConnection(context, options, async (connection) => {
        const answer = await connection.tenants(options.limit);
        await context.out.rows(answer.tenants.map(toRow), [...USAGE, ...TOTALS], options.output);
        await context.notes.line(`broker: ${rulesInWords(answer)}`);
      });
    });
  return example(command, 'broker quotas list', 'broker quotas list -o json');
}

function rulesInWords({ quotas, nodes }: Tenants): string {
  if (quotas.length === 0) return 'nothing is metered: quotas.rules is empty';
  const rules = quotas.map(({ tenant, subjectPrefix: prefix, messagesPerSecond, bytesPerSecond }) => {
    const rule = { tenant, prefix, messagesPerSecond, bytesPerSecond };
    return `${nameOf(rule)}=${formatLimits(rule)}`;
  });
  return `${rules.join(', ')}${nodes > 1 ? `, divided between ${nodes} nodes` : ''}`;
}

function toRow(usage: Tenants['tenants'][number]): Row {
  return {
    tenant: usage.tenant,
    prefix: usage.subjectPrefix === '' ? null : usage.subjectPrefix,
    messages_s: rounded(usage.messagesPerSecond),
    messages_s_max: usage.messagesPerSecondMax === 0 ? null : rounded(usage.messagesPerSecondMax),
    bytes_s: Math.round(usage.bytesPerSecond),
    bytes_s_max: usage.bytesPerSecondMax === 0 ? null : Math.round(usage.bytesPerSecondMax),
    messages: usage.messages,
    bytes: usage.bytes,
    refused: usage.refused,
    shrunk: usage.shrunk,
  };
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}
