import { Command, Option } from 'commander';
import { shownName } from '../../base/subject-space.ts';
import { loadConfig } from '../../config/load.ts';
import { STORE_KINDS, type StoreKind } from '../../config/schema.ts';
import type { ComparedSubject, CopyProgress, CopySummary } from '../../copy/types.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { example, withFormat } from '../options.ts';
import { type Format, LongTable, type Row } from '../output.ts';
import { counted } from '../top/text.ts';

const COLUMNS = [
  'subject',
  'same',
  'messages',
  'first',
  'last',
  'checksum',
  'target_messages',
  'target_last',
  'difference',
];
const BAR_WIDTH = 24;
const SHOW_MS = 200;

interface CopyOptions {
  readonly from: string;
  readonly to: string;
  readonly compareOnly: boolean;
  readonly switch: boolean;
  readonly acceptLoss: boolean;
  readonly list: boolean;
  readonly output: Format;
}

export function storeCommand(context: Context): Command {
  return new Command('store').description('The stores in which messages are kept.').addCommand(copyCommand(context));
}

function copyCommand(context: Context): Command {
  const command = withFormat(new Command('copy'))
    .description(
      'Move the messages of a broker that does not run to another store, under the same ids. Ends with a comparison; if that finds no ' +
        'difference, the broker starts on the new store from then on. Cut off, it goes on where it stopped.',
    )
    .usage('--from STORE --to STORE --data-dir DIR [options] [--key VALUE]…')
    .addOption(
      new Option('--from <store>', 'embedded, postgres or cassandra: where the messages are').makeOptionMandatory(),
    )
    .addOption(new Option('--to <store>', 'where they shall be').makeOptionMandatory())
    .option('--compare-only', 'write nothing; exit code 1 if a subject differs', false)
    .option('--no-switch', 'leave the broker on its old store')
    .option('--accept-loss', 'switch although messages of the source are damaged or missing', false)
    .option('--list', 'show every subject that was compared, not only those that differ', false)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: CopyOptions) => copy(context, command.args, options));
  example(
    command,
    'BROKER_POSTGRES_URL=postgres://broker@db/broker broker store copy --from embedded --to postgres --data-dir ./data',
    'broker store copy --from postgres --to embedded --data-dir ./data --compare-only --list -o json',
  );
  return command.addHelpText(
    'after',
    '\nWhat the stores need (postgres.url, cassandra.contact_points, …) is read as `serve` reads it: from flags, BROKER_* variables, or --config FILE.',
  );
}

async function copy(context: Context, argv: readonly string[], options: CopyOptions): Promise<void> {
  const [from, to] = [kindOf('--from', options.from), kindOf('--to', options.to)];
  if (from === to)
    throw usageError(`--from and --to are both ${from}`, 'within one kind of store, its own tools copy better');
  const { config } = loadConfig({ argv, environment: context.environment });
  for (const kind of [from, to]) {
    if (kind === 'postgres' && config.postgres.url === null) throw usageError('postgres.url is not set');
    const { contactPoints, datacenter } = config.cassandra;
    if (kind === 'cassandra' && (contactPoints === null || datacenter === null)) {
      throw usageError('cassandra.contact_points and cassandra.datacenter are not both set');
    }
  }
  const bar = new Bar(context);
  const rows = new Rows(context, options, bar);
  const outcome = await context.copyStore({
    config,
    from,
    to,
    compareOnly: options.compareOnly,
    switchOver: options.switch,
    acceptLoss: options.acceptLoss,
    interrupt: context.interrupt,
    onProgress: (progress) => bar.show(progress),
    onSubject: (compared) => rows.add(compared),
  });
  await rows.show();
  await bar.clear();
  if (outcome.kind === 'refused') throw new CliError(EXIT.failed, outcome.message, outcome.next);
  await context.out.record(recordOf(outcome.summary), options.output);
  judge(outcome.summary, options);
}

