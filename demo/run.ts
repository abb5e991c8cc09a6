/** `npm run demo`: real flight records through a real broker that is killed in the middle, and a check of every one of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { bar, terminalProgress } from '../perf/lib/progress.ts';
import { type Client, connect } from '../src/client/index.ts';
import { STORE_KINDS, type StoreKind } from '../src/config/schema.ts';
import { ServerMissing } from '../test/servers/chosen-server.ts';
import { type BrokerProcess, startBroker } from '../test/support/broker.ts';
import { History, type ReadResult, type Verdict } from '../test/support/checker.ts';
import { BrokerClient, CallError } from '../test/support/client.ts';
import { readOptions } from '../test/support/read-options.ts';
import { endWithReader } from '../test/support/reader-gone.ts';
import { Follower, produce, seen, Tally } from './feed.ts';
import { flightLines, type Line } from './flights.ts';
import { openStore } from './store.ts';

const HELP = `usage: npm run demo -- [options]

Publishes flight records line by line from concurrent producers (the TypeScript client's, on publish streams) to many subjects on a broker of
its own (free ports, a temporary folder), with live subscribers; kills the broker with SIGKILL in the middle, starts it again, changes the number of
its shards while the load goes on, and checks that every acknowledged record is there once, in order, byte for byte.

  --store KIND    where the messages are: ${STORE_KINDS.join(', ')} (embedded). A database is started for the demo, a real one,
                  or is the one that POSTGRES_URL, or CASSANDRA_CONTACT_POINTS and CASSANDRA_DATACENTER (with CASSANDRA_USERNAME
                  and CASSANDRA_PASSWORD), name: there it makes a schema or keyspace demo_..., and leaves it
  --records N     how many of the 220,000 records (100000)
  --seconds N     begin no other record after so long (30)
  --resize LIST   numbers of shards that the broker is changed to in the second half, one after the other (4,2); none: it is left
                  alone. Its address is shown at the start, for changes of your own by \`broker shards resize\`
  --no-kill       the broker is not killed
  --producers N   how many at one time, each with its own producer id (64)
  -o json         the result as JSON
  -h, --help      this text

Exit code: 0 everything is there, 1 something is not, or the store cannot be had, 2 wrong usage.
`;

/** Subscribers follow the subjects with the most records. */
const FOLLOWERS = 24;
const CONNECTIONS = 4;
/** Of the records that were read back from a stream, so many are fetched one by one as well. */
const FETCHED_TOO = 2_000;
const READ_TIMEOUT_MS = 20_000;
const PROGRESS_MS = 200;

interface Settings {
  readonly store: StoreKind;
  readonly producers: number;
  readonly seconds: number;
  /** Numbers of shards, one after the other. */
  readonly resizes: readonly number[];
  readonly isKilled: boolean;
}

interface Kill {
  readonly ackedBefore: number;
  /** On their way when the broker was killed. */
  readonly unanswered: number;
  readonly readyAgainMs: number;
}

interface Outcome {
  readonly store: string;
  /** In the input, and published before the time was up. */
  readonly records: number;
  readonly published: number;
  readonly subjects: number;
  readonly producers: number;
  readonly followers: number;
  /** Null: it was not killed. */
  readonly kill: Kill | null;
  readonly streams: number;
  readonly delivered: number;
  readonly publishSeconds: number;
  /** Each change of the number of shards, and the longest pause of a subject. */
  readonly resizes: readonly { readonly shards: number; readonly pauseMsMax: number }[];
  readonly fetched: number;
  readonly verdict: Verdict;
}

