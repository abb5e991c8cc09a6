import { Command, Option } from 'commander';
import { shownName } from '../../base/subject-space.ts';
import type { Verification } from '../../client/index.ts';
import { loadConfig } from '../../config/load.ts';
import { parseBytes } from '../../config/units.ts';
import type { VerifyProgress } from '../../recovery/types.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import type { Row } from '../output.ts';
import { ProgressLine } from '../progress-line.ts';
import { counted } from '../top/text.ts';

const BAR_WIDTH = 24;
const MEBIBYTE = 2 ** 20;

interface VerifyOptions extends ClientOptions {
  readonly prefix: string;
  readonly limitRate: number;
  readonly dataDir?: string;
  readonly quiet: boolean;
}

export function verifyCommand(context: Context): Command {
  const command = withClient(new Command('verify'))
    .description(
      'Read all of a store again and hold it against the log: checksums, an id for each message or void and none twice, nothing behind the last id, nothing open ' +
        'for too long. On a node that runs it goes on beside its work; with --data-dir it reads the embedded store of one that does not, and changes nothing.',
    )
    .usage('[options], or --data-dir DIR [options] [--key VALUE]…')
    .option('--prefix <prefix>', 'only subjects that begin with it', '')
    .addOption(
      new Option('--limit-rate <bytes>', 'bytes a second to read at most, such as 50MiB; 0: as many as go')
        .argParser(parseRate)
        .default(0, '0'),
    )
    .option('--data-dir <dir>', "a stopped broker's data directory, instead of a broker that runs")
    .option('--quiet', 'no progress, and no summary where nothing was found', false)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (options: VerifyOptions) => verify(context, command.args, options));
  example(
    command,
    'broker verify',
    'broker verify --prefix orders. --limit-rate 50MiB -o json',
    'broker verify --data-dir ./data',
  );
  return command.addHelpText(
    'after',
    '\nFindings are lines of: missing (neither message nor void), damaged (a checksum fails), twice (two batches have an id), beyond-head (the log never gave the id), ' +
      'not-settled (open for too long). Expired and trimmed messages are none.\n' +
      'Exit codes: 0 clean, 1 something was found, 2 wrong usage, 3 no broker at the address, 4 the store was not read to its end, 130 interrupted.',
  );
}

async function verify(context: Context, args: readonly string[], options: VerifyOptions): Promise<void> {
  const report = new Report(context, options);
  if (options.dataDir === undefined) {
    if (args.length > 0) throw usageError(`${args[0]}: verify takes no such thing`);
    await withConnection(context, options, async (connection) => {
      try {
        for await (const progress of connection.verify(options.prefix, options.limitRate)) await report.show(progress);
      } catch (error) {
        await report.clear();
        if (error instanceof CliError && error.exitCode === EXIT.failed) {
          throw new CliError(EXIT.notVerified, error.message, error.next, { cause: error });
        }
        throw error;
      }
    });
  } else {
    await verifyOffline(context, args, options.dataDir, options, report);
  }
  await report.end();
}

async function verifyOffline(
  context: Context,
  args: readonly string[],
  dataDir: string,
  { tenant = '', prefix, limitRate }: VerifyOptions,
  report: Report,
): Promise<void> {
  const { config } = loadConfig({ argv: ['--data-dir', dataDir, ...args], environment: context.environment });
  let shown = Promise.resolve();
  const show = (progress: VerifyProgress, done: boolean): void => {
    shown = shown.then(() => report.show({ ...progress, findings: [...progress.findings], done }));
    // Met where it is waited for.
    shown.catch(() => 'later');
  };
  const outcome = await context.recovery.verify({
    config,
    tenant,
    prefix,
    bytesPerSecond: limitRate,
    interrupt: context.interrupt,
    onProgress: (progress) => show(progress, false),
  });
  if (outcome.kind === 'done') show(outcome.summary, true);
  await shown;
  if (outcome.kind === 'done') return;
  await report.clear();
  throw new CliError(EXIT.notVerified, outcome.message, outcome.next);
}

function parseRate(text: string): number {
  const value = parseBytes(text);
  if (value !== null) return value;
  throw usageError(`--limit-rate ${text}: must be bytes a second with their unit, such as 50MiB`);
}

/** Findings as they come, one line for how far it is, and what it comes to. */
class Report {
  readonly #context: Context;
  readonly #options: VerifyOptions;
  readonly #line: ProgressLine;
  readonly #startedAt = performance.now();
  #last: Verification | null = null;

  constructor(context: Context, options: VerifyOptions) {
    this.#context = context;
    this.#options = options;
    this.#line = new ProgressLine(context.notes);
  }

  async show(progress: Verification): Promise<void> {
    this.#last = progress;
    if (progress.findings.length > 0) await this.#line.clear();
    for (const { kind, tenant, subject, firstId, lastId, detail } of progress.findings) {
      if (this.#options.output === 'json') {
        const owner = tenant === '' ? {} : { tenant };
        await this.#context.out.json({ kind, ...owner, subject, first_id: firstId, last_id: lastId, detail });
      } else {
        const ids =
          firstId === 0
            ? ''
            : ` ${shownName({ tenant, subject })} ${firstId === lastId ? firstId : `${firstId}-${lastId}`}`;
        await this.#context.out.line(`${kind}${ids}: ${detail}`);
      }
    }
    if (!this.#options.quiet) this.#line.show(lineOf(progress, (performance.now() - this.#startedAt) / 1_000));
  }

  clear(): Promise<void> {
    return this.#line.clear();
  }

  async end(): Promise<void> {
    await this.#line.clear();
    const last = this.#last;
    if (last === null || !last.done) {
      throw new CliError(EXIT.notVerified, 'the answers ended before the store was read to its end');
    }
    const { findingsTotal } = last;
    if (!this.#options.quiet || findingsTotal > 0)
      await this.#context.out.record(this.#summary(last), this.#options.output);
    if (findingsTotal === 0) return;
    throw new CliError(
      EXIT.failed,
      counted(findingsTotal, 'finding'),
      'docs/operations.md says what each kind means and what to do',
    );
  }

  #summary({ subjectsDone, batches, messages, voids, bytes, findingsTotal, maybeExpired }: Verification): Row {
    const seconds = Math.round(performance.now() - this.#startedAt) / 1_000;
    const counts = { subjects: subjectsDone, batches, messages, voids, maybe_expired: maybeExpired, bytes };
    return { ...counts, seconds, findings: findingsTotal };
  }
}

function lineOf({ step, subjectsDone, subjectsTotal, bytes, findingsTotal }: Verification, seconds: number): string {
  const share = subjectsTotal === 0 ? 0 : subjectsDone / subjectsTotal;
  const filled = Math.round(share * BAR_WIDTH);
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}]`;
  const rate = seconds > 0 ? (bytes / MEBIBYTE / seconds).toFixed(0) : '0';
  const found = findingsTotal === 0 ? '' : `, ${counted(findingsTotal, 'finding')}`;
  return `${bar} ${subjectsDone} of ${counted(subjectsTotal, 'subject')}, ${(bytes / MEBIBYTE).toFixed(0)} MiB, ${rate} MiB/s${found}: ${step}`;
}