/** Whatever keeps the broker from its new store is a failure, also where nobody asked for the switch. */
function judge(summary: CopySummary, { compareOnly, acceptLoss }: CopyOptions): void {
  const { differingSubjects, damagedBatches, missingIds } = summary;
  if (differingSubjects > 0) {
    throw new CliError(
      EXIT.failed,
      `not the same in both stores: ${counted(differingSubjects, 'subject')}`,
      compareOnly ? '' : 'the broker stays on its old store',
    );
  }
  if (damagedBatches + missingIds === 0 || acceptLoss || compareOnly) return;
  throw new CliError(
    EXIT.failed,
    `the source has ${counted(damagedBatches, 'damaged batch')} and lacks ${counted(missingIds, 'id')}: they are not in the target either`,
    'put the source right, or repeat the command with --accept-loss; until then the broker stays on its old store',
  );
}

function kindOf(option: string, text: string): StoreKind {
  const kind = STORE_KINDS.find((each) => each === text);
  if (kind !== undefined) return kind;
  throw usageError(`${option} ${text}: must be ${STORE_KINDS.join(', ')}`);
}

function recordOf(summary: CopySummary): Row {
  const { batches, messages, bytes, subjects, switched, ms } = summary;
  return {
    from: summary.from,
    to: summary.to,
    subjects,
    batches,
    messages,
    bytes,
    copied_batches: summary.copiedBatches,
    copied_bytes: summary.copiedBytes,
    found_batches: summary.foundBatches,
    expired_batches: summary.expiredBatches,
    damaged_batches: summary.damagedBatches,
    missing_ids: summary.missingIds,
    differing_subjects: summary.differingSubjects,
    switched,
    ms,
  };
}

/** Compared subjects: at once for programs, some at a time for people. There may be millions. */
class Rows {
  readonly #context: Context;
  readonly #options: CopyOptions;
  readonly #bar: Bar;
  readonly #table: LongTable;

  constructor(context: Context, options: CopyOptions, bar: Bar) {
    this.#context = context;
    this.#options = options;
    this.#bar = bar;
    this.#table = new LongTable(context.out, COLUMNS);
  }

  async add({ tenant, subject, source, target, difference }: ComparedSubject): Promise<void> {
    if (difference === null && !this.#options.list) return;
    const row: Row = {
      subject,
      same: difference === null,
      messages: source.messages,
      first: source.first,
      last: source.last,
      checksum: source.checksum.toString(16).padStart(8, '0'),
      target_messages: target.messages,
      target_last: target.last,
      difference,
    };
    if (this.#options.output === 'json') await this.#context.out.json(tenant === '' ? row : { tenant, ...row });
    else if (this.#table.add({ ...row, subject: shownName({ tenant, subject }) })) await this.show();
  }

  /** Writes what was gathered. */
  async show(): Promise<void> {
    // Both are on one terminal.
    await this.#bar.clear();
    await this.#table.write();
  }
}

/** On a terminal only. */
class Bar {
  readonly #context: Context;
  #shownAt = Number.NEGATIVE_INFINITY;
  #startedAt = performance.now();
  #phase = '';

  constructor(context: Context) {
    this.#context = context;
  }

  show({ phase, done, total, bytes }: CopyProgress): void {
    const now = performance.now();
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#startedAt = now;
    }
    if (!this.#context.notes.isTerminal || now - this.#shownAt < SHOW_MS) return;
    this.#shownAt = now;
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const filled = Math.round(share * BAR_WIDTH);
    const bar = `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}]`;
    const seconds = Math.max(0.001, (now - this.#startedAt) / 1_000);
    const text = `${phase} ${bar} ${done.toLocaleString('en-US')} of ${counted(total, 'id')}, ${(bytes / 1e6 / seconds).toFixed(1)} MB/s`;
    // A terminal that is gone is found by whatever is written next.
    void this.#context.notes.write(`\r\u001b[K${text}`).catch(() => 'gone');
  }

  async clear(): Promise<void> {
    if (this.#context.notes.isTerminal) await this.#context.notes.write('\r\u001b[K');
  }
}
