/**
 * The kinds of values that a configuration key can have. Each kind reads what a flag, a variable (always text) or the YAML file (text,
 * number or boolean) says, checks its range, and gives the value that the program works with.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { REDACTED } from '../base/redactor.ts';
import { type Endpoint, formatEndpoint, isAnyAddress, parseEndpoint } from './endpoint.ts';
import { nearest } from './names.ts';
import {
  BYTES_PATTERN,
  DURATION_PATTERN,
  formatBytes,
  formatDuration,
  guessBytes,
  guessDuration,
  parseBytes,
  parseDuration,
} from './units.ts';

export type Scalar = string | number | boolean;

/** What the defaults may depend on. */
export interface Machine {
  /** CPU cores that this process may use. */
  readonly cores: number;
}

export type FieldType = 'text' | 'integer' | 'bytes' | 'duration' | 'boolean' | 'choice' | 'endpoint' | 'endpoints';

/** `Suffix` is added to the property name in `Config`: durations end in `Ms`, as their unit. */
export interface Field<T, Suffix extends string = ''> {
  readonly kind: 'field';
  readonly type: FieldType;
  /** Input to value. Its own messages are not shown: `rule` says what is wrong. */
  readonly schema: z.ZodType<T, Scalar>;
  /** The rule that a refused value broke, worded to follow the value. */
  readonly rule: string;
  /** What is wrong with a refused text, where more can be said than the rule; it takes its place. */
  readonly explain?: (text: string) => string | null;
  /** What may have been meant by a refused text, such as 10MiB for 10MB, likeliest first; only what the rule allows is shown. */
  readonly guess: (text: string) => readonly string[];
  readonly default: T | ((machine: Machine) => T);
  /** How the default reads in the documentation. */
  readonly defaultText: string;
  /** Range or choices, in words. */
  readonly range: string;
  /** JSON schema of what may stand in the file. */
  readonly jsonSchema: object;
  /** Meaning; then formula or which way to turn it. Full sentences. */
  readonly doc: string;
  /** Only `format` may show it, also where it is refused. It can be read from a file of its own: the name with `_file`. */
  readonly isSecret?: true;
  /** Of a secret: all that may not be shown of a value. Empty for what has none, such as a URL without a password. */
  secretsIn(value: unknown): readonly string[];
  /** Several values with commas between, which may be a list in the file. */
  readonly isList?: true;
  /** It can be changed while the broker runs. */
  readonly live?: true;
  /** The value is the path of a file that the broker reads. */
  readonly isFile?: true;
  /** The way the value is written in files and tables. A method, so that a list may hold fields of all types. */
  format(value: T): string;
  readonly suffix: Suffix;
  /** Takes the place of the whole key in flag, variable and file. */
  readonly shortName: string | null;
}

interface Common {
  readonly doc: string;
  readonly shortName?: string;
  /** It can be changed while the broker runs: some part registers for it with `LiveSettings`. */
  readonly live?: true;
}

/** What every kind of field says of itself in the same way. */
export function about({ doc, shortName, live }: Common) {
  const isLive = live === undefined ? {} : { live };
  return { kind: 'field' as const, doc, shortName: shortName ?? null, secretsIn: () => [], ...isLive };
}

/** Limits of a quantity, with units. `zero` allows 0 beside them and says what it means. */
interface Range {
  readonly min: string;
  readonly max: string;
  readonly zero?: string;
}

type TextOptions = Common & {
  readonly pattern: RegExp;
  readonly rule: string;
  readonly isList?: true;
  readonly isFile?: true;
};

function textField(options: TextOptions) {
  return {
    ...about(options),
    type: 'text' as const,
    schema: z
      .union([z.string(), z.number()])
      .transform(String)
      .pipe(z.string().regex(options.pattern)) as ScalarTo<string>,
    rule: `must be ${options.rule}`,
    ...(options.isList === undefined ? {} : { isList: options.isList }),
    ...(options.isFile === undefined ? {} : { isFile: options.isFile }),
    guess: () => [],
    range: options.rule,
    jsonSchema: textSchema(options),
    suffix: '' as const,
  };
}

/** A name may look like a number to YAML. */
function textSchema({ pattern, isList }: TextOptions): object {
  const string = { type: 'string', pattern: pattern.source };
  const list = isList === true ? [{ type: 'array', minItems: 1, items: { type: ['string', 'number'] } }] : [];
  const number = pattern.test('1') ? [{ type: 'number' }] : [];
  return number.length + list.length === 0 ? string : { anyOf: [string, ...number, ...list] };
}