async function demo(
  lines: readonly Line[],
  { store: kind, producers, seconds, resizes, isKilled }: Settings,
  say: (text: string) => void,
): Promise<Outcome> {
  say(kind === 'embedded' ? 'starting a broker' : `starting ${kind} and a broker`);
  await using store = await openStore(kind);
  await using broker = await startBroker({ flags: store.flags });
  process.stderr.write(`demo: a broker at ${broker.address}\n`);
  const history = new History();
  const tally = new Tally();
  const clients = Array.from({ length: CONNECTIONS }, () => new BrokerClient(broker.address, { timeoutMs: 30_000 }));
  await using publishing = connect(broker.address);
  const clientOf = (index: number): BrokerClient => clients[index % CONNECTIONS] as BrokerClient;
  const followers = busiest(lines).map(
    (subject, index) => new Follower(subject, { client: clientOf(index), history, tally }),
  );
  try {
    const timer = setInterval(
      () =>
        say(
          `${bar(tally.acked, lines.length)} ${tally.acked}/${lines.length} acknowledged, ${tally.delivered} delivered live`,
        ),
      PROGRESS_MS,
    );
    const began = performance.now();
    const over = AbortSignal.timeout(seconds * 1_000);
    const work = Array.from({ length: producers }, (_, index) => {
      const own = lines.filter((line) => line.number % producers === index);
      return produce(`demo-producer-${index}`, own, { client: publishing, history, tally, over });
    });
    const reached = (share: number): Promise<void> =>
      until(tally, { acked: lines.length * share, atMs: began + seconds * 1_000 * share });
    const faults = async () => {
      await reached(0.5);
      const kill = isKilled ? await killAndRestart(broker, tally) : null;
      const changed: ShardsStep[] = [];
      for (const [index, shards] of resizes.entries()) {
        await reached(0.5 + (0.5 * (index + 0.5)) / resizes.length);
        changed.push(await resize(publishing, shards));
      }
      return { kill, resizes: changed };
    };
    const [done] = await Promise.all([faults(), ...work]).finally(() => clearInterval(timer));
    const publishSeconds = (performance.now() - began) / 1_000;
    say('reading everything back');
    const fetched = await readEverything(clientOf(0), history);
    await Promise.all(
      followers.map((follower) => follower.finish(history.highestMessage(follower.subject), READ_TIMEOUT_MS)),
    );
    say('checking');
    return {
      store: store.about,
      records: lines.length,
      published: tally.published,
      subjects: history.subjects().length,
      producers,
      followers: followers.length,
      ...done,
      streams: tally.streams,
      delivered: tally.delivered,
      publishSeconds,
      fetched,
      verdict: history.judge(),
    };
  } finally {
    for (const follower of followers) follower.stop();
    for (const client of clients) client.close();
    await broker.stop().catch(() => broker.kill());
  }
}

function busiest(lines: readonly Line[]): string[] {
  const counts = new Map<string, number>();
  for (const { subject } of lines) counts.set(subject, (counts.get(subject) ?? 0) + 1);
  const sorted = [...counts].sort(([, a], [, b]) => b - a);
  return sorted.slice(0, FOLLOWERS).map(([subject]) => subject);
}

/** So many records, or so much of the time, whichever is over first. */
async function until(tally: Tally, part: { readonly acked: number; readonly atMs: number }): Promise<void> {
  while (tally.acked < part.acked && performance.now() < part.atMs) await sleep(5);
}

interface ShardsStep {
  readonly shards: number;
  readonly pauseMsMax: number;
}

/** What `broker shards resize` does. */
async function resize(client: Client, shards: number): Promise<ShardsStep> {
  let change = await client.resizeShards(shards);
  while (change.running) {
    await sleep(20);
    change = (await client.shards()).change ?? change;
  }
  if (change.error !== '') throw new Error(`the change to ${shards} shards failed: ${change.error}`);
  return { shards, pauseMsMax: Math.round(change.pauseMsMax * 10) / 10 };
}

async function killAndRestart(broker: BrokerProcess, tally: Tally): Promise<Kill> {
  const killedAt = performance.now();
  await broker.kill();
  const { acked, published } = tally;
  await broker.restart();
  return { ackedBefore: acked, unanswered: published - acked, readyAgainMs: performance.now() - killedAt };
}

/** By a stream from the beginning of each subject; ids that are not on it, and a sample of those that are, by Fetch. */
async function readEverything(client: BrokerClient, history: History): Promise<number> {
  const stored = new Map<string, ReadResult>();
  const subjects = history.subjects();
  await Promise.all(subjects.map((subject) => readStream(client, subject, history.highestId(subject), stored)));
  const every = Math.max(1, Math.floor(stored.size / FETCHED_TOO));
  let fetched = 0;
  let count = 0;
  await history.readBack(
    async (subject, id) => {
      const found = stored.get(`${subject}/${id}`);
      count += 1;
      if (found !== undefined && count % every !== 0) return found;
      fetched += 1;
      return fetchOne(client, subject, id);
    },
    { from: 'start', concurrency: 32 },
  );
  return fetched;
}

async function readStream(
  client: BrokerClient,
  subject: string,
  until: number,
  into: Map<string, ReadResult>,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, READ_TIMEOUT_MS);
  const subscription = client.subscribe(
    subject,
    { at: 'earliest' },
    {
      onMessage: (message) => {
        into.set(`${subject}/${message.id}`, { kind: 'message', ...seen(message) });
        if (message.id >= until) resolve();
      },
      onEnd: () => resolve(),
    },
  );
  await promise;
  clearTimeout(timer);
  subscription.cancel();
}

