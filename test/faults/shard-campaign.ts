/** Shard threads die in a broker that lives on: nothing acknowledged is lost, and those who stay connected notice an unknown outcome at most. */
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { FaultRig, type LogLine, pause } from './rig.ts';

/** How a thread dies, and where. `site` also says how often: every thread that follows counts its own hits. */
export interface Death {
  readonly name: string;
  readonly failpoints: string;
}

export const DEATHS: readonly Death[] = [
  { name: 'an exception', failpoints: 'shard.round=throw@400' },
  { name: 'process.exit in the midst of a write', failpoints: 'segment.written=exit@30' },
  { name: 'an exhausted heap', failpoints: 'shard.round=oom@400' },
  { name: 'process.exit before a write', failpoints: 'segment.write=exit@30' },
  { name: 'process.exit behind a durable write', failpoints: 'segment.synced=exit@30' },
];
/** Keeps the heap that has to be filled small. */
const HEAP_FLAGS = ['--max-old-space-size=96'];
/** The broker gives up after 20 deaths in a minute (src/workers/shard-pool.ts): it is started anew before that. */
const DEATHS_A_PROCESS = 12;
const LOAD_MS_MAX = 60_000;

export interface ShardDeaths {
  readonly deaths: number;
  /** From the start of the process to its first shard that is up, in ms: how long this machine takes for such things. */
  readonly startMs: number;
  /** From each death to the next shard that is up, in ms. */
  readonly replacedMs: readonly number[];
  /** The threads that ran, by Node's id. */
  readonly threads: readonly string[];
  readonly violations: readonly string[];
  readonly acked: number;
  readonly unknown: number;
  readonly unknownReasons: ReadonlySet<string>;
}

/** A load until that many deaths; then everything is caught up with, the broker is killed, started whole, and read back. */
export async function shardDeaths(death: Death, deaths: number, seed: number): Promise<ShardDeaths> {
  const startedAt = Date.now();
  await using rig = await FaultRig.start(
    {
      // One shard: it is certain whom it hits, and a second death meets the replacement.
      flags: ['--shards', '1', '--segment-bytes', '1MiB'],
      env: { BROKER_FAILPOINTS: death.failpoints },
      nodeFlags: HEAP_FLAGS,
    },
    seed,
  );
  rig.startLoad({ witness: true });
  const until = performance.now() + LOAD_MS_MAX;
  const died = (line: LogLine): boolean => line.message.startsWith('a shard thread died');
  const isUp = ({ message }: LogLine): boolean => message === 'shard is up';
  const isOver = (): boolean =>
    rig.lines.filter(died).length >= deaths &&
    rig.lines.findLast((line) => died(line) || isUp(line))?.message === 'shard is up';
  while (!isOver() && rig.broker.running && performance.now() < until) await pause(20);
  if (!rig.broker.running) throw new Error(`the broker ended with its shard\n${rig.broker.logs}`);
  if (!isOver()) throw new Error(`too few deaths, or a shard that was not replaced\n${rig.broker.logs}`);
  await rig.load.stop();
  await rig.catchUp();
  const lines = rig.lines;
  const up = lines.filter(isUp);
  const startMs = (up[0]?.at ?? 0) - startedAt;
  const replacedMs = lines.flatMap((line) => {
    const next = died(line) ? up.find(({ at }) => at >= line.at) : undefined;
    return next === undefined ? [] : [next.at - line.at];
  });
  await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
  const { violations, counts } = await rig.judge();
  return {
    deaths: lines.filter(died).length,
    startMs,
    replacedMs,
    threads: up.map(({ thread }) => thread),
    violations: violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
    acked: counts.acked,
    unknown: counts.unknown + counts.unknownStored,
    unknownReasons: rig.load.unknownReasons,
  };
}

export async function runShardCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const rows = [];
  const violations: string[] = [];
  const each = Math.ceil(runs / DEATHS.length);
  let done = 0;
  for (const death of DEATHS) {
    let [deaths, acked, slowest] = [0, 0, 0];
    while (deaths < each && violations.length === 0) {
      onProgress(done, runs, death.name);
      const result = await shardDeaths(death, Math.min(DEATHS_A_PROCESS, each - deaths), seed + done);
      deaths += result.deaths;
      done += result.deaths;
      acked += result.acked;
      slowest = Math.max(slowest, ...result.replacedMs);
      violations.push(...result.violations.map((violation) => `${death.name}: ${violation}`));
    }
    rows.push({ 'a shard dies by': death.name, deaths, acked, 'replaced after ms, at most': slowest });
  }
  return { rows, violations, notes: [] };
}

export const shards: Campaign = {
  name: 'shards',
  about: 'shard threads die by exceptions, exits and exhausted heaps, under load',
  defaultRuns: 100,
  run: runShardCampaign,
};
