/** A steady load for hours, with subscribers that come and go: does memory grow, does a handle stay open, does the disk fill, is anything lost? */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { type Client, connect } from '../../src/client/index.ts';
import { type BrokerOptions, BrokerProcess } from '../support/broker.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';

const SUBJECTS = Array.from({ length: 16 }, (_, n) => `soak.${n}`);
const BODY = Buffer.alloc(200, 's');
const MIB = 2 ** 20;
/** Of what the broker takes at most: the load of a machine that is used well. */
const LOAD_SHARE = 0.7;
const PACE_MS = 10;
const SUBSCRIBERS = 8;
const SUBSCRIBER_MS_MAX = 20_000;
/** It is kept to from time to time: a fast machine writes hundreds of MiB in between. Beside the segments, which it bounds, there is the Raft log. */
const RETENTION_BYTES = 1024 * MIB;
/** Files that are open besides what the start left: connections of clients between two looks, and segments that are read, up to 64 for each shard. */
const FILES_SLACK = 150;
/** Memory may grow by so much in an hour, by a line through all looks of an hour or more; a shorter run sees more noise than growth. */
const SLOPE_MIB_MAX = 5;
const HOUR_MS = 3_600_000;
const WARMING_MS = 300_000;
const SETTLE_LOOK_MS = 100;
const SETTLE_LOOKS = 100;

export interface SoakPlan {
  readonly durationMs: number;
  readonly calibrateMs: number;
  readonly lookEveryMs: number;
  readonly seed: number;
  readonly options?: BrokerOptions;
  readonly onLook?: (share: number, look: Look) => void;
}

export interface Look {
  /** From the beginning, in ms. */
  readonly at: number;
  readonly rssBytes: number;
  readonly files: number;
  readonly threads: number;
  readonly diskBytes: number;
}

export interface Soaked {
  readonly looks: readonly Look[];
  /** Messages a second that were wanted, and those that were acknowledged. */
  readonly rate: number;
  readonly acked: number;
  readonly delivered: number;
  /** Subscriptions that came and went. */
  readonly visits: number;
  readonly slopeMibPerHour: number;
  readonly violations: readonly string[];
}

export async function runSoak(plan: SoakPlan): Promise<Soaked> {
  const flags = ['--retention-max-bytes', String(RETENTION_BYTES), '--segment-bytes', '8MiB'];
  const broker = await BrokerProcess.create({ ...plan.options, flags });
  try {
    await broker.restart();
    return await soak(broker, plan);
  } finally {
    await broker[Symbol.asyncDispose]();
  }
}

async function soak(broker: BrokerProcess, plan: SoakPlan): Promise<Soaked> {
  await using client = connect(broker.address);
  const rate = Math.round((await mostOf(client, plan.calibrateMs)) * LOAD_SHARE);
  const load = new Pacer(client, rate);
  const visitors = new Visitors(broker.address, plan.seed);
  const violations: string[] = [];
  const looks: Look[] = [];
  const begun = performance.now();
  const running = [load.run(), ...Array.from({ length: SUBSCRIBERS }, () => visitors.run())];
  while (performance.now() - begun < plan.durationMs && broker.running) {
    await sleep(Math.min(plan.lookEveryMs, plan.durationMs - (performance.now() - begun)));
    const look = { at: performance.now() - begun, ...lookAt(broker) };
    looks.push(look);
    plan.onLook?.(Math.min(1, look.at / plan.durationMs), look);
  }
  load.stop();
  visitors.stop();
  await Promise.all(running);
  if (!broker.running) return { ...empty(rate), looks, violations: [`the broker ended\n${broker.logs}`] };
  const { stored, failed } = load;
  if (failed > 0) violations.push(`${failed} publishes failed`);
  violations.push(...(await unlike(client, load.storedOf)), ...visitors.faults);
  // Behind what a start warms up.
  const settled = looks.slice(Math.floor(looks.length / 5));
  const slopeMibPerHour = slope(settled.map(({ at, rssBytes }) => [at / HOUR_MS, rssBytes / MIB]));
  violations.push(...grown(settled, slopeMibPerHour, plan.durationMs));
  return {
    looks,
    rate,
    acked: stored,
    delivered: visitors.delivered,
    visits: visitors.visits,
    slopeMibPerHour,
    violations,
  };
}

