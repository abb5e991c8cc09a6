/** Twice and five times what a store takes, with short deadlines and a subscriber that never reads: what is answered, what memory it costs, and what was done in vain. */
import { connect } from 'node:http2';
import { frameOf } from '../../src/grpc/frame.ts';
import { Metrics, numbered, rssOf } from '../e2e/flow-rig.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { History } from '../support/checker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { encodeSubscribe } from '../support/wire.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignRow } from './campaign.ts';
import { reader } from './kill-load.ts';
import { pause } from './rig.ts';

/** A durable write takes at least 40 ms, so that the store is what is slow, on any machine: then messages a write are a rate without a clock. */
const SLOW_STORE = { BROKER_FAILPOINTS: 'segment.sync=sleep:40' };
const FLAGS = [
  ...[
    '--shards',
    '1',
    '--limits-message-bytes',
    '64KiB',
    '--limits-body-bytes',
    '16KiB',
    '--limits-headers-bytes',
    '4KiB',
  ],
  ...['--batch-bytes', '16KiB', '--ring-bytes', '256KiB', '--limits-in-flight-calls', '1200'],
];
const SUBJECT = 'over.load';
const CLIENTS = 4;
/** Calls at a time that keep every write full. */
const PEAK_WIDTH = 400;
const PEAK_MS = 5_000;
const BODY_BYTES = 128;
const PATIENT_MS = 10_000;
/** Of every third call: shorter than one write, so that it expires unless it is lucky. */
const HASTY_MS = 50;
const LOOK_MS = 100;

const GOODPUT_MIN = 0.9;
/** More than before: what is in flight, one subscriber's buffer, garbage. */
const GROWTH_BYTES_MAX = 128 << 20;
const mib = (bytes: number): number => Math.round(bytes / (1 << 20));

interface Phase {
  readonly acked: number;
  readonly refused: number;
  readonly expired: number;
  /** Acknowledged for each write of the store. */
  readonly perWrite: number;
  readonly rssPeak: number;
}

class Crowd {
  readonly history = new History();
  readonly #broker: BrokerProcess;
  readonly #clients: readonly BrokerClient[];
  #number = 0;
  acked = 0;
  refused = 0;
  expired = 0;

  constructor(broker: BrokerProcess) {
    this.#broker = broker;
    this.#clients = Array.from({ length: CLIENTS }, () => new BrokerClient(broker.address));
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }

