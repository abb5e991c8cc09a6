/** A backend of PostgreSQL is killed with -9 in the middle of a commit, again and again, while a broker writes to it; then everything is read back and judged. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { type Counts, History, type Violation } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { KillLoad, reader, readStreams } from './kill-load.ts';

/** What one history holds stays within what the checker judges in seconds. */
const KILLS_PER_FOLDER = 25;
const STREAMS_TIMEOUT_MS = 60_000;
/** How long the server and the broker may take to be back after a kill. */
const BACK_MS = 60_000;
const LOOK_MS = 1;

/** Every commit waits 20 ms before it flushes, so that most of a writing backend's time is in the middle of one. */
const SETTINGS = ['restart_after_crash=on', 'commit_delay=20000', 'commit_siblings=0'];

interface FolderOutcome {
  readonly kills: number;
  readonly backMs: readonly number[];
  readonly counts: Counts;
  readonly violations: readonly Violation[];
}

/** Backends that the server shows in an INSERT at this moment, the commit of which is a part of it. */
function committing(server: PostgresServer): number[] {
  const children = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8');
  return children
    .split(' ')
    .filter(Boolean)
    .map(Number)
    .filter((pid) => titleOf(pid).includes('INSERT'));
}

function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch (error) {
    // It ended between the listing and the look.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}

async function runFolder(seed: number, kills: number, onKill: (kill: number) => void): Promise<FolderOutcome> {
  const prng = new Prng(seed);
  const server = await PostgresServer.start(SETTINGS);
  const broker = await BrokerProcess.create({
    flags: [
      ...['--store', 'postgres', '--postgres-url', server.url],
      ...['--store-timeout', '5s', '--log-format', 'json'],
    ],
  });
  const history = new History();
  const load = new KillLoad(history, seed, `c${seed}`);
  const backMs: number[] = [];
  try {
    await broker.restart();
    load.start(broker.address, 'kill.commit');
    for (let kill = 0; kill < kills; kill++) {
      onKill(kill);
      // Another point of the load, and of a commit, each time.
      await sleep(prng.nextBelow(150));
      const killedAt = Date.now();
      await killOne(server);
      while (load.lastAckedSentAt <= killedAt) {
        if (Date.now() - killedAt > BACK_MS)
          throw new Error(`nothing is acknowledged after kill ${kill}\n${broker.logs}`);
        await sleep(LOOK_MS);
      }
      backMs.push(Date.now() - killedAt);
    }
    await load.stop();
    const client = new BrokerClient(broker.address);
    try {
      await load.settle(client);
      await load.publishLast(client);
      await history.readBack(reader(client), { from: 'start' });
      await readStreams(client, history, STREAMS_TIMEOUT_MS);
    } finally {
      client.close();
    }
    return { kills, backMs, ...history.judge() };
  } finally {
    await load.stop();
    await broker.dispose();
    await server.remove();
  }
}

async function killOne(server: PostgresServer): Promise<void> {
  for (;;) {
    const [pid] = committing(server);
    if (pid !== undefined) {
      process.kill(pid, 'SIGKILL');
      return;
    }
    await sleep(LOOK_MS);
  }
}

export async function runCommitCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const folders: FolderOutcome[] = [];
  for (let first = 0; first < runs; first += KILLS_PER_FOLDER) {
    const kills = Math.min(KILLS_PER_FOLDER, runs - first);
    const onKill = (kill: number): void => onProgress(first + kill, runs, 'kill -9 of a backend in a commit');
    const folder = await runFolder(seed + first, kills, onKill);
    folders.push(folder);
    if (folder.violations.length > 0) break;
  }
  onProgress(runs, runs, 'done');
  const sum = (pick: (counts: Counts) => number): number =>
    folders.reduce((total, { counts }) => total + pick(counts), 0);
  const back = folders.flatMap(({ backMs }) => backMs).toSorted((a, b) => a - b);
  const violations = folders.flatMap((folder) => folder.violations);
  const row = {
    seed,
    kills: folders.reduce((total, { kills }) => total + kills, 0),
    acked: sum((counts) => counts.acked),
    'unknown, stored': sum((counts) => counts.unknownStored),
    unknown: sum((counts) => counts.unknown),
    voids: sum((counts) => counts.voids),
    delivered: sum((counts) => counts.deliveries),
    'back p50 ms': back[Math.floor(back.length / 2)] ?? 0,
    'back max ms': back.at(-1) ?? 0,
    violations: violations.length,
  };
  return {
    rows: [row],
    violations: violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
    notes: ['back: from a kill to the acknowledgement of something that was sent after it'],
  };
}

export const commit: Campaign = {
  name: 'commit',
  about: 'kill -9 of a PostgreSQL backend in the middle of a commit of the broker',
  defaultRuns: 200,
  run: runCommitCampaign,
};
