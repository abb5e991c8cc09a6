import type { HotSubjects } from '../messages.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { NodeLoad, ShardLoad } from './advice.ts';

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
  readonly #looks: Look[] = [];

  constructor(parts: {
    readonly counters: readonly ShardCounters[];
    readonly cores: number;
    readonly shardsMax: number;
  }) {
    this.#counters = parts.counters;
    this.#cores = parts.cores;
    this.#shardsMax = parts.shardsMax;
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
    this.#looks.push({ at: performance.now(), active, idle, cpuMs: (user + system) / 1000, shards });
    if (this.#looks.length > WINDOW_S + 1) this.#looks.shift();
  }

  /** `members`: the shards that there are; `hot`: what each says of its subjects, in their order. */
  load(members: readonly number[], hot: readonly (HotSubjects | null)[]): NodeLoad {
    const first = this.#looks[0] as Look;
    const last = this.#looks.at(-1) as Look;
    const ms = Math.max(1, last.at - first.at);
    const turns = last.active - first.active + (last.idle - first.idle);
    return {
      cores: this.#cores,
      shardsMax: this.#shardsMax,
      mainUtilization: turns > 0 ? (last.active - first.active) / turns : 0,
      cpuUtilization: Math.min(1, (last.cpuMs - first.cpuMs) / ms / this.#cores),
      shards: members.map((shard, i) => this.#shardLoad(shard, first, last, ms, hot[i] ?? null)),
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
          : hot.subjects.map(({ subject, messages }) => ({ subject, share: messages / hot.total })),
    };
  }
}
