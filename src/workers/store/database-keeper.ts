import { ClockSteps } from '../../base/clock-steps.ts';
import type { ClaimedDatabase } from '../../storage/bind-store.ts';
import type { LogLine } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { StoreHealth } from './store-health.ts';

/** How often it is looked whether writes succeed, in ms; a database that nothing was written to in that time is probed. */
const LOOK_MS = 2_000;
/** How often expired pieces are looked for, in ms. The smallest covers 15 minutes. */
const DROP_MS = 60_000;

export interface DatabaseKeeperParts {
  readonly database: Pick<ClaimedDatabase, 'probe' | 'dropExpired'>;
  readonly counters: readonly Pick<ShardCounters, 'storeWrite'>[];
  readonly health: StoreHealth;
  readonly raft: Pick<RaftHandle, 'status'>;
  readonly log: (line: LogLine) => void;
  /** It takes messages again, and may be another server. */
  readonly onBack: () => void;
}

/**
 * What concerns the database of the whole node, in one place: whether it would take messages while nobody publishes any, and the space of what
 * has expired. The shards' writes are the better evidence: while they succeed the database is asked nothing.
 */
export class DatabaseKeeper {
  readonly #parts: DatabaseKeeperParts;
  readonly #clock = new ClockSteps(Date.now(), performance.now());
  #writes = 0;
  #isLooking = false;
  #isDropping = false;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(parts: DatabaseKeeperParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#timers.push(setInterval(() => void this.#maybeLook(), LOOK_MS));
    this.#timers.push(setInterval(() => void this.#maybeDrop(), DROP_MS));
    void this.#maybeDrop();
  }

  stop(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
  }

  async #maybeLook(): Promise<void> {
    const { database, counters } = this.#parts;
    if (this.#isLooking) return;
    const writes = counters.reduce((total, { storeWrite }) => total + storeWrite.count, 0);
    const hasWritten = writes > this.#writes;
    this.#writes = writes;
    if (hasWritten) {
      this.#judged(null);
      return;
    }
    this.#isLooking = true;
    try {
      this.#judged(await database.probe());
    } catch (error) {
      this.#judged('it does not answer', error);
    }
    this.#isLooking = false;
  }

  #judged(problem: string | null, error?: unknown): void {
    const { health, log, onBack } = this.#parts;
    if (problem === health.problem) return;
    health.problem = problem;
    if (problem === null) {
      log({ kind: 'log', level: 'info', message: 'the database takes messages again', fields: {} });
      onBack();
    } else {
      const fields = { problem, ...(error === undefined ? {} : { error: String(error) }) };
      log({ kind: 'log', level: 'error', message: 'the database takes no messages', fields });
    }
  }

  async #maybeDrop(): Promise<void> {
    const { database, raft, log } = this.#parts;
    const clockStepped = this.#clock.observe(Date.now(), performance.now());
    if (this.#isDropping || clockStepped) return;
    this.#isDropping = true;
    try {
      const status = await raft.status();
      const dropped = status === null ? 0 : await database.dropExpired(Math.min(status.logTime, Date.now()));
      if (dropped > 0)
        log({ kind: 'log', level: 'info', message: 'dropped what has expired', fields: { pieces: dropped } });
    } catch (error) {
      log({
        kind: 'log',
        level: 'warn',
        message: 'expired pieces are dropped later',
        fields: { error: String(error) },
      });
    }
    this.#isDropping = false;
  }
}
