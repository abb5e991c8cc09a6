import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { NAME, NAME_RULE } from '../../base/node-name.ts';
import { certificatesIn } from '../../tls/pem.ts';
import { TlsError } from '../../tls/tls-error.ts';
import { AUTHORITY, CertificateFolder, type Paths } from '../certs/folder.ts';
import type { Validity } from '../certs/issue.ts';
import { certificateRow } from '../certs/show.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';
import { parsePositive } from '../parse.ts';

const FOLDER = 'certs';
const HOSTS = ['localhost', '127.0.0.1', '::1'];
const AUTHORITY_DAYS = 3_650;
const DAYS = 365;
const DAYS_MAX = 36_500;
const COLUMNS = ['what', 'name', 'identity', 'cert', 'key'];
/** What a certificate may carry as a host: DNS names, also with a star in front, and addresses. */
const HOST = /^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$|^[0-9A-Fa-f:.]+$/;

interface Options {
  readonly output: Format;
  readonly dir: string;
  readonly days: number;
}

export function certsCommand(context: Context): Command {
  return new Command('certs')
    .description(
      'Certificates for development and tests, of an authority of your own: files that only you can read, none ever overwritten. In production let cert-manager or your own authority issue them.',
    )
    .addCommand(initCommand(context))
    .addCommand(authorityCommand(context))
    .addCommand(nodeCommand(context))
    .addCommand(clientCommand(context))
    .addCommand(showCommand(context));
}

function withDays(command: Command, days: number): Command {
  return command.addOption(
    new Option('--days <n>', 'how long it is valid').argParser(parseDays).default(days, String(days)),
  );
}

function withFolder(command: Command): Command {
  return withFormat(command).option('--dir <folder>', 'where the files are', FOLDER);
}

interface InitOptions extends Options {
  readonly cluster: string;
  readonly node: string;
  readonly client: string;
  readonly host: readonly string[];
}

function initCommand(context: Context): Command {
  const command = withDays(withFormat(new Command('init')), DAYS)
    .description('An authority, a certificate for a node and one for a client in one go, and what to type next.')
    .argument('[folder]', 'where the files are made', FOLDER)
    .addOption(clusterOption())
    .addOption(nameOption('--node', 'node, as --node-id').default('node-1'))
    .addOption(nameOption('--client', 'client').default('client'))
    .addOption(hostOption().default(HOSTS, HOSTS.join(', ')))
    .action(async (path: string, options: InitOptions) => {
      const { cluster, node, client, host } = options;
      const folder = new CertificateFolder(path);
      folder.checkFree([AUTHORITY, node, client]);
      const { issueAuthority, issueCertificate } = await import('../certs/issue.ts');
      const made = folder.write(AUTHORITY, await issueAuthority(cluster, until(context, AUTHORITY_DAYS)));
      const authority = await folder.authority();
      const validity = until(context, options.days);
      const nodePaths = folder.write(
        node,
        await issueCertificate(authority, { kind: 'node', name: node }, host, validity),
      );
      const clientPaths = folder.write(
        client,
        await issueCertificate(authority, { kind: 'client', name: client }, [], validity),
      );
      const rows = [
        rowOf('authority', cluster, null, made),
        rowOf('node', node, cluster, nodePaths),
        rowOf('client', client, cluster, clientPaths),
      ];
      await context.out.rows(rows, COLUMNS, options.output);
      if (options.output === 'json') return;
      const clusterFlag = cluster === 'broker' ? '' : ` --cluster ${cluster}`;
      await context.notes.line(
        [
          '\nStart a broker that takes these clients alone:',
          `  broker serve --node-id ${node}${clusterFlag} --tls-cert ${nodePaths.cert} --tls-key ${nodePaths.key} --tls-ca ${made.cert} --tls-client-certs required`,
          'Talk to it, from another terminal:',
          `  export BROKER_TLS_CA=${made.cert} BROKER_TLS_CERT=${clientPaths.cert} BROKER_TLS_KEY=${clientPaths.key}`,
          '  broker publish greetings hello',
          'A certificate for another node or client:',
          `  broker certs node --dir ${path} --name node-2 --host localhost --host 127.0.0.1`,
          `  broker certs client --dir ${path} --name client-2`,
        ].join('\n'),
      );
    });
  return example(
    command,
    'broker certs init ./certs',
    'broker certs init ./certs --node node-1 --host broker-1.example',
  );
}

