import { Command, Option } from 'commander';
import { CHECK_EXIT, CHECKS, judge, type Threshold, worst } from '../check/checks.ts';
import { gather } from '../check/gather.ts';
import { toJson, toPrometheus, toText } from '../check/report.ts';
import type { Context } from '../context.ts';
import { usageError } from '../failure.ts';
import { addressesOf, example } from '../options.ts';
import { parseTimeout } from '../parse.ts';
import { type TlsFlags, tlsOf, withTls } from '../tls.ts';
import { type TokenFlags, tokenOf, withToken } from '../token.ts';

const FORMATS = ['text', 'json', 'prometheus'];

interface CheckOptions extends TlsFlags, TokenFlags {
  readonly address?: string;
  readonly timeout: number;
  readonly output: string;
  readonly warn?: readonly Limit[];
  readonly critical?: readonly Limit[];
  readonly only?: readonly string[];
  readonly skip?: readonly string[];
}

interface Limit {
  readonly check: string;
  readonly value: number;
}

export function checkCommand(context: Context, outcome: { code: number }): Command {
  const command = withToken(withTls(new Command('check')))
    .description('For monitoring: is the broker, and its cluster, as it should be? One line for each check.')
    .option('--address <host:port>', "the broker's gRPC address (default: BROKER_ADDRESS, else 127.0.0.1:8081)")
    .addOption(
      new Option('--timeout <duration>', 'longest wait for an answer').argParser(parseTimeout).default(5_000, '5s'),
    )
    .addOption(new Option('-o, --output <format>', 'how it is written').choices(FORMATS).default('text'))
    .option('--warn <check=value>', 'from where on it is a warning; may be given again', limits('--warn'))
    .option('--critical <check=value>', 'from where on it is critical; may be given again', limits('--critical'))
    .option('--only <checks>', 'only these, with commas', names('--only'))
    .option('--skip <checks>', 'all but these, with commas', names('--skip'))
    .addHelpText('after', `\nChecks:\n${table()}`)
    .addHelpText(
      'after',
      '\nExit codes of this command, as plugins of Nagios have them: 0 ok, 1 warning, 2 critical (also: no answer), 3 unknown (also: wrong usage). Those of other commands differ.',
    )
    .action(async (options: CheckOptions) => {
      const thresholds = thresholdsOf(options);
      const checks = checksOf(options);
      const addresses = addressesOf(context, options);
      const asksAll = checks.includes('versions') || checks.includes('clock_skew');
      const facts = await gather(context, {
        addresses,
        tls: tlsOf(context.environment, options, addresses),
        token: tokenOf(context.environment, options),
        timeoutMs: options.timeout,
        asksAll,
      });
      const findings = judge(facts, checks, thresholds);
      const address = addresses.join(',');
      if (options.output === 'json') await context.out.json(toJson(findings, address));
      else await context.out.line((options.output === 'text' ? toText : toPrometheus)(findings, address));
      outcome.code = CHECK_EXIT[worst(findings)];
    });
  return example(command, 'broker check', 'broker check --warn lag=1000 --critical lag=100000 -o prometheus');
}

function table(): string {
  const width = Math.max(...Object.keys(CHECKS).map((name) => name.length));
  return Object.entries(CHECKS)
    .map(
      ([
        name,
        {
          what,
          unit,
          bad,
          threshold: { warning, critical },
        },
      ]) => {
        const sign = bad === 'low' ? '<' : '>=';
        const limit = (word: string, value: number | null): string[] =>
          value === null ? [] : [`${word} ${sign} ${value.toLocaleString('en-US')}`];
        const set = [...limit('warning', warning), ...limit('critical', critical)];
        const how = bad === null ? '' : ` (${unit}; ${set.length > 0 ? set.join(', ') : 'no limit unless one is set'})`;
        return `  ${name.padEnd(width)}  ${what}${how}`;
      },
    )
    .join('\n');
}

function known(name: string, option: string): string {
  if (Object.hasOwn(CHECKS, name)) return name;
  throw usageError(`${option} ${name}: there is no such check`, `there are ${Object.keys(CHECKS).join(', ')}`);
}

function limits(option: string): (text: string, before?: readonly Limit[]) => Limit[] {
  return (text, before = []) => {
    const [, name = '', number = ''] = /^([a-z_]+)=(\d{1,15}(?:\.\d{1,6})?)$/.exec(text) ?? [];
    if (name === '') throw usageError(`${option} ${text}: must be CHECK=NUMBER, such as lag=1000`);
    const check = known(name, option);
    if (CHECKS[check]?.bad === null) throw usageError(`${option} ${text}: ${check} has no number to compare with`);
    return [...before, { check, value: Number(number) }];
  };
}

function names(option: string): (text: string, before?: readonly string[]) => string[] {
  return (text, before = []) => [...before, ...text.split(',').map((name) => known(name.trim(), option))];
}

/** A limit that is not set is the default one. */
function thresholdsOf({ warn = [], critical = [] }: CheckOptions): Record<string, Threshold> {
  const thresholds: Record<string, Threshold> = {};
  const put = (level: keyof Threshold, { check, value }: Limit): void => {
    const before = thresholds[check] ?? CHECKS[check]?.threshold ?? { warning: null, critical: null };
    thresholds[check] = { ...before, [level]: value };
  };
  for (const limit of warn) put('warning', limit);
  for (const limit of critical) put('critical', limit);
  return thresholds;
}

function checksOf({ only = [], skip = [] }: CheckOptions): string[] {
  const all = Object.keys(CHECKS);
  const checks = all.filter((name) => (only.length === 0 || only.includes(name)) && !skip.includes(name));
  if (checks.length > 0) return checks;
  throw usageError('no check is left', 'leave out --skip, or name others with --only');
}
