import { within } from '../../base/within.ts';
import type { MetricsRegistry, Sample } from '../../telemetry/metrics.ts';
import type { ShardPool } from '../shard-pool.ts';
import type { LoadMonitor } from '../slots/load-monitor.ts';

/** A scrape waits no longer than this for the shards, and shows what they said last. */
const ASK_MS = 20;

/**
 * The subjects that most is published to, `limit` of all shards together: a shard's sketch says their shares of its messages, its counters how many
 * those were. With any number of subjects the cost is that of the sketches.
 */
export class TopSubjects {
  readonly #pool: Pick<ShardPool, 'members' | 'ask'>;
  readonly #monitor: Pick<LoadMonitor, 'load'>;
  readonly #limit: number;
  #samples: readonly Sample[] = [];

  /** `limit`: metrics.top_subjects */
  constructor(pool: Pick<ShardPool, 'members' | 'ask'>, monitor: Pick<LoadMonitor, 'load'>, limit: number) {
    this.#pool = pool;
    this.#monitor = monitor;
    this.#limit = limit;
  }

  addTo(registry: MetricsRegistry): void {
    if (this.#limit === 0) return;
    registry.beforeScrape(() => this.#look());
    registry.addSamples(
      'gauge',
      'broker_top_subject_messages_per_second',
      'Messages published to the busiest subjects over the last ten seconds or so; only so many as metrics.top_subjects.',
      () => this.#samples,
    );
  }

  async #look(): Promise<void> {
    const { members } = this.#pool;
    const limit = this.#limit;
    const answers = members.map((shard) => this.#pool.ask(shard, (token) => ({ kind: 'hot', token, limit })));
    const hot = await within(ASK_MS, Promise.all(answers));
    if (hot === null) return;
    const load = this.#monitor.load(
      members,
      hot.map((answer) => (answer?.kind === 'hot' ? answer.hot : null)),
    );
    this.#samples = load.shards
      .flatMap(({ hotSubjects, messagesPerSecond }) =>
        hotSubjects.map(({ tenant, subject, share }) => ({
          labels: tenant === '' ? { subject } : { tenant, subject },
          value: share * messagesPerSecond,
        })),
      )
      .filter(({ value }) => value > 0)
      .sort((a, b) => b.value - a.value)
      .slice(0, limit);
  }
}