function empty(rate: number): Omit<Soaked, 'looks' | 'violations'> {
  return { rate, acked: 0, delivered: 0, visits: 0, slopeMibPerHour: Number.NaN };
}

function grown(looks: readonly Look[], slopeMibPerHour: number, durationMs: number): string[] {
  const found: string[] = [];
  // The noise of a line's slope falls with the 3/2 power of its length; in the first minutes there is warming up besides.
  const warming = durationMs < WARMING_MS ? 2 : 1;
  const slopeMax = SLOPE_MIB_MAX * warming * Math.max(1, HOUR_MS / durationMs) ** 1.5;
  if (slopeMibPerHour > slopeMax) {
    found.push(`memory grows by ${slopeMibPerHour.toFixed(1)} MiB an hour, above ${slopeMax.toFixed(1)}`);
  }
  const [first] = looks;
  const files = Math.min(...looks.slice(-5).map((look) => look.files));
  if (first !== undefined && files > first.files + FILES_SLACK) found.push(`${first.files} open files became ${files}`);
  const disk = Math.max(...looks.map(({ diskBytes }) => diskBytes));
  if (disk > 2 * RETENTION_BYTES)
    found.push(`${(disk / MIB).toFixed(0)} MiB on disk with a retention of ${RETENTION_BYTES / MIB}`);
  return found;
}

/** What the broker takes from one client that sends as fast as it may, in messages a second. */
async function mostOf(client: Client, durationMs: number): Promise<number> {
  await using publisher = client.publisher();
  const begun = performance.now();
  for (let n = 0; performance.now() - begun < durationMs; n++) {
    const subject = SUBJECTS[n % SUBJECTS.length] as string;
    while (!publisher.tryPublish(`warm.${subject}`, BODY)) await publisher.ready();
    if (n % 1_000 === 0) await sleep(0);
  }
  await publisher.flush();
  return (publisher.stats.stored / (performance.now() - begun)) * 1_000;
}

/** Publishes at a steady rate; what the broker does not take in time is not sent later. */
class Pacer {
  readonly #client: Client;
  readonly #rate: number;
  readonly storedOf = new Map<string, number>();
  #isOver = false;
  stored = 0;
  failed = 0;

  constructor(client: Client, rate: number) {
    this.#client = client;
    this.#rate = rate;
  }

  stop(): void {
    this.#isOver = true;
  }

  async run(): Promise<void> {
    await using publisher = this.#client.publisher();
    let owed = 0;
    let last = performance.now();
    for (let n = 0; !this.#isOver; ) {
      await sleep(PACE_MS);
      const now = performance.now();
      owed = Math.min(this.#rate, owed + ((now - last) / 1_000) * this.#rate);
      last = now;
      for (; owed >= 1; owed -= 1, n++) {
        const subject = SUBJECTS[n % SUBJECTS.length] as string;
        if (!publisher.tryPublish(subject, BODY)) break;
        this.storedOf.set(subject, (this.storedOf.get(subject) ?? 0) + 1);
      }
    }
    await publisher.flush();
    this.stored = publisher.stats.stored;
    this.failed = publisher.stats.failed;
  }
}

/** Subscribers that come, stay a while, and go. Each holds what it gets against the order of the ids. */
class Visitors {
  readonly #address: string;
  readonly #prng: Prng;
  readonly #going = new AbortController();
  readonly faults: string[] = [];
  delivered = 0;
  visits = 0;

  constructor(address: string, seed: number) {
    this.#address = address;
    this.#prng = new Prng(seed);
  }

  stop(): void {
    this.#going.abort();
  }

  async run(): Promise<void> {
    while (!this.#going.signal.aborted) {
      const stayMs = 100 + this.#prng.nextBelow(SUBSCRIBER_MS_MAX);
      const subject = this.#prng.chance(1, 4) ? 'soak.>' : (SUBJECTS[this.#prng.nextBelow(SUBJECTS.length)] as string);
      const start = this.#prng.chance(1, 3) ? 'earliest' : 'new';
      await this.#visit(subject, start, AbortSignal.any([this.#going.signal, AbortSignal.timeout(stayMs)]));
      this.visits += 1;
    }
  }

