/** What the campaigns on clusters share: parts, each on a new cluster that is judged at its end, and the table of all. */
import { randomBytes } from 'node:crypto';
import { chooseCassandra, choosePostgres } from '../servers/chosen-server.ts';
import { PostgresServer } from '../servers/postgres.ts';
import type { Machine } from '../support/cluster.ts';
import { ClusterNetwork } from '../support/network.ts';
import type { CampaignOptions, CampaignResult, CampaignRow, CampaignStore } from './campaign.ts';
import { LOAD_SIZE, type LoadSize } from './cluster-load.ts';
import { ClusterRig, ELECTION_TIMEOUT_MS, type RigVerdict } from './cluster-rig.ts';

/** One thing that happens to a cluster under load. Resolves when the cluster is whole again. */
export interface Step {
  readonly kind: string;
  /** For the progress line. */
  readonly about: string;
  run(rig: ClusterRig): Promise<StepOutcome>;
}

export interface StepOutcome {
  /** Longest time without an acknowledgement that a client of a node that could answer has seen, one number a node, in ms. */
  readonly gapsMs: readonly number[];
  /** From the end of the fault until all nodes acknowledged again, in ms. */
  readonly healMs?: number;
  /** Terms that began meanwhile. */
  readonly elections?: number;
  /** A promise that was seen broken before anything was read back. The part ends here: what is left of the cluster may not be able to answer. */
  readonly broken?: string;
}

/** What the nodes of one part run on; made before them, disposed of behind them. */
export interface Equipment extends Disposable {
  readonly machines: readonly Machine[];
}

/** For the steps of a campaign: what its present cluster runs on. */
export function renewed<E extends Equipment>(make: () => E): { equip(): E; present(): E } {
  let present: E | null = null;
  return {
    equip: () => {
      present = make();
      return present;
    },
    present: () => {
      if (present === null) throw new Error('no cluster has been equipped');
      return present;
    },
  };
}

export interface ClusterCampaign {
  readonly name: string;
  readonly nodes: number;
  readonly needsNetwork: boolean;
  /** Steps on one cluster. */
  readonly stepsPerPart: number;
  /** A part goes on until so many messages a step are acknowledged. */
  readonly ackedPerStep: number;
  /** LOAD_SIZE if absent. */
  readonly size?: LoadSize;
  readonly flags?: readonly string[];
  /** For a new cluster. */
  equip?(): Equipment;
  plan(seed: number, runs: number): readonly Step[];
}

interface Part {
  readonly verdict: RigVerdict;
  readonly outcomes: readonly (StepOutcome & { readonly kind: string })[];
  readonly finalRefusals: readonly string[];
  /** Of the step that ended it (StepOutcome). */
  readonly broken: string | null;
  readonly kept: string | null;
}

const REFUSED_FOR_EVER_KEPT = 5;

export async function runClusterCampaign(campaign: ClusterCampaign, options: CampaignOptions): Promise<CampaignResult> {
  const { runs, seed, onProgress, store = 'postgres' } = options;
  const steps = campaign.plan(seed, runs);
  const parts: Part[] = [];
  for (let first = 0; first < runs; first += campaign.stepsPerPart) {
    const part = steps.slice(first, first + campaign.stepsPerPart);
    const onStep = (index: number, text: string): void => onProgress(first + index, runs, text);
    parts.push(await runPart({ ...campaign, store }, part, seed + first, onStep));
    if (violationsOf(parts).length > 0) break;
  }
  onProgress(runs, runs, 'done');
  return summarize(parts, seed);
}

type PlacedCampaign = ClusterCampaign & { readonly store: CampaignStore };

async function runPart(
  campaign: PlacedCampaign,
  steps: readonly Step[],
  seed: number,
  onStep: (index: number, text: string) => void,
): Promise<Part> {
  onStep(0, `starting ${campaign.nodes} nodes`);
  await using place = await openPlace(campaign);
  const { network, storeFlags } = place;
  using equipment = campaign.equip?.() ?? null;
  await using rig = await ClusterRig.start({
    nodes: campaign.nodes,
    storeFlags: storeFlags(),
    network,
    seed,
    size: campaign.size ?? LOAD_SIZE,
    ...(campaign.flags === undefined ? {} : { flags: campaign.flags }),
    ...(equipment === null ? {} : { machines: equipment.machines }),
  });
  try {
    return await runSteps(campaign, rig, steps, onStep);
  } catch (error) {
    const kept = rig.cluster.keep();
    throw new Error(`${campaign.name}, seed ${seed}, data and logs kept in ${kept}`, { cause: error });
  }
}

async function runSteps(
  campaign: ClusterCampaign,
  rig: ClusterRig,
  steps: readonly Step[],
  onStep: (index: number, text: string) => void,
): Promise<Part> {
  const outcomes: Part['outcomes'][number][] = [];
  rig.load.start();
  for (const [index, step] of steps.entries()) {
    await rig.loaded(campaign.ackedPerStep);
    onStep(index, `${step.about}; ${rig.load.acked} acknowledged`);
    const outcome = await step.run(rig);
    outcomes.push({ kind: step.kind, ...outcome });
    if (outcome.broken !== undefined) return endedEarly(rig, outcomes, outcome.broken);
  }
  await rig.loaded(campaign.ackedPerStep);
  onStep(steps.length, 'reading everything back from every node');
  const verdict = await rig.judge();
  const isGood = verdict.violations.length + (verdict.linearizability?.violations.length ?? 0) === 0;
  const finalRefusals = [...rig.load.context.finalRefusals].slice(0, REFUSED_FOR_EVER_KEPT);
  return { verdict, outcomes, finalRefusals, broken: null, kept: isGood ? null : rig.cluster.keep() };
}

