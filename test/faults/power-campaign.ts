/** The power of the disk under a whole broker is cut, again and again on one data folder. Needs requireTool(t, 'loop-devices'). */
import { join } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { BrokerStartError } from '../support/broker.ts';
import { CallError } from '../support/client.ts';
import { PowerCutDisk } from '../support/power-cut.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { FaultRig, pause, within } from './rig.ts';

/** A sparse file: large enough for the low-space mark that a broker without configuration has. */
const DISK_BYTES = 768 << 20;
/** Of each load, whatever the machine; the cut comes at a random instant behind it. */
const ACKED_MIN = 15;
const LOAD_MS_MIN = 150;
const LOAD_MS_SPREAD = 500;
const DYING_MS = 40_000;
const CUTS_A_DISK = 10;

export interface PowerCutPlan {
  readonly cuts: number;
  readonly seed: number;
  readonly flags?: readonly string[];
  /** The load runs at least so long before a cut; default 150. */
  readonly loadMsMin?: number;
  /** What the broker under load is started under, such as strace. The starts between are always plain. */
  readonly under?: readonly string[];
}

export interface PowerCutOutcome {
  readonly violations: readonly string[];
  readonly acked: number;
  readonly unknown: number;
  /** Exit code of the broker whose disk went away; null: it lived on. */
  readonly exitCodes: readonly (number | null)[];
}

/** A broker that does not start any more, or has forgotten a producer whose next message it is sent, has lost what it acknowledged. */
function asLoss(error: unknown): string {
  if (error instanceof BrokerStartError || (error instanceof CallError && error.reason === 'SEQUENCE_UNKNOWN')) {
    return error.message;
  }
  throw error;
}

export async function powerCuts({
  cuts,
  seed,
  flags = [],
  loadMsMin = LOAD_MS_MIN,
  under,
}: PowerCutPlan): Promise<PowerCutOutcome> {
  using disk = PowerCutDisk.create({ bytes: DISK_BYTES });
  await using rig = await FaultRig.create({ dataDir: join(disk.path, 'data'), flags }, seed);
  const prng = new Prng(seed);
  const exitCodes: (number | null)[] = [];
  await rig.broker.restart();
  for (let cut = 0; cut < cuts; cut++) {
    if (under !== undefined) await rig.broker.restart({ under });
    rig.startLoad();
    await rig.loaded(ACKED_MIN);
    await pause(loadMsMin + prng.nextBelow(LOAD_MS_SPREAD));
    disk.cut();
    const exit = await within(rig.broker.exited, DYING_MS);
    exitCodes.push(exit?.code ?? null);
    await rig.broker.kill();
    await rig.load.stop();
    disk.restore();
    const lost = await rig.broker.restart().then(() => null, asLoss);
    if (lost !== null) return { violations: [`after cut ${cut + 1}: ${lost}`], acked: 0, unknown: 0, exitCodes };
  }
  const judged = await rig.judge().catch((error: unknown) => ({ ...rig.history.judge(), lost: asLoss(error) }));
  const { violations, counts } = judged;
  return {
    violations: [
      ...('lost' in judged ? [judged.lost] : []),
      ...violations.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`),
    ],
    acked: counts.acked,
    unknown: counts.unknown + counts.unknownStored,
    exitCodes,
  };
}

export async function runPowerCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  let [acked, unknown, done] = [0, 0, 0];
  const violations: string[] = [];
  while (done < runs && violations.length === 0) {
    onProgress(done, runs, 'power cuts under load');
    const cuts = Math.min(CUTS_A_DISK, runs - done);
    const outcome = await powerCuts({ cuts, seed: seed + done });
    done += cuts;
    acked += outcome.acked;
    unknown += outcome.unknown;
    violations.push(...outcome.violations);
  }
  return { rows: [{ cuts: done, acked, unknown, violations: violations.length }], violations, notes: [] };
}

export const power: Campaign = {
  name: 'power',
  about: 'power cuts under a whole broker on ext4, at random instants of the load (root, loop devices)',
  defaultRuns: 50,
  run: runPowerCampaign,
};
