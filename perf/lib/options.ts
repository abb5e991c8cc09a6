/** Flags that all scenarios share, read once. */

import { parseArgs } from 'node:util';
import { STORE_KINDS, type StoreKind } from '../../src/config/schema.ts';
import { type Assertion, parseAssertion } from './assertions.ts';
import { parseRates } from './rates.ts';
import type { ClientKind } from './transport.ts';

export interface Options {
  readonly rounds: number;
  readonly durationMs: number;
  readonly warmupMs: number;
  readonly inFlight: number;
  readonly connections: number;
  readonly subjects: number;
  readonly bodyBytes: number;
  /** Messages to store first (`fetch`), or subjects to make (`subjects`). */
  readonly messages: number;
  readonly streams: number;
  /** As `parseRates` reads it; null: closed loop. */
  readonly rate: string | null;
  /** Search the highest rate at which p99 stays below this, in ms. */
  readonly findMaxMs: number | null;
  readonly frameBytes: number;
  /** Batches of a frame; null: one for each subject. */
  readonly batches: number | null;
  /** Frames that a publish stream may have unanswered. */
  readonly framesInFlight: number;
  readonly assertions: readonly Assertion[];
  /** Names behind `peers`; none: all. */
  readonly peers: readonly string[];
  readonly fillBytes: number;
  /** Leaders that `failover` kills; half as many followers. */
  readonly kills: number;
  /** Of the scenario `store`. */
  readonly store: StoreKind;
  /** null: the broker's own default. */
  readonly shards: number | null;
  readonly threads: number;
  readonly client: ClientKind;
  readonly cpuProfileDir: string | null;
  readonly json: string | null;
  /** What follows `--`: flags for `broker serve`. */
  readonly serveFlags: readonly string[];
}

export class UsageError extends Error {
  override name = 'UsageError';
}

const FLAGS = {
  duration: { type: 'string', about: 'seconds that a round is measured' },
  warmup: { type: 'string', about: 'seconds before that' },
  rounds: { type: 'string', about: 'rounds of broker and baseline in turn' },
  'in-flight': { type: 'string', about: 'calls at one time' },
  connections: { type: 'string', about: 'client connections' },
  subjects: { type: 'string', about: 'subjects that the load uses' },
  body: { type: 'string', about: 'bytes of a message body' },
  messages: { type: 'string', about: 'messages stored first' },
  streams: { type: 'string', about: 'subscribers of fanout, publish streams, idle streams' },
  rate: { type: 'string', about: 'open loop at so many a second: 1000, 1k,2k,5k (steps), 1k..5k (ramp)' },
  'find-max': { type: 'string', about: 'stream, unary: highest rate whose p99 stays under this, such as 20ms' },
  frame: { type: 'string', about: "KiB of a publish stream's frame" },
  batches: { type: 'string', about: 'batches of a frame (default: one for each subject)' },
  'frames-in-flight': { type: 'string', about: 'frames that a publish stream may have unanswered' },
  assert: { type: 'string', multiple: true, about: "limit on a figure, such as 'p99<5ms'; may be repeated" },
  'fill-mib': { type: 'string', about: 'MiB of bodies that recover writes' },
  kills: { type: 'string', about: 'failover: leaders that are killed' },
  install: { type: 'boolean', about: 'peers: fetch or build what is missing, with the ordinary package clients' },
  store: { type: 'string', about: `store: ${STORE_KINDS.join(', ')}` },
  shards: { type: 'string', about: 'shard threads of the broker (its default: cores - 1)' },
  threads: { type: 'string', about: 'generator threads' },
  client: { type: 'string', about: 'raw (default) or grpc-js' },
  'cpu-prof': { type: 'string', about: 'folder for CPU profiles of the servers' },
  json: { type: 'string', about: 'file for the results (default: perf/results/); .html and .hgrm go beside it' },
} as const;

interface Bounds {
  readonly min: number;
  readonly max: number;
  /** Whether parts of a whole make sense. */
  readonly isWhole: boolean;
}

const whole = (min: number, max: number): Bounds => ({ min, max, isWhole: true });
const broken = (min: number, max: number): Bounds => ({ min, max, isWhole: false });

/** What a run can be made with, each in the unit of its flag: with less nothing is measured, more is a slip of the hand. */
const BOUNDS = {
  duration: broken(0.1, 7 * 86_400),
  warmup: broken(0, 86_400),
  rounds: whole(1, 1_000),
  'in-flight': whole(1, 1_000_000),
  connections: whole(1, 10_000),
  subjects: whole(1, 1_000_000),
  body: whole(0, 1 << 30),
  messages: whole(1, 1e12),
  streams: whole(1, 100_000),
  frame: broken(1, 64 << 10),
  batches: whole(1, 65_536),
  'frames-in-flight': whole(1, 65_536),
  'fill-mib': broken(1, 1 << 20),
  kills: whole(1, 100_000),
  /** As `shards.count` of src/config/schema.ts. */
  shards: whole(1, 64),
  threads: whole(1, 256),
} satisfies Partial<Record<keyof typeof FLAGS, Bounds>>;