function endedEarly(rig: ClusterRig, outcomes: Part['outcomes'], broken: string): Part {
  const { counts } = rig.history.judge();
  return {
    verdict: { counts, violations: [], linearizability: null },
    outcomes,
    finalRefusals: [],
    broken,
    kept: rig.cluster.keep(),
  };
}

export interface Place extends AsyncDisposable {
  readonly network: ClusterNetwork | null;
  /** Of a schema or keyspace that nobody else has. */
  storeFlags(): readonly string[];
}

/** A database, and where wanted a network that reaches it. */
export async function openPlace(campaign: Pick<PlacedCampaign, 'needsNetwork' | 'store' | 'nodes'>): Promise<Place> {
  // Each node has connections of its own.
  const settings = ['max_connections=200'];
  if (!campaign.needsNetwork) {
    const server = await (campaign.store === 'cassandra' ? chooseCassandra() : choosePostgres(settings));
    const storeFlags = (): string[] => server.flags(`faults_${randomBytes(6).toString('hex')}`);
    const dispose = (): Promise<void> => server.remove();
    return { network: null, storeFlags, [Symbol.asyncDispose]: dispose };
  }
  const network = await ClusterNetwork.create(campaign.nodes);
  const server = await PostgresServer.start([...settings, `listen_addresses=127.0.0.1,${network.outside}`]);
  const allowed = ['127.0.0.1/32', network.subnet].map((hosts) => `host all all ${hosts} password\n`);
  server.writeData('pg_hba.conf', allowed.join(''));
  await server.configure({});
  const storeFlags = (): string[] => server.brokerFlags(server.url.replace('127.0.0.1', network.outside));
  const dispose = async (): Promise<void> => {
    await server.remove();
    await network[Symbol.asyncDispose]();
  };
  return { network, storeFlags, [Symbol.asyncDispose]: dispose };
}

function violationsOf(parts: readonly Part[]): string[] {
  return parts.flatMap(({ verdict, broken, kept }) => [
    ...(broken === null ? [] : [`${broken} (kept: ${kept})`]),
    ...[...verdict.violations, ...(verdict.linearizability?.violations ?? [])].map(
      ({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail} (kept: ${kept})`,
    ),
  ]);
}

/** Rules that say that something acknowledged is not there, and that something is there twice. */
const LOST: readonly string[] = ['acked-readable', 'lost', 'unreadable'];
const DOUBLED: readonly string[] = ['once', 'doubled-id'];

function summarize(parts: readonly Part[], seed: number): CampaignResult {
  const outcomes = parts.flatMap((part) => part.outcomes);
  const found = parts.flatMap(({ verdict }) => [...verdict.violations, ...(verdict.linearizability?.violations ?? [])]);
  const sum = (pick: (verdict: RigVerdict) => number): number =>
    parts.reduce((total, { verdict }) => total + pick(verdict), 0);
  const all: CampaignRow = {
    kind: 'total',
    times: outcomes.length,
    acked: sum(({ counts }) => counts.acked),
    lost: found.filter(({ rule }) => LOST.includes(rule)).length,
    doubled: found.filter(({ rule }) => DOUBLED.includes(rule)).length,
    violations: violationsOf(parts).length,
    ...gapColumns(outcomes),
  };
  const kinds = [...new Set(outcomes.map(({ kind }) => kind))].sort();
  const rows = kinds.map((kind): CampaignRow => {
    const own = outcomes.filter((outcome) => outcome.kind === kind);
    return { kind, times: own.length, ...gapColumns(own) };
  });
  const isChecked = parts.every(({ verdict }) => verdict.linearizability !== null);
  const operations = sum(({ linearizability }) => linearizability?.operations ?? 0);
  const notes = [
    `seed ${seed}; ET = ${ELECTION_TIMEOUT_MS} ms, the lower end of the range of election timeouts; gap: time without an acknowledgement that the client of a node has seen`,
    `voids ${sum(({ counts }) => counts.voids)}, unknown ${sum(({ counts }) => counts.unknown)}, of them stored ${sum(({ counts }) => counts.unknownStored)}, delivered ${sum(({ counts }) => counts.deliveries)}, fetched ${sum(({ counts }) => counts.fetches)}`,
    isChecked
      ? `Porcupine: ${operations} operations are linearizable`
      : 'Porcupine did not look at the histories: install Go 1.19 or newer',
    ...new Set(
      parts.flatMap(({ finalRefusals }) => finalRefusals.map((reason) => `refused without a delay: ${reason}`)),
    ),
  ];
  return { rows: [all, ...rows], violations: violationsOf(parts), notes };
}

function gapColumns(outcomes: readonly StepOutcome[]): CampaignRow {
  const gaps = outcomes.flatMap(({ gapsMs }) => gapsMs).toSorted((a, b) => a - b);
  const heals = outcomes.flatMap(({ healMs }) => healMs ?? []).toSorted((a, b) => a - b);
  const elections = outcomes.flatMap((outcome) => outcome.elections ?? []);
  const at = (sorted: readonly number[], share: number): string =>
    ((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) / ELECTION_TIMEOUT_MS).toFixed(2);
  return {
    'gap p50 ET': at(gaps, 0.5),
    'gap p99 ET': at(gaps, 0.99),
    'gap max ET': at(gaps, 1),
    ...(heals.length === 0 ? {} : { 'healed p50 ET': at(heals, 0.5), 'healed max ET': at(heals, 1) }),
    ...(elections.length === 0 ? {} : { elections: elections.reduce((total, count) => total + count, 0) }),
  };
}
