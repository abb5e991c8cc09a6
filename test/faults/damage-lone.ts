/** A real broker with the embedded store is started on a damaged copy of its data directory, and everything is read from it. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { BrokerStartError } from '../support/broker.ts';
import { damageOne, deleted, inWords, listing } from './damage.ts';
import { readEverything, whatOf } from './damage-cluster.ts';
import type { PreparedDirectory } from './damage-directory.ts';
import { compareServed, hitIds, type placesOf } from './damage-files.ts';
import { prngOf } from './damage-runs.ts';
import { logLines } from './rig.ts';

export interface LoneOutcome {
  readonly what: string;
  /** `DATA_LOSS`: ids that were hit, and no others, are answered so. */
  readonly ending: 'refused' | 'DATA_LOSS' | 'noticed' | 'harmless';
  readonly violations: readonly string[];
}

/** What a refusal may name. */
const REFUSALS =
  /^(RAFT_LOG_DAMAGED|RAFT_LOG_VERSION|DATA_DIRECTORY_\w+|STORE_AHEAD_OF_LOG|SEGMENT_VERSION|SHARD_FAILED)$/;
const NOTICED = /damaged|quarantine|missing|torn/;

/** Written anew by every start. */
const isTransient = (path: string): boolean => /LOCK|\.tmp$|reserve$|raft\/end$/.test(path);

export async function damageLone(
  prepared: PreparedDirectory,
  places: ReturnType<typeof placesOf>,
  { seed, number }: { readonly seed: number; readonly number: number },
): Promise<LoneOutcome | null> {
  const root = prepared.copy();
  const damage = damageOne(prngOf(seed, number), { root, older: prepared.older });
  if (damage === null) {
    rmSync(root, { recursive: true });
    return null;
  }
  const before = listing(root);
  const broker = await prepared.broker(root);
  const violations: string[] = [];
  let ending: LoneOutcome['ending'];
  try {
    await broker.restart();
    const served = await readEverything(broker.address, prepared.acked);
    const compared = compareServed(served, prepared.acked, hitIds(places, damage));
    violations.push(...compared.violations);
    await broker.stop();
    const isNoticed = logLines(broker.logs).some(({ level, message }) => level !== 'info' && NOTICED.test(message));
    ending =
      compared.lost > 0
        ? 'DATA_LOSS'
        : isNoticed || existsSync(join(root, 'raft', 'quarantine'))
          ? 'noticed'
          : 'harmless';
  } catch (error) {
    if (!(error instanceof BrokerStartError)) throw error;
    ending = 'refused';
    const last = logLines(broker.logs).findLast(({ level }) => level === 'error');
    if (error.exit?.code !== 1) violations.push(`it ended with ${error.exit?.code ?? error.message}`);
    if (!REFUSALS.test(last?.reason ?? ''))
      violations.push(`it refused with ${last?.reason}: ${last?.message} ${last?.error}`);
  } finally {
    await broker.kill();
  }
  violations.push(...deleted(before, listing(root), isTransient));
  rmSync(root, { recursive: true });
  const about = `damage ${number} (${inWords(damage)})`;
  return { what: whatOf(damage), ending, violations: violations.map((one) => `${about}: ${one}`) };
}
