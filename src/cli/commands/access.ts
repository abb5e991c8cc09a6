import { createHash, randomBytes } from 'node:crypto';
import { Argument, Command, Option } from 'commander';
import type { Identity, Policy } from '../../access/policy.ts';
import { REASONS } from '../../base/errors.ts';
import { subjectFault } from '../../base/subject.ts';
import { type LoadedAccess, loadAccessFile } from '../../config/access-file.ts';
import { ConfigError } from '../../config/config-error.ts';
import { parseDuration } from '../../config/units.ts';
import { hashOfToken } from '../../grpc/access/bearer.ts';
import { JwtVerifier } from '../../grpc/access/jwt-verifier.ts';
import type { Context } from '../context.ts';
import { CliError, EXIT, usageError } from '../failure.ts';
import { example, withFormat } from '../options.ts';
import type { Format } from '../output.ts';
import { parseTenant } from '../parse.ts';
import { type TokenFlags, tokenOf, withToken } from '../token.ts';

const TOKEN_BYTES = 32;
/** Lets scanners for secrets know one of ours. */
const TOKEN_PREFIX = 'broker_';
const VERBS = ['publish', 'subscribe', 'fetch', 'observe', 'admin'] as const;
type AskedVerb = (typeof VERBS)[number];
const NAME = /^[A-Za-z0-9_]([A-Za-z0-9._@/-]{0,62}[A-Za-z0-9_])?$/;

export function accessCommand(context: Context, outcome: { code: number }): Command {
  return new Command('access')
    .description('Who may do what: the access file that `serve` takes as --access-file. No broker is asked.')
    .addCommand(tokenCommand(context))
    .addCommand(checkCommand(context))
    .addCommand(explainCommand(context, outcome));
}

interface NewToken {
  readonly output: Format;
  readonly name: string;
  readonly tenant?: string;
  readonly expires?: number;
  readonly role: readonly string[];
}

