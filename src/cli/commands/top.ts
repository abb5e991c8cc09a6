import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { parseDuration } from '../../config/units.ts';
import type { Context } from '../context.ts';
import { usageError } from '../failure.ts';
import { addressesOf, type ClientOptions, example, withClient } from '../options.ts';
import { formatTable, type Row } from '../output.ts';
import { parsePositive } from '../parse.ts';
import { tlsOf } from '../tls.ts';
import { tokenOf } from '../token.ts';
import { LiveTop } from '../top/live.ts';
import { type Lists, PANE, PANES, type PaneName, type Sample, sorted } from '../top/panes.ts';
import { takeLists, takeSample } from '../top/sample.ts';

const LIMIT_LIVE = 200;
const LIMIT_ONCE = 20;
const LIMIT_MAX = 1_000;
const INTERVAL_MIN_MS = 100;
/** A node that hangs is told of sooner than the commands that change something give up. */
const LIVE_TIMEOUT_MS = 5_000;

interface TopOptions extends ClientOptions {
  readonly once: boolean;
  readonly pane?: PaneName;
  readonly sort?: string;
  readonly limit?: number;
  readonly interval: number;
}

export function topCommand(context: Context, outcome: { code: number }): Command {
  const command = withClient(new Command('top'))
    .description(
      'A live view of one node: shards, subjects, subscriptions with their lag, connections. h shows the keys. Without a terminal, or with -o json, one list after another is printed.',
    )
    .option('--once', 'print every list once (or that of --pane) and end', false)
    .addOption(new Option('--pane <pane>', 'the list to show first, or alone with --once').choices([...PANES]))
    .option('--sort <column>', 'what the list is sorted by, such as lag')
    .option('--limit <rows>', `rows of a list, at most ${LIMIT_MAX}`, parseLimit)
    .addOption(new Option('--interval <duration>', 'between two looks').argParser(parseInterval).default(1_000, '1s'))
    .action(async (options: TopOptions) => {
      checkSort(options);
      // On one that knows no cursor lists are printed, as to a file.
      const terminal = context.environment.TERM === 'dumb' ? null : context.out.terminal;
      const isLive = !options.once && options.output === 'table' && terminal !== null && context.stdin.isTTY === true;
      if (!isLive || terminal === null) return await print(context, options);
      const addresses = addressesOf(context, options);
      const tls = tlsOf(context.environment, options, addresses);
      const top = new LiveTop(context, terminal, {
        first: { pane: options.pane ?? 'shards', sort: options.sort ?? null, intervalMs: options.interval },
        limit: options.limit ?? LIMIT_LIVE,
        address: addresses.join(', '),
        hasColour: !context.environment.NO_COLOR,
        connect: () =>
          context.connect({
            addresses,
            tenant: options.tenant,
            tls,
            token: tokenOf(context.environment, options),
            timeoutMs: Math.min(options.timeout, LIVE_TIMEOUT_MS),
            interrupt: context.interrupt,
          }),
      });
      outcome.code = await top.run();
    });
  return example(command, 'broker top', 'broker top --once --pane subscriptions --sort lag -o json');
}

/** Without a screen. */
async function print(context: Context, options: TopOptions): Promise<void> {
  const { interrupt } = context;
  const addresses = addressesOf(context, options);
  const tls = tlsOf(context.environment, options, addresses);
  const token = tokenOf(context.environment, options);
  const { tenant, timeout: timeoutMs } = options;
  const connection = context.connect({ addresses, tenant, tls, token, timeoutMs, interrupt });
  const panes = options.pane === undefined ? PANES : [options.pane];
  const wanted = {
    panes,
    sort: options.pane === 'subscriptions' ? (options.sort ?? '') : '',
    limit: options.limit ?? LIMIT_ONCE,
    prefix: '',
  };
  try {
    for (;;) {
      const { now, out } = context;
      if (options.output === 'json')
        await out.json(toJson(await takeSample(connection, wanted, null, now), panes, options.sort));
      else await out.line(toTables(await takeLists(connection, wanted, null, now), panes, options.sort));
      if (options.once) return;
      await sleep(options.interval, undefined, { signal: interrupt }).catch(() => undefined);
      if (interrupt.aborted) return;
    }
  } finally {
    await connection.close();
  }
}

function rowsOf(sample: Lists, pane: PaneName, sort: string | undefined): Row[] {
  return sorted(sample.rows[pane], sort ?? PANE[pane].sortKeys[0] ?? '', false);
}

function toJson(sample: Sample, panes: readonly PaneName[], sort: string | undefined): Record<string, unknown> {
  const { at, status, totals, lagMax } = sample;
  const { warnings, notReady, ...rest } = status;
  const lists = panes.map((pane) => [pane, rowsOf(sample, pane, sort)] as const);
  const counted = panes.map((pane) => [pane, totals[pane]] as const);
  return {
    at: new Date(at).toISOString(),
    node: { ...rest, notReady, warnings },
    totals: Object.fromEntries(counted),
    ...(panes.includes('subscriptions') ? { lag_max: lagMax } : {}),
    ...Object.fromEntries(lists),
  };
}

function toTables(sample: Lists, panes: readonly PaneName[], sort: string | undefined): string {
  const tables = panes.map((pane) => {
    const rows = rowsOf(sample, pane, sort);
    const table = formatTable(rows, columnsOf(pane));
    return panes.length === 1 ? table : `${pane}: ${sample.totals[pane].toLocaleString('en-US')}\n${table}`;
  });
  return tables.join('\n\n');
}

function columnsOf(pane: PaneName): string[] {
  return PANE[pane].columns.map(({ key }) => key);
}

function checkSort({ pane, sort }: TopOptions): void {
  if (sort === undefined) return;
  if (pane === undefined) throw usageError('--sort needs --pane', `such as --pane subscriptions --sort ${sort}`);
  const { sortKeys } = PANE[pane];
  if (!sortKeys.includes(sort)) throw usageError(`--sort ${sort}: ${pane} can be sorted by ${sortKeys.join(', ')}`);
}

function parseLimit(text: string): number {
  const limit = parsePositive(text, '--limit');
  if (limit <= LIMIT_MAX) return limit;
  throw usageError(`--limit ${text}: must be at most ${LIMIT_MAX}`);
}

function parseInterval(text: string): number {
  const ms = parseDuration(text);
  if (ms !== null && ms >= INTERVAL_MIN_MS) return ms;
  throw usageError(`--interval ${text}: must be a duration of at least ${INTERVAL_MIN_MS}ms, such as 1s`);
}
