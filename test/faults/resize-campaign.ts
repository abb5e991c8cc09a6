/** The number of shards changes under load, undisturbed and while threads or the process die in the middle: every promise holds throughout. */

import { rmSync, writeFileSync } from 'node:fs';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import type { Connection, ShardsChange } from '../../src/cli/connection.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { FaultRig, pause } from './rig.ts';

/** Only ends a wait that would never end: on a slow disk each slot moves by itself, and waits for a sync. */
const CHANGE_MS_MAX = 300_000;
const KILL_MS_MAX = 60_000;
/** A replacement dies as well, and the broker gives up after 20 deaths in a minute (src/workers/shard-pool.ts): from here on they live. */
const DEATHS_MAX = 8;
/** Messages that are acknowledged at least at each number of shards. */
const ACKED_BETWEEN = 30;

/** Where a thread or the process dies. A thread that is replaced counts its own hits from the beginning. */
export interface Disturbance {
  readonly name: string;
  readonly failpoints: string;
  /** The process, not a thread, dies: in the midst of the first change. */
  readonly isKill: boolean;
}

export const DEATHS: readonly Disturbance[] = [
  { name: 'the source dies when it is told to drain', failpoints: 'move.drain=throw@4', isKill: false },
  { name: 'the source dies when everything has its verdict', failpoints: 'move.settled=exit@4', isKill: false },
  { name: 'the source dies with the index in its hands', failpoints: 'move.export=throw@4', isKill: false },
  { name: 'the source dies behind handing over', failpoints: 'move.exported=exit@4', isKill: false },
  { name: 'the target dies before it imports', failpoints: 'move.import=throw@4', isKill: false },
  { name: 'the target dies with what it imported', failpoints: 'move.imported=exit@4', isKill: false },
];

export const KILLS: readonly Disturbance[] = [
  { name: 'kill -9 while slots are held', failpoints: 'move.held=kill@5', isKill: true },
  { name: 'kill -9 between flip and import', failpoints: 'move.flipped=kill@5', isKill: true },
  { name: 'kill -9 behind a piece', failpoints: 'move.released=kill@5', isKill: true },
  { name: 'kill -9 while the source drains', failpoints: 'move.settled=kill@5', isKill: true },
];

export interface StormResult {
  readonly violations: readonly string[];
  readonly acked: number;
  /** Answers other than an acknowledgement that publishers got. */
  readonly errors: readonly string[];
  readonly deaths: number;
  readonly changes: readonly ShardsChange[];
  readonly slots: readonly number[];
}

/** A load, and a change to each of `counts` in turn. `storeFlags`: where the messages are. */
export async function resizeStorm(
  counts: readonly number[],
  disturbance: Disturbance | null,
  seed: number,
  storeFlags: readonly string[] = ['--segment-bytes', '1MiB'],
): Promise<StormResult> {
  await using rig = await FaultRig.create({ flags: ['--shards', '1', '--shards-max', '8', ...storeFlags] }, seed);
  const enough = `${rig.broker.dataDir}.enough`;
  using _ = { [Symbol.dispose]: () => rmSync(enough, { force: true }) };
  await rig.broker.restart({
    env: { BROKER_FAILPOINTS: disturbance === null ? '' : `${disturbance.failpoints}!${enough}` },
  });
  const deaths = (): number => rig.lines.filter(({ message }) => message.startsWith('a shard thread died')).length;
  const onLook = (): void => {
    if (deaths() >= DEATHS_MAX) writeFileSync(enough, '');
  };
  rig.startLoad({ witness: true });
  const changes: ShardsChange[] = [];
  let slots: number[] = [];
  const admin = connect(rig.broker.address);
  try {
    for (const count of counts) {
      await rig.loaded(ACKED_BETWEEN);
      changes.push(await changeTo(admin, count, onLook));
    }
    await rig.loaded(ACKED_BETWEEN);
    slots = (await admin.listShards()).shards.map((shard) => shard.slots);
  } catch (error) {
    throw rig.broker.running ? error : new Error(`the broker is gone\n${rig.broker.logs}`, { cause: error });
  } finally {
    await admin.close();
  }
  await rig.load.stop();
  await rig.catchUp();
  const errors = [...rig.load.refusals].map(([what, times]) => `${what} x${times}`);
  const died = deaths();
  await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
  const { violations, counts: seen } = await rig.judge();
  return {
    violations: violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
    acked: seen.acked,
    errors: seen.unknown + seen.unknownStored > 0 ? [...errors, ...rig.load.unknownReasons] : errors,
    deaths: died,
    changes,
    slots,
  };
}

