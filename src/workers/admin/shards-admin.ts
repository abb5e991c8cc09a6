import type { AdviseShardsResponse, ListShardsResponse, Shard, ShardsChange } from '../../grpc/gen/broker/v1/admin.ts';
import type { HotSubjects } from '../messages.ts';
import { HOT_COUNTERS } from '../shard/hot-subjects.ts';
import type { ShardPool } from '../shard-pool.ts';
import { type Advice, advise, type NodeLoad, Patience } from '../slots/advice.ts';
import type { LoadMonitor } from '../slots/load-monitor.ts';
import type { MoveCounters } from '../slots/move-counters.ts';
import type { RecentLoad } from '../slots/recent-load.ts';
import type { Resizer, ResizeState } from '../slots/resizer.ts';
import type { SlotTable } from '../slots/slot-table.ts';

/** Hot subjects shown of each shard: so many at most, with at least this share of its messages. */
const HOT_MAX = 5;
const HOT_SHARE_MIN = 0.02;

/** The part of the admin service that concerns the shards, and what follows advice by itself. */
export class ShardsAdmin {
  readonly #table: SlotTable;
  readonly #pool: ShardPool;
  readonly #resizer: Resizer;
  readonly #monitor: LoadMonitor;
  readonly #moves: MoveCounters;
  readonly #isAuto: boolean;
  readonly #patience: Patience;

  constructor(parts: {
    readonly table: SlotTable;
    readonly pool: ShardPool;
    readonly resizer: Resizer;
    readonly monitor: LoadMonitor;
    readonly moves: MoveCounters;
    /** shards.auto */
    readonly isAuto: boolean;
    /** shards.auto_after in ms. */
    readonly autoAfterMs: number;
  }) {
    this.#table = parts.table;
    this.#pool = parts.pool;
    this.#resizer = parts.resizer;
    this.#monitor = parts.monitor;
    this.#moves = parts.moves;
    this.#isAuto = parts.isAuto;
    this.#patience = new Patience(parts.autoAfterMs);
  }

  get count(): number {
    return this.#pool.members.length;
  }

  /** The change that is under way, in words; empty if there is none. */
  get running(): string {
    const { isRunning, what, slotsMoved, slotsTotal } = this.#resizer.state;
    return isRunning ? `${what}, ${slotsMoved} of ${slotsTotal} slots moved` : '';
  }

  async list(): Promise<ListShardsResponse> {
    const load = await this.load();
    return {
      shards: this.#shards(load),
      shardsMax: load.shardsMax,
      epoch: this.#table.epoch,
      auto: this.#isAuto,
      change: this.change(),
    };
  }

  change(): ShardsChange {
    return changeOf(this.#resizer.state);
  }

  resize(shards: number): ShardsChange {
    this.#resizer.resize(shards);
    return this.change();
  }

  moveSlot(slot: number, shard: number): ShardsChange {
    this.#resizer.move(slot, shard);
    return this.change();
  }

  async advise(): Promise<AdviseShardsResponse> {
    const load = await this.load();
    return {
      ...advise(load),
      cores: load.cores,
      mainUtilization: load.mainUtilization,
      cpuUtilization: load.cpuUtilization,
      measured: this.#shards(load),
    };
  }

  /** Now and then, with shards.auto: follows the advice once it has been the same for long enough. */
  async maybeFollow(now: number): Promise<Advice | null> {
    if (!this.#isAuto || !this.#resizer.isFree) return null;
    const advice = advise(await this.load());
    const shards = this.#patience.observe(advice, now);
    if (shards === null || !this.#resizer.isFree) return null;
    this.#resizer.resize(shards);
    return advice;
  }

  /** The last seconds of the node as a whole. */
  recent(): RecentLoad {
    return this.#monitor.recent();
  }

  /** What the node was busy with in the last seconds. */
  async load(): Promise<NodeLoad> {
    const members = this.#pool.members;
    const hot = await Promise.all(members.map((shard) => this.#hotSubjects(shard)));
    return this.#monitor.load(members, hot);
  }

  async #hotSubjects(shard: number): Promise<HotSubjects | null> {
    const answer = await this.#pool.ask(shard, (token) => ({ kind: 'hot', token, limit: HOT_COUNTERS }));
    return answer?.kind === 'hot' ? answer.hot : null;
  }

  #shards(load: NodeLoad): Shard[] {
    return load.shards.map((shard) => ({
      shard: shard.shard,
      slots: this.#table.count(shard.shard),
      serving: this.#pool.generation(shard.shard) > 0,
      utilization: shard.utilization,
      storeBusy: shard.storeBusy,
      messagesPerSecond: shard.messagesPerSecond,
      bytesPerSecond: shard.bytesPerSecond,
      queueWaitMs: shard.queueWaitMs,
      storeWriteMs: shard.storeWriteMs,
      groupMessages: shard.groupMessages,
      hotSubjects: shard.hotSubjects.filter(({ share }) => share >= HOT_SHARE_MIN).slice(0, HOT_MAX),
      slotsIn: this.#moves.slotsIn[shard.shard] as number,
      slotsOut: this.#moves.slotsOut[shard.shard] as number,
    }));
  }
}

function changeOf(state: ResizeState): ShardsChange {
  const { isRunning, what, slotsMoved, slotsTotal, pauseMsMax, durationMs, error } = state;
  return { running: isRunning, what, slotsMoved, slotsTotal, pauseMsMax, durationMs, error };
}
