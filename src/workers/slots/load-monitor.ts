import type { HotSubjects } from '../messages.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { NodeLoad, ShardLoad } from './advice.ts';
import { type FrontLook, quantileBetween, type RecentLoad } from './recent-load.ts';

/** Figures are over this many seconds, one look a second. */
const WINDOW_S = 10;

interface Look {
  readonly at: number;
  /** performance.eventLoopUtilization() of the main thread. */
  readonly active: number;
  readonly idle: number;
  /** CPU time of the process, ms. */
  readonly cpuMs: number;
  readonly shards: readonly ShardLook[];
  readonly front: FrontLook;
  /** Durable writes of all shards, in the buckets of their histograms. */
  readonly writeBuckets: readonly number[];
}

interface ShardLook {
  readonly messages: number;
  readonly bytes: number;
  readonly groups: number;
  readonly waitMs: number;
  readonly waits: number;
  readonly storeMs: number;
  readonly writes: number;
  /** Level over the second before. */
  readonly utilization: number;
}

/** What the node was busy with lately, from the counters that its threads keep anyway. On the main thread. */
export class LoadMonitor {
  readonly #counters: readonly ShardCounters[];
  readonly #cores: number;
  readonly #shardsMax: number;
  readonly #front: () => FrontLook;
  readonly #looks: Look[] = [];

  constructor(parts: {
    readonly front: () => FrontLook;
    readonly counters: readonly ShardCounters[];
    readonly cores: number;
    readonly shardsMax: number;
  }) {
    this.#counters = parts.counters;
    this.#cores = parts.cores;
    this.#shardsMax = parts.shardsMax;
    this.#front = parts.front;
    this.look();
  }

  /** Once a second. */
  look(): void {
    const { active, idle } = performance.eventLoopUtilization();
    const { user, system } = process.cpuUsage();
    const shards = this.#counters.map((counters) => ({
      messages: counters.get('messages_total'),
      bytes: counters.get('bytes_total'),
      groups: counters.get('groups_total'),
      waitMs: counters.get('queue_wait_ms_total'),
      waits: counters.get('queue_wait_count'),
      storeMs: counters.storeWrite.sum / 1000,
      writes: counters.storeWrite.count,
      utilization: counters.get('event_loop_utilization'),
    }));
    const front = this.#front();
    const writeBuckets = this.#writeLimitsMs.map((_, i) =>
      this.#counters.reduce((sum, { storeWrite }) => sum + storeWrite.bucketCount(i), 0),
    );
    this.#looks.push({
      at: performance.now(),
      active,
      idle,
      cpuMs: (user + system) / 1000,
      shards,
      front,
      writeBuckets,
    });
    if (this.#looks.length > WINDOW_S + 1) this.#looks.shift();
  }

  /** `members`: the shards that there are; `hot`: what each says of its subjects, in their order. */
  load(members: readonly number[], hot: readonly (HotSubjects | null)[]): NodeLoad {
    const { first, last, ms } = this.#window();
    return {
      cores: this.#cores,
      shardsMax: this.#shardsMax,
      ...this.#utilization(),
      shards: members.map((shard, i) => this.#shardLoad(shard, first, last, ms, hot[i] ?? null)),
    };
  }

  /** Of the node as a whole. */
  recent(): RecentLoad {
    const { first, last, ms } = this.#window();
    const perSecond = (from: number, to: number): number => (Math.max(0, to - from) * 1000) / ms;
    const sum = ({ shards }: Look, cell: 'messages' | 'bytes'): number =>
      shards.reduce((total, shard) => total + shard[cell], 0);
    return {
      messagesIn: perSecond(sum(first, 'messages'), sum(last, 'messages')),
      bytesIn: perSecond(sum(first, 'bytes'), sum(last, 'bytes')),
      messagesOut: perSecond(first.front.messagesOut, last.front.messagesOut),
      bytesOut: perSecond(first.front.bytesOut, last.front.bytesOut),
      ...this.#utilization(),
      publishP99Ms: quantileBetween(
        first.front.publishBuckets,
        last.front.publishBuckets,
        last.front.publishLimitsMs,
        0.99,
      ),
      storeWriteP99Ms: quantileBetween(first.writeBuckets, last.writeBuckets, this.#writeLimitsMs, 0.99),
    };
  }

  get #writeLimitsMs(): number[] {
    const histogram = this.#counters[0]?.storeWrite;
    if (histogram === undefined) return [];
    const { grid } = histogram;
    return Array.from({ length: grid.length }, (_, i) => grid.limitOf(i) / 1000);
  }

  #window(): { readonly first: Look; readonly last: Look; readonly ms: number } {
    const first = this.#looks[0] as Look;
    const last = this.#looks.at(-1) as Look;
    return { first, last, ms: Math.max(1, last.at - first.at) };
  }

  #utilization(): { readonly mainUtilization: number; readonly cpuUtilization: number } {
    const { first, last, ms } = this.#window();
    const turns = last.active - first.active + (last.idle - first.idle);
    return {
      mainUtilization: turns > 0 ? (last.active - first.active) / turns : 0,
      cpuUtilization: Math.min(1, (last.cpuMs - first.cpuMs) / ms / this.#cores),
    };
  }

  #shardLoad(shard: number, first: Look, last: Look, ms: number, hot: HotSubjects | null): ShardLoad {
    const from = first.shards[shard] as ShardLook;
    const to = last.shards[shard] as ShardLook;
    const seconds = ms / 1000;
    const writes = to.writes - from.writes;
    const groups = to.groups - from.groups;
    const storeMs = to.storeMs - from.storeMs;
    const looks = this.#looks.slice(Math.min(1, this.#looks.length - 1));
    const utilization = looks.reduce((sum, look) => sum + (look.shards[shard] as ShardLook).utilization, 0);
    return {
      shard,
      utilization: utilization / looks.length,
      storeBusy: Math.min(1, storeMs / ms),
      messagesPerSecond: (to.messages - from.messages) / seconds,
      bytesPerSecond: (to.bytes - from.bytes) / seconds,
      queueWaitMs: (to.waitMs - from.waitMs) / Math.max(1, to.waits - from.waits),
      storeWriteMs: storeMs / Math.max(1, writes),
      groupMessages: (to.messages - from.messages) / Math.max(1, groups),
      hotSubjects:
        hot === null || hot.total === 0
          ? []
          : hot.subjects.map(({ tenant, subject, messages }) => ({ tenant, subject, share: messages / hot.total })),
    };
  }
}