export function text(options: TextOptions & { readonly default: string }): Field<string> {
  return { ...textField(options), default: options.default, defaultText: options.default, format: (value) => value };
}

/** Shown instead of what nobody should read over a shoulder or in a log. */
export const MASK = REDACTED;

/** What may be seen of a secret, and the parts of it that may not. */
export interface Disguise {
  readonly mask: (value: string) => string;
  readonly secretsIn: (value: string) => readonly string[];
}

const WHOLE: Disguise = { mask: () => MASK, secretsIn: (value) => [value] };

/** Text that may stay unset and is never shown. */
export function secretText(
  options: TextOptions & { readonly unset: string; readonly disguise?: Disguise },
): Field<string | null> {
  const { mask, secretsIn } = options.disguise ?? WHOLE;
  return {
    ...optionalText(options),
    isSecret: true,
    secretsIn: (value) => secretsIn(String(value)),
    format: (value) => (value === null ? `(${options.unset})` : mask(value)),
  };
}

/** Text that may stay unset; `unset` says what happens then. */
export function optionalText(options: TextOptions & { readonly unset: string }): Field<string | null> {
  return {
    ...textField(options),
    schema: textField(options).schema as unknown as ScalarTo<string | null>,
    default: null,
    defaultText: options.unset,
    format: (value) => value ?? `(${options.unset})`,
  };
}

export function integer(
  options: Common & {
    readonly min: number;
    readonly max: number;
    readonly odd?: boolean;
    readonly default: number | ((machine: Machine) => number);
    readonly defaultText?: string;
  },
): Field<number> {
  const { min, max } = options;
  const range = `${options.odd === true ? 'an odd number from ' : ''}${formatInteger(min)} to ${formatInteger(max)}`;
  const fits = (value: number): boolean => options.odd !== true || value % 2 === 1;
  const input = z.union([z.int().min(min).max(max), z.string().regex(/^\d+$/)]);
  return {
    ...about(options),
    type: 'integer',
    schema: input.transform(Number).pipe(z.int().min(min).max(max).refine(fits)) as unknown as ScalarTo<number>,
    rule: `must be ${options.odd === true ? '' : 'a whole number from '}${range}`,
    guess: (given) => (/^\d[\d_,]*$/.test(given) ? [given.replace(/[_,]/g, '')] : []),
    default: options.default,
    defaultText: options.defaultText ?? formatInteger(Number(options.default)),
    range,
    jsonSchema: {
      anyOf: [
        options.odd === true ? { enum: odds(min, max) } : { type: 'integer', minimum: min, maximum: max },
        { type: 'string', pattern: '^\\d+$' },
      ],
    },
    format: String,
    suffix: '',
  };
}

function odds(min: number, max: number): readonly number[] {
  return Array.from({ length: max - min + 1 }, (_, index) => min + index).filter((value) => value % 2 === 1);
}

export function bytes(
  options: Common & Range & { readonly default: string; readonly powerOfTwo?: boolean },
): Field<number> {
  const range = rangeInWords(options, options.powerOfTwo === true ? 'a power of two from ' : '');
  const input = z.union([z.int().min(0), z.string().regex(new RegExp(BYTES_PATTERN))]);
  const isPower = (value: number): boolean => options.powerOfTwo !== true || Number.isInteger(Math.log2(value));
  return {
    ...about(options),
    type: 'bytes',
    schema: quantity(input, parseBytes, options).refine(isPower),
    rule: `must be ${options.powerOfTwo === true ? '' : 'a size from '}${range}; write it such as 64KiB or 1MiB`,
    guess: guessBytes,
    default: read(parseBytes, options.default),
    defaultText: defaultInWords(options),
    range,
    jsonSchema: {
      anyOf: [
        {
          type: 'integer',
          minimum: options.zero === undefined ? read(parseBytes, options.min) : 0,
          maximum: read(parseBytes, options.max),
        },
        { type: 'string', pattern: BYTES_PATTERN },
      ],
    },
    format: formatBytes,
    suffix: '',
  };
}