  async #visit(subject: string, start: 'earliest' | 'new', signal: AbortSignal): Promise<void> {
    const next = new Map<string, number>();
    // A connection of its own: it comes and goes as well.
    await using client = connect(this.#address);
    try {
      for await (const batch of client.subscribe(subject, { start, signal }).batches()) {
        const wanted = next.get(batch.subject);
        // Retention may take what a slow reader has not read: it goes on behind, never before.
        if (wanted !== undefined && batch.firstId < wanted) {
          this.faults.push(`${batch.subject}: ${batch.firstId} came behind ${wanted - 1}`);
        }
        next.set(batch.subject, batch.lastId + 1);
        this.delivered += batch.count;
      }
    } catch (error) {
      if (!signal.aborted) this.faults.push(`a subscription to ${subject} ended: ${error}`);
    }
  }
}

/** One publisher, no failure: the ids of a subject are as many as were stored. */
async function unlike(client: Client, storedOf: ReadonlyMap<string, number>): Promise<string[]> {
  const found: string[] = [];
  for (const [name, stored] of storedOf) {
    let { head, settled } = await client.subject(name);
    // What was stored last is closed in the log a moment after it was acknowledged.
    for (let looks = 0; settled < head && looks < SETTLE_LOOKS; looks++) {
      await sleep(SETTLE_LOOK_MS);
      ({ head, settled } = await client.subject(name));
    }
    if (head !== stored || settled !== stored)
      found.push(`${name}: ${stored} stored, head ${head}, settled ${settled}`);
  }
  return found;
}

function lookAt(broker: BrokerProcess): Omit<Look, 'at'> {
  const status = readFileSync(`/proc/${broker.pid}/status`, 'utf8');
  const number = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? Number.NaN);
  return {
    rssBytes: number('VmRSS') * 1_024,
    files: readdirSync(`/proc/${broker.pid}/fd`).length,
    threads: number('Threads'),
    diskBytes: sizeOf(broker.dataDir),
  };
}

function sizeOf(folder: string): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    // A segment that retention has just taken.
    bytes += statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

/** Theil and Sen: the median of the slopes between all pairs of points. A peak now and then does not move it. */
function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const slopes = points.flatMap(([x, y], i) => points.slice(i + 1).map(([x2, y2]) => (y2 - y) / (x2 - x)));
  return slopes.toSorted((a, b) => a - b)[Math.floor(slopes.length / 2)] ?? Number.NaN;
}

async function runSoakCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const durationMs = runs * 60_000;
  const result = await runSoak({
    durationMs,
    calibrateMs: 15_000,
    lookEveryMs: Math.max(2_000, durationMs / 720),
    seed,
    onLook: (share, { rssBytes, files, diskBytes }) =>
      onProgress(
        Math.round(share * runs),
        runs,
        `${Math.round(rssBytes / MIB)} MiB, ${files} files, ${Math.round(diskBytes / MIB)} MiB on disk`,
      ),
  });
  const { looks, violations } = result;
  const settled = looks.slice(Math.floor(looks.length / 5));
  const row = {
    minutes: runs,
    'messages/s': result.rate,
    acked: result.acked,
    delivered: result.delivered,
    visits: result.visits,
    'RSS MiB, first': Math.round((settled[0]?.rssBytes ?? 0) / MIB),
    last: Math.round((settled.at(-1)?.rssBytes ?? 0) / MIB),
    'MiB an hour': result.slopeMibPerHour.toFixed(1),
    'open files': `${settled[0]?.files} to ${settled.at(-1)?.files}`,
    'disk MiB, most': Math.round(Math.max(...looks.map(({ diskBytes }) => diskBytes)) / MIB),
  };
  return { rows: [row], violations, notes: [] };
}

export const soakCampaign: Campaign = {
  name: 'soak',
  about: 'minutes at 70 % of the most that the broker takes, with subscribers that come and go: memory, handles, disk',
  defaultRuns: 120,
  run: runSoakCampaign,
};