export function flagsHelp(): string {
  return Object.entries(FLAGS)
    .map(([name, { about }]) => `  --${name.padEnd(13)} ${about}`)
    .join('\n');
}

export const DEFAULTS: Options = {
  rounds: 5,
  durationMs: 5_000,
  warmupMs: 2_000,
  inFlight: 256,
  connections: 4,
  subjects: 16,
  bodyBytes: 256,
  messages: 1_000_000,
  streams: 20,
  rate: null,
  findMaxMs: null,
  frameBytes: 64 << 10,
  batches: null,
  framesInFlight: 16,
  assertions: [],
  peers: [],
  fillBytes: 1 << 30,
  kills: 6,
  store: 'postgres',
  shards: null,
  threads: 1,
  client: 'raw',
  cpuProfileDir: null,
  json: null,
  serveFlags: [],
};

export interface CommandLine {
  readonly names: readonly string[];
  readonly wantsInstall: boolean;
  options(scenarioDefaults: Partial<Options>): Options;
}

export function readCommandLine(argv: readonly string[]): CommandLine {
  const dashes = argv.indexOf('--');
  const own = dashes < 0 ? argv : argv.slice(0, dashes);
  const serveFlags = dashes < 0 ? [] : argv.slice(dashes + 1);
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(own);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const given = parsed.values as Record<string, string | undefined>;
  const number = (flag: keyof typeof BOUNDS, scale = 1): number | undefined => numberOf(flag, given[flag], scale);
  const { client } = given;
  if (client !== undefined && client !== 'raw' && client !== 'grpc-js') {
    throw new UsageError(`--client ${client}: must be raw or grpc-js`);
  }
  const fromFlags: { [K in keyof Options]?: Options[K] | undefined } = {
    rounds: number('rounds'),
    durationMs: number('duration', 1_000),
    warmupMs: number('warmup', 1_000),
    inFlight: number('in-flight'),
    connections: number('connections'),
    subjects: number('subjects'),
    bodyBytes: number('body'),
    messages: number('messages'),
    streams: number('streams'),
    rate: rateOf(given.rate),
    findMaxMs: limitOf(given['find-max']),
    frameBytes: number('frame', 1 << 10),
    batches: number('batches'),
    framesInFlight: number('frames-in-flight'),
    assertions: assertionsOf(parsed.values.assert as readonly string[] | undefined),
    fillBytes: number('fill-mib', 1 << 20),
    kills: number('kills'),
    store: storeOf(given.store),
    shards: number('shards'),
    threads: number('threads'),
    client,
    cpuProfileDir: given['cpu-prof'],
    json: given.json,
  };
  const set = Object.fromEntries(Object.entries(fromFlags).filter(([, value]) => value !== undefined));
  return {
    names: parsed.positionals,
    wantsInstall: parsed.values.install === true,
    options: (scenarioDefaults) => ({ ...DEFAULTS, ...scenarioDefaults, ...(set as Partial<Options>), serveFlags }),
  };
}

function numberOf(flag: keyof typeof BOUNDS, text: string | undefined, scale: number): number | undefined {
  if (text === undefined) return undefined;
  const { min, max, isWhole } = BOUNDS[flag];
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= min && value <= max) || (isWhole && !Number.isInteger(value))) {
    throw new UsageError(`--${flag} ${text}: must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}`);
  }
  return value * scale;
}

/** Looked at here so that a wrong one is told before anything runs. */
function rateOf(text: string | undefined): string | undefined {
  if (text !== undefined) usage(() => parseRates(text, { warmupMs: 1, durationMs: 1 }));
  return text;
}

function storeOf(text: string | undefined): StoreKind | undefined {
  const store = STORE_KINDS.find((name) => name === text);
  if (text !== undefined && store === undefined)
    throw new UsageError(`--store ${text}: must be ${STORE_KINDS.join(', ')}`);
  return store;
}

function limitOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const wrong = new UsageError(`--find-max ${text}: must be a time above 0 with its unit (us, ms or s), such as 20ms`);
  let assertion: Assertion;
  try {
    assertion = parseAssertion(`p99<${text}`);
  } catch (error) {
    wrong.cause = error;
    throw wrong;
  }
  if (assertion.kind !== 'time' || assertion.limit <= 0) throw wrong;
  return assertion.limit;
}

function assertionsOf(texts: readonly string[] | undefined): Assertion[] | undefined {
  return texts?.map((text) => usage(() => parseAssertion(text)));
}

function usage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function parse(argv: readonly string[]) {
  const options = Object.fromEntries(
    Object.entries(FLAGS).map(([name, flag]) => [name, { type: flag.type, multiple: 'multiple' in flag }]),
  );
  return parseArgs({ args: [...argv], options, allowPositionals: true });
}