/** The value is in ms. */
export function duration(options: Common & Range & { readonly default: string }): Field<number, 'Ms'> {
  const range = rangeInWords(options, '');
  const input = z.union([z.literal(0), z.string().regex(new RegExp(DURATION_PATTERN))]);
  return {
    ...about(options),
    type: 'duration',
    schema: quantity(input, parseDuration, options),
    rule: `must be a duration from ${range}; write it with its unit, such as 250ms, 10s or 24h`,
    guess: guessDuration,
    default: read(parseDuration, options.default),
    defaultText: defaultInWords(options),
    range,
    jsonSchema: { anyOf: [{ type: 'string', pattern: DURATION_PATTERN }, { const: 0 }] },
    format: formatDuration,
    suffix: 'Ms',
  };
}

const BOOLEAN_WORDS: Readonly<Record<string, string>> = {
  '1': 'true',
  yes: 'true',
  on: 'true',
  true: 'true',
  '0': 'false',
  no: 'false',
  off: 'false',
  false: 'false',
};

export function boolean(options: Common & { readonly default: boolean }): Field<boolean> {
  const input = z.union([z.boolean(), z.enum(['true', 'false'])]);
  return {
    ...about(options),
    type: 'boolean',
    schema: input.transform((given) => given === true || given === 'true') as unknown as ScalarTo<boolean>,
    rule: 'must be true or false',
    guess: (given) => listOf(BOOLEAN_WORDS[given.toLowerCase()]),
    default: options.default,
    defaultText: String(options.default),
    range: 'true or false',
    jsonSchema: { enum: [true, false, 'true', 'false'] },
    format: String,
    suffix: '',
  };
}

export function choice<const T extends string>(
  options: Common & { readonly values: readonly [T, ...T[]]; readonly default: NoInfer<T>; readonly rule?: string },
): Field<T> {
  const range = options.values.join(', ');
  return {
    ...about(options),
    type: 'choice',
    schema: z.enum(options.values) as unknown as ScalarTo<T>,
    rule: options.rule ?? `must be one of ${range}`,
    guess: (given) => listOf(nearest(given.toLowerCase(), options.values)),
    default: options.default,
    defaultText: options.default,
    range,
    jsonSchema: { enum: options.values },
    format: (value) => value,
    suffix: '',
  };
}

export function endpoint(options: Common & { readonly default: string }): Field<Endpoint> {
  const schema = z.string().transform((input, context): Endpoint => {
    const parsed = parseEndpoint(input);
    if (parsed !== null) return Object.freeze(parsed);
    context.issues.push({ code: 'custom', input });
    return z.NEVER;
  });
  return {
    ...about(options),
    type: 'endpoint',
    schema: schema as unknown as ScalarTo<Endpoint>,
    rule: 'must be HOST:PORT, with IPv6 addresses in brackets, such as 127.0.0.1:8081 or [::1]:8081',
    guess: (given) => (/^:?\d{1,5}$/.test(given) ? [`127.0.0.1:${given.replace(':', '')}`] : []),
    default: Object.freeze(read(parseEndpoint, options.default)),
    defaultText: options.default,
    range: 'HOST:PORT; port 0 lets the system choose one',
    jsonSchema: { type: 'string', pattern: '^(\\[[^\\s\\]]+\\]|[^\\s:]+):\\d{1,5}$' },
    format: formatEndpoint,
    suffix: '',
  };
}

const ENDPOINTS_MAX = 16;

/** How an address that one can connect to may be written. */
interface ReachableOptions {
  /** Where none is given; absent: one must be given. */
  readonly port?: number;
  /** Whether it must be a name, which is looked up, or an address; absent: either. */
  readonly host?: 'name' | 'address';
}

function reachable({ port, host }: ReachableOptions): z.ZodType<Endpoint, string> {
  return z.string().transform((input, context): Endpoint => {
    // A bare number is a port that lacks its host, not a host of that name.
    const mayLackPort = port !== undefined && !/^\d+$/.test(input);
    const parsed = parseEndpoint(input) ?? (mayLackPort ? parseEndpoint(`${input}:${port}`) : null);
    const fits = parsed !== null && parsed.port > 0 && !isAnyAddress(parsed) && isOf(host, parsed);
    if (fits) return Object.freeze(parsed);
    context.issues.push({ code: 'custom', input });
    return z.NEVER;
  });
}

function isOf(kind: ReachableOptions['host'], { host }: Endpoint): boolean {
  return kind === undefined || (isIP(host) === 0) === (kind === 'name');
}