async function fetchOne(client: BrokerClient, subject: string, id: number): Promise<ReadResult> {
  try {
    return { kind: 'message', ...seen(await client.fetch(subject, id)) };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    if (error.reason === 'ID_VOID') return { kind: 'void' };
    return error.reason === 'ID_NOT_FOUND' ? { kind: 'absent' } : { kind: 'failed', detail: error.message };
  }
}

function killRows(
  { ackedBefore, unanswered, readyAgainMs }: Kill,
  { streams, producers }: Outcome,
): [string, string][] {
  return [
    [
      'kill -9',
      `after ${ackedBefore} acknowledgements, with ${unanswered} records on their way; ${streams - producers} broken streams were opened again`,
    ],
    ['ready again', `${Math.round(readyAgainMs)} ms after the kill`],
  ];
}

function print(outcome: Outcome): void {
  const { verdict, publishSeconds, kill } = outcome;
  const { violations, counts } = verdict;
  const rows: [string, string][] = [
    ['store', outcome.store],
    [
      'records published',
      `${outcome.published} of ${outcome.records} by ${outcome.producers} producers to ${outcome.subjects} subjects`,
    ],
    [
      'time',
      `${publishSeconds.toFixed(1)} s (${Math.round(outcome.published / publishSeconds)} records/s${kill === null ? '' : ', the outage included'})`,
    ],
    ...(kill === null ? [] : killRows(kill, outcome)),
    ...outcome.resizes.map(({ shards, pauseMsMax }): [string, string] => [
      `resized to ${shards} shards`,
      `under the load; the longest pause of a subject was ${pauseMsMax} ms`,
    ]),
    ['delivered live', `${outcome.delivered} to ${outcome.followers} subscribers, which went on where they stood`],
    ['acknowledged', `${counts.acked}, each of them read back; ${outcome.fetched} of the reads by Fetch`],
    ['stored', `${counts.messages} messages, ${counts.voids} voids`],
    ['lost, doubled, changed, out of order', String(violations.length)],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
  for (const { rule, subject, id, detail } of violations)
    process.stdout.write(`VIOLATION ${rule}: ${subject} id ${id}: ${detail}\n`);
  process.stdout.write(
    violations.length === 0 ? 'OK: every acknowledged record is there once, in order, byte for byte\n' : 'FAILED\n',
  );
}

async function main(): Promise<number> {
  const { values } = readOptions('demo', {
    options: {
      store: { type: 'string', default: 'embedded' },
      records: { type: 'string', default: '100000' },
      seconds: { type: 'string', default: '30' },
      resize: { type: 'string', default: '4,2' },
      producers: { type: 'string', default: '64' },
      'no-kill': { type: 'boolean', default: false },
      output: { type: 'string', short: 'o', default: 'table' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const { records, seconds, producers } = values;
  if ([records, seconds, producers].some((text) => !/^[1-9]\d*$/.test(text))) {
    process.stderr.write('demo: --records, --seconds and --producers take whole numbers from 1\n');
    return 2;
  }
  const store = STORE_KINDS.find((kind) => kind === values.store);
  if (store === undefined) {
    process.stderr.write(`demo: --store is one of ${STORE_KINDS.join(', ')}\n`);
    return 2;
  }
  if (!/^(none|[1-9]\d?(,[1-9]\d?)*)$/.test(values.resize)) {
    process.stderr.write('demo: --resize takes numbers of shards such as 4,2, or none\n');
    return 2;
  }
  const resizes = values.resize === 'none' ? [] : values.resize.split(',').map(Number);
  const progress = terminalProgress();
  const lines = flightLines(Number(records));
  const settings = {
    store,
    producers: Number(producers),
    seconds: Number(seconds),
    resizes,
    isKilled: !values['no-kill'],
  };
  const outcome = await demo(lines, settings, (text) => progress.say(text));
  progress.clear();
  if (values.output === 'json') process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`);
  else print(outcome);
  const complete = outcome.verdict.counts.acked === outcome.published;
  return outcome.verdict.violations.length === 0 && complete ? 0 : 1;
}

endWithReader();
process.exitCode = await main().catch((error: unknown) => {
  const isExplained = error instanceof ServerMissing;
  process.stderr.write(`demo: ${isExplained ? error.message : ((error as Error).stack ?? String(error))}\n`);
  return 1;
});
