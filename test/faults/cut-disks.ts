/** Nodes of a cluster with a disk each that can lose its power. Needs requireTool(t, 'loop-devices'). */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { BrokerStartError } from '../support/broker.ts';
import type { ClusterNode, Machine } from '../support/cluster.ts';
import { PowerCutDisk } from '../support/power-cut.ts';
import { pause } from '../support/until.ts';
import type { Equipment } from './cluster-campaign.ts';
import type { ClusterRig } from './cluster-rig.ts';
import { Strace } from './strace.ts';

/** A sparse file: the Raft log of a node, its reserve and its snapshots. */
const DISK_BYTES = 512 << 20;
/** So long behind a cut what is acknowledged may come from a sync that only said that it was done (PowerCutDisk.cut). */
const DOUBT_MS = 250;

const ACKED_BEHIND_SYNC = 200;

export interface CutDisksOptions {
  readonly nodes: number;
  /** Of these nodes syncs only say that they were done. */
  readonly unsynced?: readonly number[];
}

export class CutDisks implements Equipment {
  readonly machines: readonly Machine[];
  readonly #disks: readonly PowerCutDisk[];
  readonly #strace: Strace | null;

  constructor({ nodes, unsynced = [] }: CutDisksOptions) {
    const disks: PowerCutDisk[] = [];
    this.#disks = disks;
    this.#strace = unsynced.length === 0 ? null : new Strace();
    try {
      for (let node = 0; node < nodes; node++) disks.push(PowerCutDisk.create({ bytes: DISK_BYTES }));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    this.machines = disks.map((disk, node) => ({
      dataDir: join(disk.path, 'data'),
      ...(unsynced.includes(node) && this.#strace !== null
        ? { under: this.#strace.under('fdatasync,fsync:retval=0') }
        : {}),
    }));
  }

  /**
   * Where syncs only say that they were done: what is there now gets onto the disks after all, and so many more messages are acknowledged.
   * A node that has lost everything does not start, and nothing else would be seen.
   */
  async settleUnsynced(rig: ClusterRig): Promise<void> {
    if (this.#strace === null) return;
    for (const { path } of this.#disks) execFileSync('sync', ['-f', path]);
    await rig.loaded(ACKED_BEHIND_SYNC);
  }

  /**
   * The power of all these at once. They live on for `dyingMs` on a disk that is gone, then their processes end, and power is back. What was
   * acknowledged before must be there; for a moment behind it nobody can say.
   */
  async cut(rig: ClusterRig, nodes: readonly ClusterNode[], dyingMs = 0): Promise<void> {
    const { context } = rig.load;
    context.isDoubtful = true;
    const disks = nodes.map(({ index }) => this.#disks[index] as PowerCutDisk);
    PowerCutDisk.cutAll(disks);
    // From here on: what came while this process stood in the cut is read now.
    const doubt = pause(DOUBT_MS).then(() => {
      context.isDoubtful = false;
    });
    await pause(dyingMs);
    await Promise.all(nodes.map((node) => node.kill()));
    await doubt;
    for (const disk of disks) disk.restore();
  }

  [Symbol.dispose](): void {
    for (const disk of this.#disks) disk.dispose();
    this.#strace?.[Symbol.dispose]();
  }
}

/** Starts those that do not run. What the first node says that has lost what it needs to start, else null. */
export function startAgain(nodes: readonly ClusterNode[]): Promise<string | null> {
  const { promise, resolve, reject } = Promise.withResolvers<string | null>();
  const starts = nodes
    .filter(({ broker }) => !broker.running)
    .map(async ({ id, broker }) => {
      try {
        await broker.restart();
      } catch (error) {
        if (!(error instanceof BrokerStartError) || error.exit === null) throw error;
        // The others may wait for it for ever: they are not waited for.
        resolve(`${id} does not start again: ${error.message.slice(-2_000)}`);
      }
    });
  Promise.all(starts).then(() => resolve(null), reject);
  return promise;
}