  async run(width: number, ms: number, onLook: (gone: number) => void): Promise<Phase> {
    const before = { acked: this.acked, refused: this.refused, expired: this.expired, writes: await this.#writes() };
    let isOver = false;
    const worker = async (): Promise<void> => {
      while (!isOver) await this.#publish();
    };
    const workers = Promise.all(Array.from({ length: width }, worker));
    let rssPeak = 0;
    const begun = performance.now();
    for (let gone = 0; gone < ms; gone = performance.now() - begun) {
      rssPeak = Math.max(rssPeak, rssOf(this.#broker));
      onLook(gone);
      await pause(LOOK_MS);
    }
    isOver = true;
    const acked = this.acked - before.acked;
    const perWrite = acked / ((await this.#writes()) - before.writes);
    await workers;
    return { acked, perWrite, rssPeak, refused: this.refused - before.refused, expired: this.expired - before.expired };
  }

  async #writes(): Promise<number> {
    return (await Metrics.of(this.#broker)).sum('broker_shard_groups_total');
  }

  async #publish(): Promise<void> {
    const number = this.#number++;
    const body = numbered(number, BODY_BYTES);
    const attempt = this.history.beginAttempt(this.history.submit({ subject: SUBJECT, payload: body }));
    const client = this.#clients[number % CLIENTS] as BrokerClient;
    try {
      const id = await client.publish({ subject: SUBJECT, body }, number % 3 === 0 ? HASTY_MS : PATIENT_MS);
      this.history.endAttempt(attempt, { outcome: 'ok', id });
      this.acked += 1;
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      this.history.endAttempt(attempt, { outcome: error.outcome });
      if (error.statusName === 'RESOURCE_EXHAUSTED') this.refused += 1;
      else if (error.statusName === 'DEADLINE_EXCEEDED') this.expired += 1;
      else throw error;
      await pause(error.retryAfterMs ?? 1);
    }
  }
}

/** A subscription whose client never opens its window. */
function stalledSubscriber(address: string): Disposable {
  const session = connect(`http://${address}`, { settings: { initialWindowSize: 0 } });
  session.on('error', () => undefined);
  const head = { ':method': 'POST', ':path': '/broker.Broker/Subscribe', te: 'trailers' };
  const stream = session.request({ ...head, 'content-type': 'application/grpc' });
  stream.on('error', () => undefined);
  stream.end(frameOf(encodeSubscribe(SUBJECT, { at: 'earliest' })));
  return { [Symbol.dispose]: () => session.destroy() };
}

export interface Overload {
  readonly rows: readonly CampaignRow[];
  readonly violations: readonly string[];
}

/** `ms`: of each factor. */
export async function overloaded(ms: number, onProgress: (factor: number, gone: number) => void): Promise<Overload> {
  await using broker = await startBroker({ flags: FLAGS, env: SLOW_STORE });
  const crowd = new Crowd(broker);
  using _closing = { [Symbol.dispose]: () => crowd.close() };
  using _stalled = stalledSubscriber(broker.address);
  const violations: string[] = [];
  await crowd.run(PEAK_WIDTH, PEAK_MS / 2, () => undefined);
  const before = rssOf(broker);
  const peak = await crowd.run(PEAK_WIDTH, PEAK_MS, () => onProgress(1, 0));
  const rows = [row('peak', peak, peak)];
  for (const factor of [2, 5]) {
    const phase = await crowd.run(PEAK_WIDTH * factor, ms, (gone) => onProgress(factor, gone));
    rows.push(row(`${factor}x`, phase, peak));
    const share = phase.perWrite / peak.perWrite;
    if (share < GOODPUT_MIN) violations.push(`${factor}x: ${(share * 100).toFixed(0)} % of the peak`);
    if (phase.rssPeak - before > GROWTH_BYTES_MAX)
      violations.push(`${factor}x: ${mib(phase.rssPeak - before)} MiB more`);
    if (phase.refused === 0 || phase.expired === 0) violations.push(`${factor}x: nothing was refused, or expired`);
  }
  violations.push(...(await doneInVain(broker, crowd)));
  return { rows, violations };
}

/** Ids of calls that had expired when they were begun; and what the checker says. */
async function doneInVain(broker: BrokerProcess, crowd: Crowd): Promise<string[]> {
  const client = new BrokerClient(broker.address);
  try {
    const last = Buffer.from('the last of all');
    const attempt = crowd.history.beginAttempt(crowd.history.submit({ subject: SUBJECT, payload: last }));
    const head = await client.publish({ subject: SUBJECT, body: last });
    crowd.history.endAttempt(attempt, { outcome: 'ok', id: head });
    const served = (await Metrics.of(broker)).sum('rpc_request_get_method_count', 'publish"', '"OK"');
    await crowd.history.readBack(reader(client), { from: 'start', concurrency: 32 });
    const { violations } = crowd.history.judge();
    const found = violations.map((violation) => JSON.stringify(violation));
    // A call that gets an id is served, also if its client gives up meanwhile.
    if (head > served) found.push(`${head - served} ids were given to calls that were refused`);
    return found;
  } finally {
    client.close();
  }
}

function row(name: string, { acked, refused, expired, perWrite, rssPeak }: Phase, peak: Phase): CampaignRow {
  return {
    load: name,
    acknowledged: acked,
    refused,
    expired,
    'messages a write': perWrite.toFixed(1),
    'of the peak': (perWrite / peak.perWrite).toFixed(2),
    'RSS, MiB': mib(rssPeak),
  };
}

async function runOverload({ runs, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const { rows, violations } = await overloaded(runs * 1_000, (factor, gone) =>
    onProgress(Math.floor(gone / 1_000), runs, `seconds of ${factor}x`),
  );
  return { rows, violations, notes: [] };
}

export const overload: Campaign = {
  name: 'overload',
  about: 'twice and five times what a slow store takes, for so many seconds each, and a subscriber that never reads',
  defaultRuns: 300,
  run: runOverload,
};
