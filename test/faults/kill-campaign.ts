/** kill -9 again and again, under load and while starting, on one data folder; then everything is read back and judged. */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BrokerProcess, BrokerStartError, makeDataDirectory } from '../support/broker.ts';
import { type Counts, History, type Violation } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import { until } from '../support/until.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignRow } from './campaign.ts';
import { KillLoad, reader, readStreams } from './kill-load.ts';
import { failpointSites, type KillPlan, planKills, RUNS_PER_FOLDER } from './kill-plan.ts';

/** What differs between the campaigns. */
interface KillStyle {
  readonly flags: readonly string[];
  readonly hasFailpoints: boolean;
  /** A run goes on at least until so many publishes were acknowledged since the broker came up. */
  readonly ackedPerRun: number;
}

/** Small files, so that the load passes through rolls, snapshots and compactions. */
const SMALL_FILES: KillStyle = {
  flags: ['--segment-bytes', '1MiB', '--raft-snapshot-entries', '100', '--raft-snapshot-bytes', '1MiB'],
  hasFailpoints: true,
  ackedPerRun: 0,
};
/** As somebody runs it who has read nothing: only folder and ports are told, so that it meets no other. Of its calls alone: with its streams 200 runs make more than a million. */
const BARE: KillStyle = { flags: [], hasFailpoints: false, ackedPerRun: 1_200 };
const STREAMS_TIMEOUT_MS = 60_000;
const LOADED_MS_MAX = 300_000;

interface RunOutcome {
  readonly plan: KillPlan;
  /** Those of `plan.firstStarts` at which the broker ended. */
  readonly firstStartsReached: readonly string[];
  /** The failpoint ended the broker, not we. */
  readonly reached: boolean;
  readonly killedInRecovery: boolean;
  readonly readyMs: number;
}

interface FolderOutcome {
  readonly runs: readonly RunOutcome[];
  readonly counts: Counts;
  readonly violations: readonly Violation[];
  readonly dataDir: string;
  readonly logs: string;
}

/** A broker that does not come back after a kill has lost everything. */
class FolderRun {
  readonly #broker: BrokerProcess;
  readonly #ackedPerRun: number;
  readonly #history = new History();
  readonly #load: KillLoad;
  readonly #onRun: (plan: KillPlan) => void;
  readonly #outcomes: RunOutcome[] = [];

  constructor(broker: BrokerProcess, seed: number, { ackedPerRun }: KillStyle, onRun: (plan: KillPlan) => void) {
    this.#broker = broker;
    this.#ackedPerRun = ackedPerRun;
    this.#load = new KillLoad(this.#history, seed, `s${seed}`);
    this.#onRun = onRun;
  }