function tokenCommand(context: Context): Command {
  const several = (text: string, before: readonly string[]): readonly string[] => [...before, text];
  const command = withFormat(new Command('token'))
    .description('Make a token: prints it, this once, and the lines for the access file, which have its hash alone.')
    .addOption(new Option('--name <name>', 'what it is called in logs').argParser(parseName).default('new-token'))
    .addOption(new Option('--tenant <name>', 'whose calls are made with it').argParser(parseTenant))
    .addOption(new Option('--expires <duration>', 'for how long it is good, such as 90d').argParser(parseExpiry))
    .option('--role <name>', 'a role of the access file; may be given again', several, [])
    .action(async ({ output, name, tenant, expires, role }: NewToken) => {
      const token = `${TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
      const hash = `sha256:${createHash('sha256').update(token).digest('hex')}`;
      const end = expires === undefined ? undefined : new Date(context.now() + expires).toISOString();
      const entry = {
        name,
        hash,
        ...(end === undefined ? {} : { expires: end }),
        ...(tenant === undefined ? {} : { tenant }),
        ...(role.length === 0 ? {} : { roles: role }),
      };
      if (output === 'json') {
        await context.out.json({ token, entry });
        return;
      }
      const lines = Object.entries(entry).map(
        ([key, value]) => `${key}: ${Array.isArray(value) ? `[${value.join(', ')}]` : value}`,
      );
      await context.out.line(`token: ${token}`);
      await context.out.line('Below `tokens:` of the access file:');
      await context.out.line(lines.map((line, i) => `  ${i === 0 ? '-' : ' '} ${line}`).join('\n'));
    });
  return example(command, 'broker access token --name ci --role orders --expires 90d');
}

function checkCommand(context: Context): Command {
  const command = withFormat(new Command('check'))
    .description(
      'Check an access file, and the files of keys that it names. Exit code 2 and one line for each problem.',
    )
    .argument('<file>', 'the access file')
    .action(async (file: string, { output }: { readonly output: Format }) => {
      const { policy, files } = load(file);
      const found = { valid: true, file, ...policy.counts, files: files.length };
      const seers = policy.overseers;
      if (output === 'json') await context.out.json({ ...found, sees_all_tenants: seers });
      else await context.out.record({ ...found, sees_all_tenants: seers.join(', ') }, output);
    });
  return example(command, 'broker access check access.yaml');
}

interface Explain extends TokenFlags {
  readonly output: Format;
  readonly file: string;
  readonly name?: string;
  readonly certificate?: string;
  readonly anonymous?: true;
}

function explainCommand(context: Context, outcome: { code: number }): Command {
  const command = withToken(withFormat(new Command('explain')))
    .description('Say what the access file allows somebody, and which rule decides. Exit code 1 if it is denied.')
    .addArgument(new Argument('<verb>', 'what they want').choices(VERBS))
    .argument('[subject]', 'with what; a pattern for subscribe is allowed if it may find something allowed')
    .requiredOption('--file <file>', 'the access file')
    .option('--name <name>', 'the token of this name')
    .option('--certificate <name>', 'the client certificate of this name')
    .option('--anonymous', 'who shows nothing')
    .action(async (verb: AskedVerb, subject: string | undefined, options: Explain) => {
      const { policy } = load(options.file);
      const identity = await identityOf(policy, options, context);
      const decision = decide(identity, verb, subject);
      if (!decision.isAllowed) outcome.code = EXIT.failed;
      const { name: caller, tenant } = identity;
      const row = { caller, tenant, verb, subject: subject ?? '', allowed: decision.isAllowed, why: decision.why };
      if (options.output === 'json') await context.out.json(row);
      else await context.out.record(row, options.output);
    });
  return example(command, 'broker access explain --file access.yaml --name ci publish orders.eu');
}

function decide({ permissions, expiresAt }: Identity, verb: AskedVerb, subject: string | undefined) {
  if (expiresAt <= Date.now()) return { isAllowed: false, why: 'the token has expired' };
  if (verb === 'observe' || verb === 'admin') {
    if (subject !== undefined) throw usageError(`${verb} has no subject`);
    const isAllowed = verb === 'observe' ? permissions.observes : permissions.administers;
    return { isAllowed, why: isAllowed ? `${verb} is given` : `no role gives ${verb}` };
  }
  if (subject === undefined) throw usageError(`${verb} needs a subject`);
  checkSubject(verb, subject);
  return permissions.explain(verb, subject);
}

/** Of what the broker refuses whoever sends it there is nothing to say whether it is allowed. */
function checkSubject(verb: AskedVerb, subject: string): void {
  const names = subject.split('.');
  const isWildcard = (name: string, i: number): boolean => name === '*' || (name === '>' && i === names.length - 1);
  // The other verbs say by themselves that they take no pattern.
  const bytes = Buffer.from(names.map((name, i) => (isWildcard(name, i) ? 'x' : name)).join('.'));
  const fault = subjectFault(bytes, 0, bytes.length);
  if (fault === null) return;
  const { when, next } = REASONS[fault];
  throw usageError(`${verb} ${JSON.stringify(subject)}: ${when}`, next);
}

async function identityOf(policy: Policy, options: Explain, context: Context): Promise<Identity> {
  const { name, certificate, anonymous } = options;
  if ([name, certificate, anonymous, options.tokenFile].filter((one) => one !== undefined).length > 1)
    throw usageError('only one of --name, --certificate, --anonymous and --token-file can be explained');
  if (name !== undefined) return found(policy.byTokenName(name), `no token is called ${name}`);
  if (certificate !== undefined)
    return found(policy.byCertificate(certificate), `no certificate is called ${certificate}`);
  if (anonymous === true) return found(policy.anonymous, 'who shows nothing may do nothing');
  const token = tokenOf(context.environment, options);
  if (token === undefined) throw usageError('who is it about: --name, --certificate, --anonymous or --token-file');
  const known = policy.byToken(hashOfToken(token));
  if (known !== null) return known;
  const proof = await new JwtVerifier(policy.issuers).verify(token, context.now());
  if ('reason' in proof) throw new CliError(EXIT.failed, `the token is not taken: ${proof.detail}`);
  return found(policy.byJwt(proof), 'the claims of the token do not name a caller and a tenant');
}

function found(identity: Identity | null, otherwise: string): Identity {
  if (identity === null) throw new CliError(EXIT.failed, otherwise);
  return identity;
}

function load(file: string): LoadedAccess {
  try {
    return loadAccessFile(file);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw usageError((error as Error).message);
  }
}

function parseName(text: string): string {
  if (NAME.test(text)) return text;
  throw usageError(`--name ${text}: must be 1 to 64 letters, digits, ".", "_", "@", "/" or "-"`);
}

function parseExpiry(text: string): number {
  const value = parseDuration(text);
  if (value !== null && value > 0) return value;
  throw usageError(`--expires ${text}: must be a duration with its unit, such as 12h or 90d`);
}