/** For editors: the host is judged by `reachable` alone. */
function reachablePattern({ port }: ReachableOptions): string {
  return `(\\[[^\\s\\]]+\\]|[^\\s:,]+)${port === undefined ? ':\\d{1,5}' : '(:\\d{1,5})?'}`;
}

function portInWords({ port }: ReachableOptions): string {
  return port === undefined ? '' : `; without a port it is ${port}`;
}

/** Where others are reached; null if unset. */
export function optionalEndpoint(
  options: Common & ReachableOptions & { readonly unset: string },
): Field<Endpoint | null> {
  const range = options.host === 'name' ? 'a name, or NAME:PORT' : 'HOST:PORT as others reach it';
  return {
    ...endpoint({ ...options, default: '127.0.0.1:1' }),
    schema: reachable(options) as unknown as ScalarTo<Endpoint | null>,
    rule: `must be ${options.host === 'name' ? `${range}, and no address` : `${range}: not 0.0.0.0 or [::], and no port 0`}`,
    default: null,
    defaultText: options.unset,
    range: `${range}${portInWords(options)}`,
    jsonSchema: { type: 'string', pattern: `^${reachablePattern(options)}$` },
    format: (value) => (value === null ? `(${options.unset})` : formatEndpoint(value)),
  };
}

/** HOST:PORT of others, one or several with commas between. */
export function endpoints(
  options: Common & ReachableOptions & { readonly unset: string },
): Field<readonly Endpoint[] | null> {
  const schema = z
    .string()
    .transform((input) => input.split(',').map((one) => one.trim()))
    .pipe(z.array(reachable(options)).max(ENDPOINTS_MAX))
    .transform((list) => Object.freeze(list));
  const { port = 8081 } = options;
  const what = options.host === 'address' ? 'ADDRESS:PORT (no name)' : 'HOST:PORT';
  return {
    ...about(options),
    type: 'endpoints',
    isList: true,
    schema: schema as unknown as ScalarTo<readonly Endpoint[] | null>,
    rule: `must be ${what}, or up to ${ENDPOINTS_MAX} of them with commas between, such as 10.0.0.1:${port},10.0.0.2:${port}`,
    guess: (given) => (/^:?\d{1,5}$/.test(given) ? [`127.0.0.1:${given.replace(':', '')}`] : []),
    default: null,
    defaultText: options.unset,
    range: `HOST:PORT, up to ${ENDPOINTS_MAX} with commas between${portInWords(options)}`,
    jsonSchema: {
      anyOf: [
        { type: 'string', pattern: `^ *${reachablePattern(options)}( *, *${reachablePattern(options)})* *$` },
        {
          type: 'array',
          minItems: 1,
          maxItems: ENDPOINTS_MAX,
          items: { type: 'string', pattern: `^${reachablePattern(options)}$` },
        },
      ],
    },
    format: (value) => (value === null ? `(${options.unset})` : value.map(formatEndpoint).join(',')),
    suffix: '',
  };
}

/** A schema that may be handed any scalar: zod types it by the scalars it accepts, but tells the others by itself. */
type ScalarTo<T> = z.ZodType<T, Scalar>;

function quantity(
  input: z.ZodType<string | number>,
  parse: (text: string) => number | null,
  range: Range,
): z.ZodType<number, Scalar> {
  const min = read(parse, range.min);
  const max = read(parse, range.max);
  const schema = input.transform((given, context): number => {
    const value = parse(String(given));
    const isInRange = value !== null && value >= min && value <= max;
    if (value !== null && (isInRange || (value === 0 && range.zero !== undefined))) return value;
    context.issues.push({ code: 'custom', input: given });
    return z.NEVER;
  });
  return schema as unknown as ScalarTo<number>;
}

function listOf(value: string | null | undefined): readonly string[] {
  return value === null || value === undefined ? [] : [value];
}

function rangeInWords(range: Range, prefix: string): string {
  return `${prefix}${range.min} to ${range.max}${range.zero === undefined ? '' : `, or 0 (${range.zero})`}`;
}

function defaultInWords(options: Range & { readonly default: string }): string {
  return options.default === '0' && options.zero !== undefined ? `0 (${options.zero})` : options.default;
}

/** Thousands with commas, as documentation writes them. */
function formatInteger(value: number): string {
  return value.toLocaleString('en-US');
}

/** Reads a literal of the schema itself. */
function read<T>(parse: (text: string) => T | null, literal: string): T {
  const value = parse(literal);
  if (value === null) throw new Error(`config schema: cannot read ${literal}`);
  return value;
}
