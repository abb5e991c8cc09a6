import { join } from 'node:path';
import { ClockSteps } from '../../base/clock-steps.ts';
import type { Exclusive } from '../../base/exclusive.ts';
import type { Disk } from '../../storage/disk.ts';
import { type Drop, decideRetention, deleteSegments, type RetentionPolicy } from '../../storage/embedded/retention.ts';
import type { LogLine } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import type { ShardPool } from '../shard-pool.ts';

/** How often retention is judged, in ms. */
const JUDGE_MS = 5_000;

/** Drops segments by age, size and expiry: decides here, for the whole node; every shard lets go; then the files are deleted. */
export class RetentionKeeper {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #policy: RetentionPolicy;
  readonly #shards: Pick<ShardPool, 'segments' | 'release'>;
  readonly #raft: Pick<RaftHandle, 'status'>;
  readonly #log: (line: LogLine) => void;
  readonly #turns: Exclusive;
  readonly #clock = new ClockSteps(Date.now(), performance.now());
  /**
   * Segments that some shard may have let go of and that are there still, because another one died on the way. Nobody reports them any more, so
   * they are remembered here.
   */
  readonly #begun = new Map<number, Drop>();
  #timer: NodeJS.Timeout | null = null;
  #isAtWork = false;

  constructor(parts: {
    readonly disk: Disk;
    readonly dataDirectory: string;
    readonly policy: RetentionPolicy;
    readonly shards: Pick<ShardPool, 'segments' | 'release'>;
    readonly raft: Pick<RaftHandle, 'status'>;
    readonly log: (line: LogLine) => void;
    /** Shared with moves of slots: an index on its way between two shards must not miss that its segments go. */
    readonly turns: Exclusive;
  }) {
    this.#disk = parts.disk;
    this.#directory = join(parts.dataDirectory, 'segments');
    this.#policy = parts.policy;
    this.#shards = parts.shards;
    this.#raft = parts.raft;
    this.#log = parts.log;
    this.#turns = parts.turns;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#maybeJudge(), JUDGE_MS);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  async #maybeJudge(): Promise<void> {
    if (this.#isAtWork) return;
    this.#isAtWork = true;
    await this.#turns.run(() => this.#judge());
    this.#isAtWork = false;
  }

  /** A round that meets a dying shard is given up; the next one goes on with the same segments. */
  async #judge(): Promise<void> {
    try {
      for (const drop of await this.#decide()) this.#begun.set(drop.segment.segment, drop);
      const drops = [...this.#begun.values()];
      await this.#drop(
        drops.filter(({ reason }) => reason === 'expired'),
        false,
      );
      await this.#drop(
        drops.filter(({ reason }) => reason !== 'expired'),
        true,
      );
    } catch (error) {
      this.#log({ kind: 'log', level: 'warn', message: 'retention is put off', fields: { error: String(error) } });
    }
  }

  async #decide(): Promise<Drop[]> {
    const clockStepped = this.#clock.observe(Date.now(), performance.now());
    const status = await this.#raft.status();
    const reports = await this.#shards.segments();
    if (status === null || reports === null) return [];
    return decideRetention({
      segments: reports.flatMap(({ segments }) => segments),
      openBytes: reports.reduce((total, { openBytes }) => total + openBytes, 0),
      policy: this.#policy,
      logTime: status.logTime,
      wallTime: Date.now(),
      clockStepped,
    });
  }

  async #drop(drops: readonly Drop[], isTrimmed: boolean): Promise<void> {
    if (drops.length === 0) return;
    const segments = drops.map(({ segment }) => segment.segment);
    if (!(await this.#shards.release(segments, isTrimmed))) return;
    deleteSegments(this.#disk, this.#directory, segments);
    for (const segment of segments) this.#begun.delete(segment);
    for (const { segment, reason } of drops) {
      this.#log({ kind: 'log', level: 'info', message: 'dropped a segment', fields: { ...segment, reason } });
    }
  }
}
