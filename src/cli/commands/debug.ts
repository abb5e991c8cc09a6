/** `broker debug bundle`: what a report of a problem needs, in one file. */
import { Command, Option } from 'commander';
import { Bundle } from '../bundle.ts';
import type { Connection, InspectMethod } from '../connection.ts';
import type { Context } from '../context.ts';
import { gatherFiles } from '../data-directory-listing.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { addressesOf, type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { parseTimeout } from '../parse.ts';
import { ProgressLine } from '../progress-line.ts';
import { counted } from '../top/text.ts';

const PROFILE_MS_MAX = 30_000;

interface BundleOptions extends ClientOptions {
  readonly file?: string;
  readonly cpuProfile?: number;
  readonly hashSubjects?: true;
  readonly dataDir?: string;
}

export function debugCommand(context: Context): Command {
  return new Command('debug').description('What a report of a problem needs.').addCommand(bundleCommand(context));
}

function bundleCommand(context: Context): Command {
  const command = withClient(new Command('bundle'))
    .description(
      'Gather what a node says of itself in one .tar.gz: settings without secrets, status, members, shards, subscriptions, metrics, threads, the newest log lines. No messages. It says what could not be had.',
    )
    .option('-f, --file <file>', 'where to write it; an existing file is not overwritten')
    .addOption(
      new Option(
        '--cpu-profile <duration>',
        'also record where every thread spends its time, for so long (at most 30s)',
      ).argParser(parseProfile),
    )
    .option('--hash-subjects', 'hide the names of subjects')
    .option('--data-dir <folder>', 'also list the files of a data directory; all there is of a node that is down')
    .action(async (options: BundleOptions) => {
      const bundle = new Bundle(context, options.hashSubjects === true);
      const progress = new ProgressLine(context.notes);
      if (options.dataDir !== undefined) gatherFiles(bundle, options.dataDir);
      await gatherNode(bundle, context, options, progress);
      await progress.clear();
      context.interrupt.throwIfAborted();
      await context.out.record(await bundle.write(options.file, addressesOf(context, options)), options.output);
      for (const { what, why } of bundle.missing) await context.notes.line(`broker: missing: ${what}: ${why}`);
    });
  return example(
    command,
    'broker debug bundle',
    'broker debug bundle -f node-1.tar.gz --cpu-profile 5s --hash-subjects',
  );
}

function parseProfile(text: string): number {
  const ms = parseTimeout(text);
  if (ms <= PROFILE_MS_MAX) return ms;
  throw usageError(`--cpu-profile ${text}: must be at most 30s`);
}

/** A node that does not answer is an error, unless there are files to look at. */
async function gatherNode(
  bundle: Bundle,
  context: Context,
  options: BundleOptions,
  progress: ProgressLine,
): Promise<void> {
  try {
    await withConnection(context, options, (connection) => ask(bundle, connection, options, progress));
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode === EXIT.interrupted) throw error;
    if (options.dataDir !== undefined) {
      bundle.miss('the node', error.message);
      return;
    }
    const next = `${error.next}; with --data-dir FOLDER the bundle has what the files of a node say that is down`;
    throw new CliError(error.exitCode, error.message, next, { cause: error });
  }
}

/** What a node answers to the commands for operators, by the name of the file that it becomes. */
const ANSWERS: readonly (readonly [string, InspectMethod])[] = [
  ['shards', 'listShards'],
  ['subscriptions', 'listSubscriptions'],
  ['connections', 'listConnections'],
  ['subjects', 'topSubjects'],
  ['tenants', 'listTenants'],
];

async function ask(
  bundle: Bundle,
  connection: Connection,
  options: BundleOptions,
  progress: ProgressLine,
): Promise<void> {
  progress.show('asking the node');
  // The first one also finds out whether there is a node at all.
  const first = await connection.status().catch((error: unknown) => {
    if (error instanceof CliError && error.exitCode === EXIT.unreachable) throw error;
    return error;
  });
  if (first instanceof Error) bundle.miss('status.json', first.message);
  else bundle.json('status.json', first);
  await bundle.answer('members.json', () => connection.members());
  for (const [name, method] of ANSWERS) await bundle.answer(`${name}.json`, () => connection.inspect(method));
  try {
    for await (const { name, content } of connection.debugInfo(options.cpuProfile ?? 0)) {
      bundle.append(name, content);
      progress.show(`${name}, ${counted(bundle.bytes, 'byte')} in all`);
    }
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    bundle.miss('process, settings, log, metrics, threads', error.message);
  }
}
