import type { SubjectName } from '../../base/subject-space.ts';
/** What the last seconds of one shard were like. */
export interface ShardLoad {
  readonly shard: number;
  /** Share of its thread's time, 0 to 1. */
  readonly utilization: number;
  /** Share of the time in which a write to the store was on its way, 0 to 1: groups are written one after another. */
  readonly storeBusy: number;
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  /** Mean wait of a request on the shard's ring. */
  readonly queueWaitMs: number;
  /** Mean time of a durable write, and mean messages in it. */
  readonly storeWriteMs: number;
  readonly groupMessages: number;
  /** Heaviest first; shares of the shard's messages. */
  readonly hotSubjects: readonly (SubjectName & { readonly share: number })[];
}

export interface NodeLoad {
  readonly cores: number;
  /** shards.max */
  readonly shardsMax: number;
  /** Of the main thread, which carries gRPC, 0 to 1. */
  readonly mainUtilization: number;
  /** Of all cores by this process, 0 to 1. */
  readonly cpuUtilization: number;
  readonly shards: readonly ShardLoad[];
}

export interface Advice {
  readonly shards: number;
  readonly recommended: number;
  /** One sentence each. */
  readonly reason: string;
  readonly effect: string;
}

/** A shard this busy is worth help. */
const BUSY = 0.75;
/** More shards are made so many that each would be this busy, fewer so many that each would be this busy. The second is lower: no way back and forth. */
const GROW_TO = 0.55;
const SHRINK_TO = 0.45;
/** A growth has to take at least this share off the busiest shard. */
const GAIN_MIN = 0.15;
const MAIN_FULL = 0.9;
const CPU_FULL = 0.9;
/** With so few cores the main thread and the Raft thread have no core to spare for a second shard. */
const CORES_FEW = 2;

/** How many shards would serve this load best. Of the same load, however it is dealt to the shards it recommends, it asks for no further change. */
export function advise(load: NodeLoad): Advice {
  const { cores, shards } = load;
  const count = shards.length;
  const usable = Math.max(1, Math.min(load.shardsMax, cores - 1));
  const keep = (reason: string, effect: string): Advice => ({ shards: count, recommended: count, reason, effect });
  const busiest = busiestOf(shards);
  if (cores <= CORES_FEW) {
    const reason = `on ${cores} cores more shards bring nothing: the main thread, which carries gRPC, and the disk take what there is; shards scale store work, compression and catch-up reads, not gRPC`;
    if (count === 1) return keep(reason, 'none: one shard makes the largest groups and costs the fewest wake-ups');
    return { shards: count, recommended: 1, reason, effect: 'larger groups, fewer wake-ups and less memory' };
  }
  if (count > usable) {
    const limit =
      usable === load.shardsMax ? `shards.max is ${usable}` : `beside the main thread there are ${usable} cores`;
    return {
      shards: count,
      recommended: usable,
      reason: `${count} shards share ${cores} cores: ${limit}`,
      effect: 'fewer changes between threads and larger groups; no shard waits longer for a core',
    };
  }
  if (busiest.busy < BUSY) return maybeShrink(load, busiest, keep);
  return maybeGrow(load, busiest, usable, keep);
}

interface Busiest {
  readonly load: ShardLoad;
  readonly busy: number;
  readonly total: number;
}

function busyOf({ utilization, storeBusy }: ShardLoad): number {
  return Math.max(utilization, storeBusy);
}

function busiestOf(shards: readonly ShardLoad[]): Busiest {
  let busiest = shards[0] as ShardLoad;
  let total = 0;
  for (const load of shards) {
    total += busyOf(load);
    if (busyOf(load) > busyOf(busiest)) busiest = load;
  }
  return { load: busiest, busy: busyOf(busiest), total };
}

type Keep = (reason: string, effect: string) => Advice;