/** A load, a change in whose midst the process is killed, a start, and everything read back. */
export async function killedResize(disturbance: Disturbance, seed: number): Promise<StormResult> {
  await using rig = await FaultRig.start(
    {
      flags: ['--shards', '2', '--shards-max', '8', '--segment-bytes', '1MiB'],
      env: { BROKER_FAILPOINTS: disturbance.failpoints },
    },
    seed,
  );
  rig.startLoad();
  await rig.loaded(ACKED_BETWEEN);
  const admin = connect(rig.broker.address);
  await admin.resizeShards(4).catch(() => undefined);
  const until = performance.now() + KILL_MS_MAX;
  while (rig.broker.running && performance.now() < until) await pause(10);
  await admin.close();
  if (rig.broker.running) throw new Error(`${disturbance.name}: the place was not reached\n${rig.broker.logs}`);
  await rig.load.stop();
  await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
  const after = connect(rig.broker.address);
  const slots = (await after.listShards()).shards.map((shard) => shard.slots);
  await after.close();
  const { violations, counts } = await rig.judge();
  return {
    violations: violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
    acked: counts.acked,
    errors: [],
    deaths: 1,
    changes: [],
    slots,
  };
}

export function connect(address: string): Connection {
  return connectWithClient({ addresses: [address], timeoutMs: CHANGE_MS_MAX, interrupt: new AbortController().signal });
}

/** Begins the change and waits for its end; `onLook` is called whenever it has not come yet. */
export async function changeTo(admin: Connection, count: number, onLook?: () => void): Promise<ShardsChange> {
  let change = await admin.resizeShards(count);
  const until = performance.now() + CHANGE_MS_MAX;
  while (change.running) {
    if (performance.now() > until) throw new Error(`not ended in ${CHANGE_MS_MAX} ms: ${JSON.stringify(change)}`);
    await pause(5);
    onLook?.();
    change = (await admin.listShards()).change;
  }
  return change;
}

const COUNTS = [4, 2, 3, 1, 5, 2, 8, 1];

async function runResizeCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const rows = [];
  const violations: string[] = [];
  const kinds: readonly (Disturbance | null)[] = [null, ...DEATHS, ...KILLS];
  const each = Math.max(1, Math.ceil(runs / kinds.length));
  let done = 0;
  for (const kind of kinds) {
    const name = kind?.name ?? 'undisturbed';
    let [acked, deaths, pauseMs] = [0, 0, 0];
    for (let run = 0; run < each; run++) {
      onProgress(done, each * kinds.length, name);
      done += 1;
      const result =
        kind?.isKill === true
          ? await killedResize(kind, seed + done)
          : await resizeStorm(kind === null ? COUNTS : COUNTS.slice(0, 3), kind, seed + done);
      acked += result.acked;
      deaths += result.deaths;
      violations.push(...result.violations.map((violation) => `${name}: ${violation}`));
      if (kind === null) violations.push(...result.errors.map((error) => `${name}: a client was told ${error}`));
      for (const change of result.changes) {
        pauseMs = Math.max(pauseMs, change.pauseMsMax);
        if (change.error !== '') violations.push(`${name}: ${change.what} ended early: ${change.error}`);
      }
    }
    rows.push({ resize: name, runs: each, deaths, acked, 'pause ms, at most': Math.round(pauseMs * 10) / 10 });
  }
  return { rows, violations, notes: [] };
}

export const resize: Campaign = {
  name: 'resize',
  about: 'the number of shards changes under load, and threads or the process die in the middle',
  defaultRuns: 110,
  run: runResizeCampaign,
};