  async run(plans: readonly KillPlan[]): Promise<Omit<FolderOutcome, 'dataDir' | 'logs'>> {
    for (const plan of plans) {
      this.#onRun(plan);
      await this.#oneRun(plan);
      const { violations, counts } = this.#history.judge();
      if (violations.length > 0) return { runs: this.#outcomes, violations, counts };
    }
    await this.#finish();
    return { runs: this.#outcomes, ...this.#history.judge() };
  }

  async #oneRun(plan: KillPlan): Promise<void> {
    const firstStartsReached: string[] = [];
    for (const site of plan.firstStarts) {
      if (await this.#dieInFirstStart(site)) firstStartsReached.push(site);
    }
    const died = await this.#loadUntilDeath(plan);
    let killedInRecovery = false;
    if (plan.recoveryKillMs !== null) {
      this.#broker.launch();
      await Promise.race([sleep(plan.recoveryKillMs), this.#broker.exited]);
      killedInRecovery = this.#broker.running;
      await this.#broker.kill();
    }
    const readyMs = await this.#broker.restart();
    this.#outcomes.push({ plan, firstStartsReached, reached: died === 'failpoint', killedInRecovery, readyMs });
    await this.#withClient((client) => this.#history.readBack(reader(client), { from: 'last' }));
  }

  /** On an empty folder: the start ends at the site, or after it; what it leaves behind must not keep the next one from starting. */
  async #dieInFirstStart(site: string): Promise<boolean> {
    await this.#broker.kill();
    for (const name of readdirSync(this.#broker.dataDir)) rmSync(join(this.#broker.dataDir, name), { recursive: true });
    this.#broker.launch({ env: { BROKER_FAILPOINTS: `${site}=kill@1` } });
    const reached = await this.#readyOrKilled();
    await this.#broker.restart();
    await this.#broker.kill();
    return reached;
  }

  /** True if the armed broker killed itself before it was ready. */
  async #readyOrKilled(): Promise<boolean> {
    try {
      await this.#broker.ready();
      return false;
    } catch (error) {
      if (error instanceof BrokerStartError && error.exit?.signal === 'SIGKILL') return true;
      throw error;
    }
  }

  /** Starts the broker, armed or not, lets the load run and resolves when the process is dead and every call answered. */
  async #loadUntilDeath(plan: KillPlan): Promise<'killed' | 'failpoint'> {
    const { failpoint, delayMs, run } = plan;
    const ackedBefore = this.#load.acked;
    if (failpoint !== null) await this.#broker.kill();
    if (!this.#broker.running) {
      const spec = failpoint === null ? '' : `${failpoint.site}=kill@${failpoint.hit}`;
      this.#broker.launch({ env: { BROKER_FAILPOINTS: spec } });
      // A site of the start-up kills before there is anything to load.
      if (await this.#readyOrKilled()) return 'failpoint';
    }
    this.#load.start(this.#broker.address, `kill.run.${run}`);
    const acked = (): number => this.#load.acked - ackedBefore;
    await until(
      () => acked() >= this.#ackedPerRun || !this.#broker.running,
      () => `${acked()} of ${this.#ackedPerRun} publishes were acknowledged\n${this.#broker.logs}`,
      LOADED_MS_MAX,
    );
    const ended = await Promise.race([sleep(delayMs, null), this.#broker.exited]);
    if (ended !== null && (failpoint === null || ended.signal !== 'SIGKILL')) {
      throw new Error(`the broker ended by itself (${ended.signal ?? ended.code})\n${this.#broker.logs}`);
    }
    await this.#broker.kill();
    await this.#load.stop();
    return ended === null ? 'killed' : 'failpoint';
  }

  async #finish(): Promise<void> {
    await this.#withClient(async (client) => {
      await this.#load.settle(client);
      await this.#history.readBack(reader(client), { from: 'start' });
      await readStreams(client, this.#history, STREAMS_TIMEOUT_MS);
    });
  }

  async #withClient(use: (client: BrokerClient) => Promise<unknown>): Promise<void> {
    const client = new BrokerClient(this.#broker.address);
    try {
      await use(client);
    } finally {
      client.close();
    }
  }
}

async function runFolder(
  style: KillStyle,
  seed: number,
  plans: readonly KillPlan[],
  onRun: (plan: KillPlan) => void,
): Promise<FolderOutcome> {
  const dataDir = makeDataDirectory('broker-kill-');
  const broker = await BrokerProcess.create({ dataDir, flags: [...style.flags, '--log-format', 'json'] });
  try {
    const outcome = await new FolderRun(broker, seed, style, onRun).run(plans);
    if (outcome.violations.length === 0) rmSync(dataDir, { recursive: true, force: true });
    return { ...outcome, dataDir, logs: broker.logs };
  } catch (error) {
    throw new Error(`kill campaign, seed ${seed}, data kept in ${dataDir}`, { cause: error });
  } finally {
    await broker.kill();
  }
}

export const runKillCampaign = (options: CampaignOptions): Promise<CampaignResult> => runKills(SMALL_FILES, options);
export const runBareKills = (options: CampaignOptions): Promise<CampaignResult> => runKills(BARE, options);

async function runKills(style: KillStyle, { runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const sites = style.hasFailpoints ? failpointSites() : [];
  const plans = planKills(seed, runs, sites);
  const folders: FolderOutcome[] = [];
  for (let first = 0; first < runs; first += RUNS_PER_FOLDER) {
    const part = plans.slice(first, first + RUNS_PER_FOLDER);
    const folder = await runFolder(style, seed + first, part, (plan) => onProgress(plan.run, runs, describePlan(plan)));
    folders.push(folder);
    if (folder.violations.length > 0) break;
  }
  onProgress(runs, runs, 'done');
  return summarize(folders, sites, seed);
}

function describePlan({ delayMs, failpoint, recoveryKillMs }: KillPlan): string {
  const how = failpoint === null ? `kill -9 after ${delayMs} ms` : `${failpoint.site}, hit ${failpoint.hit}`;
  return recoveryKillMs === null ? how : `${how}, and ${recoveryKillMs} ms into the restart`;
}

function summarize(folders: readonly FolderOutcome[], sites: readonly string[], seed: number): CampaignResult {
  const runs = folders.flatMap((folder) => folder.runs);
  const reachedAt = runs.flatMap(({ reached, plan, firstStartsReached }) =>
    reached && plan.failpoint !== null ? [...firstStartsReached, plan.failpoint.site] : firstStartsReached,
  );
  const reachedSites = new Set(reachedAt);
  const triedSites = new Set(
    runs.flatMap(({ plan }) =>
      plan.failpoint === null ? plan.firstStarts : [...plan.firstStarts, plan.failpoint.site],
    ),
  );
  const killedInRecovery = runs.filter((run) => run.killedInRecovery).length;
  const sum = (pick: (counts: Counts) => number): number =>
    folders.reduce((total, { counts }) => total + pick(counts), 0);
  const ready = runs.map((run) => run.readyMs).toSorted((a, b) => a - b);
  const row: CampaignRow = {
    seed,
    kills: runs.length + killedInRecovery + runs.reduce((sum, run) => sum + run.plan.firstStarts.length, 0),
    'at failpoints': reachedAt.length,
    'while starting': killedInRecovery,
    acked: sum((counts) => counts.acked),
    'unknown, stored': sum((counts) => counts.unknownStored),
    unknown: sum((counts) => counts.unknown),
    voids: sum((counts) => counts.voids),
    delivered: sum((counts) => counts.deliveries),
    'ready p50 ms': Math.round(ready[Math.floor(ready.length / 2)] ?? 0),
    'ready max ms': Math.round(ready.at(-1) ?? 0),
    violations: folders.reduce((total, folder) => total + folder.violations.length, 0),
  };
  const violations = folders.flatMap(({ violations: found, dataDir }) =>
    found.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail} (data kept in ${dataDir})`),
  );
  const never = [...triedSites].filter((site) => !reachedSites.has(site));
  const notes = [
    `failpoint sites: ${sites.length} in src, ${triedSites.size} tried, ${reachedSites.size} reached${never.length === 0 ? '' : `; not reached: ${never.join(', ')}`}`,
  ];
  return { rows: [row], violations, notes };
}

export const killBare: Campaign = {
  name: 'kill-bare',
  about: 'one node without any configuration: kill -9 at random instants, a million acknowledgements',
  defaultRuns: 200,
  run: runBareKills,
};

export const kill: Campaign = {
  name: 'kill',
  about: 'kill -9 at random instants and at every failpoint, under load and while starting',
  defaultRuns: 200,
  run: runKillCampaign,
};
