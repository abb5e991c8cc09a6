import { buffer } from 'node:stream/consumers';
import { Command } from 'commander';
import type { GossipKeys } from '../../client/index.ts';
import type { GossipKeyChange } from '../connection.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { type ClientOptions, example, withClient, withConnection } from '../options.ts';
import { counted } from '../top/text.ts';

const COLUMNS = ['key', 'nodes', 'primary_on'];
/** Base64 of 16, 24 or 32 bytes, as `serf keygen` makes it. */
const KEY = /^(?:[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{32}|[A-Za-z0-9+/]{43}=)$/;
const FINGERPRINT = /^[0-9a-f]{4,16}$/;

/** `broker cluster keys`: what gossip of all nodes is encrypted with. */
export function keysCommand(context: Context): Command {
  return new Command('keys')
    .description(
      'The keys that gossip is encrypted with, on all nodes: install a new one, use it, remove the old one, in this order, each when the one before is on every node.',
    )
    .addCommand(listCommand(context))
    .addCommand(installCommand(context))
    .addCommand(namedCommand(context, 'use', 'Have all nodes encrypt with a key that all of them have.'))
    .addCommand(
      namedCommand(context, 'remove', 'Have all nodes forget a key. The one that is used cannot be removed.'),
    );
}

function listCommand(context: Context): Command {
  const command = withClient(new Command('list'))
    .description(
      'The keys by their fingerprints (first digits of their SHA-256; keys are never shown), with how many nodes have each and encrypt with it.',
    )
    .action(async (options: ClientOptions) => {
      await change(context, { action: 'list' }, options);
    });
  return example(command, 'broker cluster keys list', 'broker cluster keys list -o json');
}

function installCommand(context: Context): Command {
  const command = withClient(new Command('install'))
    .description(
      'Give a new key to all nodes. It is read from standard input: arguments are seen by every user of the machine.',
    )
    .action(async (options: ClientOptions) => {
      if (context.stdin.isTTY === true) {
        throw usageError(
          'the key is read from standard input',
          'such as: openssl rand -base64 32 | broker cluster keys install',
        );
      }
      const text = (await buffer(context.stdin)).toString().trim();
      if (!KEY.test(text))
        throw usageError('a key is base64 of 16, 24 or 32 bytes, as `openssl rand -base64 32` makes it');
      await change(context, { action: 'install', key: Buffer.from(text, 'base64') }, options);
    });
  return example(command, 'openssl rand -base64 32 | broker cluster keys install');
}

function namedCommand(context: Context, action: 'use' | 'remove', about: string): Command {
  const command = withClient(new Command(action))
    .description(about)
    .argument('<fingerprint>', 'as `keys list` shows it, or its first digits (4 at least)', parseFingerprint)
    .action(async (fingerprint: string, options: ClientOptions) => {
      await change(context, { action, fingerprint }, options);
    });
  return example(command, `broker cluster keys ${action} 3f9a`);
}

/** The keys behind it. Exit code 1 if a node has not done it, or has not answered. */
async function change(context: Context, asked: GossipKeyChange, options: ClientOptions): Promise<void> {
  await withConnection(context, options, async (connection) => {
    const found = await connection.gossipKeys(asked);
    const rows = found.keys.map(({ fingerprint, nodes, primaryOn }) => ({
      key: fingerprint,
      nodes,
      primary_on: primaryOn,
    }));
    await context.out.rows(rows, COLUMNS, options.output);
    for (const { nodeId, message } of found.failures) await context.notes.line(`broker: ${nodeId}: ${message}`);
    const words = incomplete(found);
    if (words !== null) throw new CliError(EXIT.failed, words.what, words.next);
  });
}

function incomplete({
  nodes,
  answered,
  failures,
}: GossipKeys): { readonly what: string; readonly next: string } | null {
  if (failures.length > 0) return { what: 'not all nodes have done it', next: 'see what each of them says' };
  if (answered >= nodes) return null;
  return {
    what: `answers came from ${answered} of ${counted(nodes, 'node')}`,
    next: 'run it again when all nodes are there',
  };
}

function parseFingerprint(text: string): string {
  if (FINGERPRINT.test(text)) return text;
  throw usageError(`${text}: must be 4 to 16 digits of lower case hex, as \`broker cluster keys list\` shows them`);
}