function maybeShrink(load: NodeLoad, busiest: Busiest, keep: Keep): Advice {
  const count = load.shards.length;
  const fewest = Math.max(1, Math.ceil(busiest.total / SHRINK_TO));
  const now = `the busiest shard (${busiest.load.shard}) is ${percent(busiest.busy)} busy`;
  if (fewest >= count) {
    return keep(`${now}: that is neither much nor little`, 'none: more shards would only make smaller groups');
  }
  return {
    shards: count,
    recommended: fewest,
    reason: `${now}, all ${count} together ${percent(busiest.total)} of one: ${fewest} can carry that`,
    effect: `each would be about ${percent(busiest.total / fewest)} busy, with larger groups and less memory`,
  };
}

function maybeGrow(load: NodeLoad, busiest: Busiest, usable: number, keep: Keep): Advice {
  const count = load.shards.length;
  const { busy, total } = busiest;
  const what = busiest.load.utilization >= busiest.load.storeBusy ? 'its thread' : 'its writes to the disk';
  const now = `shard ${busiest.load.shard} is ${percent(busy)} busy (${what})`;
  if (count === usable) {
    return keep(
      `${now}, and there are as many shards as ${usable === load.shardsMax ? 'shards.max allows' : 'cores beside the main thread'}`,
      'none without more cores, or another node',
    );
  }
  if (load.mainUtilization >= MAIN_FULL && load.mainUtilization >= busy) {
    return keep(
      `the main thread is ${percent(load.mainUtilization)} busy with gRPC, and shards do not scale that; ${now}`,
      'none: send batches, or add a node',
    );
  }
  if (load.cpuUtilization >= CPU_FULL) {
    return keep(
      `${now}, but the cores are ${percent(load.cpuUtilization)} busy: a new shard would find none idle`,
      'none',
    );
  }
  const wanted = Math.min(usable, Math.ceil(total / GROW_TO));
  if (wanted <= count) {
    return keep(
      `${now}, the others are idle: the load is uneven`,
      'none from a number: `broker shards move` gives a slot of it to another shard',
    );
  }
  const hottest = busiest.load.hotSubjects[0];
  const hot = (hottest?.share ?? 0) * busy;
  const after = Math.max(total / wanted, hot);
  if (after > busy * (1 - GAIN_MIN)) {
    return keep(
      `${now}, and subject "${hottest?.subject ?? ''}"${ofTenant(hottest)} makes ${percent(hottest?.share ?? 0)} of its messages: a subject is served by one shard`,
      'none: spread that load over several subjects',
    );
  }
  return {
    shards: count,
    recommended: wanted,
    reason: `${now}, requests wait ${busiest.load.queueWaitMs.toFixed(1)} ms for it, and cores are idle`,
    effect: `the busiest would be about ${percent(after)} busy`,
  };
}

function ofTenant(hottest: SubjectName | undefined): string {
  return hottest === undefined || hottest.tenant === '' ? '' : ` of tenant ${hottest.tenant}`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** Advice to have fewer must stand for so many times `shards.auto_after`: they are no hurry. */
const SHRINK_TIMES = 10;
/** At most one change in so many times it. */
const CHANGE_TIMES = 2;

/** When advice is followed by itself (shards.auto). */
export class Patience {
  readonly #growAfterMs: number;
  #direction = 0;
  #since = 0;
  #changedAt = Number.NEGATIVE_INFINITY;

  /** `growAfterMs`: shards.auto_after. */
  constructor(growAfterMs: number) {
    this.#growAfterMs = growAfterMs;
  }

  /** The number to change to, or null. `now` in ms. */
  observe({ shards, recommended }: Advice, now: number): number | null {
    const direction = Math.sign(recommended - shards);
    if (direction !== this.#direction) {
      this.#direction = direction;
      this.#since = now;
    }
    const after = this.#growAfterMs * (direction > 0 ? 1 : SHRINK_TIMES);
    if (direction === 0 || now - this.#changedAt < this.#growAfterMs * CHANGE_TIMES) return null;
    if (now - this.#since < after) return null;
    this.#changedAt = now;
    this.#direction = 0;
    return recommended;
  }
}