function authorityCommand(context: Context): Command {
  const command = withDays(withFolder(new Command('ca')), AUTHORITY_DAYS)
    .description(`An authority: ${AUTHORITY}.pem, and ${AUTHORITY}.key, with which others can be made.`)
    .addOption(clusterOption())
    .action(async ({ dir, cluster, days, output }: Options & { readonly cluster: string }) => {
      const folder = new CertificateFolder(dir);
      folder.checkFree([AUTHORITY]);
      const { issueAuthority } = await import('../certs/issue.ts');
      const made = folder.write(AUTHORITY, await issueAuthority(cluster, until(context, days)));
      await context.out.rows([rowOf('authority', cluster, null, made)], COLUMNS, output);
    });
  return example(command, 'broker certs ca --dir ./certs --cluster broker');
}

function nodeCommand(context: Context): Command {
  const command = withDays(withFolder(new Command('node')), DAYS)
    .description('A certificate for a node, as a server and as a client of other nodes.')
    .addOption(nameOption('--name', 'node, as --node-id').makeOptionMandatory())
    .addOption(hostOption().makeOptionMandatory())
    .action(async (options: Options & { readonly name: string; readonly host: readonly string[] }) => {
      await issue(context, options, { kind: 'node', name: options.name }, options.host);
    });
  return example(command, 'broker certs node --dir ./certs --name node-2 --host broker-2.example --host 10.0.0.2');
}

function clientCommand(context: Context): Command {
  const command = withDays(withFolder(new Command('client')), DAYS)
    .description('A certificate for a client.')
    .addOption(nameOption('--name', 'client').makeOptionMandatory())
    .action(async (options: Options & { readonly name: string }) => {
      await issue(context, options, { kind: 'client', name: options.name }, []);
    });
  return example(command, 'broker certs client --dir ./certs --name billing');
}

function showCommand(context: Context): Command {
  const command = withFormat(new Command('show'))
    .description('What is in a file of certificates (PEM).')
    .argument('<file>', 'such as certs/node-1.pem')
    .action(async (path: string, { output }: { readonly output: Format }) => {
      for (const certificate of readCertificates(path)) {
        await context.out.record(certificateRow(certificate, context.now()), output);
      }
    });
  return example(command, 'broker certs show certs/node-1.pem', 'broker certs show certs/node-1.pem -o json');
}

async function issue(
  context: Context,
  { dir, days, output }: Options,
  who: { readonly kind: 'node' | 'client'; readonly name: string },
  hosts: readonly string[],
): Promise<void> {
  const folder = new CertificateFolder(dir);
  folder.checkFree([who.name]);
  const authority = await folder.authority();
  const { issueCertificate } = await import('../certs/issue.ts');
  const paths = folder.write(who.name, await issueCertificate(authority, who, hosts, until(context, days)));
  await context.out.rows([rowOf(who.kind, who.name, authority.cluster, paths)], COLUMNS, output);
}

function rowOf(what: string, name: string, cluster: string | null, { cert, key }: Paths) {
  return { what, name, identity: cluster === null ? null : `broker://${cluster}/${what}/${name}`, cert, key };
}

function until(context: Context, days: number): Validity {
  return { nowMs: context.now(), days };
}

function readCertificates(path: string) {
  try {
    return certificatesIn(readFileSync(path, 'utf8'), path);
  } catch (cause) {
    if (cause instanceof TlsError) throw new CliError(EXIT.failed, cause.message, '', { cause });
    throw new CliError(EXIT.failed, `${path}: cannot be read: ${(cause as Error).message}`, '', { cause });
  }
}

function clusterOption(): Option {
  return nameOption('--cluster', 'cluster, as --cluster of `broker serve`').default('broker');
}

function nameOption(flag: string, of: string): Option {
  return new Option(`${flag} <name>`, `name of the ${of}`).argParser((text) => {
    if (NAME.test(text)) return text;
    throw usageError(`${flag} ${text}: must be ${NAME_RULE}`);
  });
}

function hostOption(): Option {
  let isGiven = false;
  return new Option('--host <host>', 'name or address under which it is reached; may be given again').argParser(
    (text, before: readonly string[] | undefined) => {
      if (!HOST.test(text))
        throw usageError(`--host ${text}: must be the name or the address of a host, without a port`);
      const others = isGiven ? (before ?? []) : [];
      isGiven = true;
      return [...others, text];
    },
  );
}

function parseDays(text: string): number {
  const days = parsePositive(text, '--days');
  if (days <= DAYS_MAX) return days;
  throw usageError(`--days ${text}: must be at most ${DAYS_MAX}`);
}
