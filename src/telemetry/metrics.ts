import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import { assert } from '../base/assert.ts';

export type Labels = Readonly<Record<string, string>>;

/**
 * One number of a block: `kind` counter only grows until the process ends. `scale` turns the slot's unit into the
 * metric's (seconds, bytes).
 */
export interface SlotMetric<Slot extends string> {
  readonly slot: Slot;
  readonly kind: 'counter' | 'gauge';
  readonly name: string;
  readonly help: string;
  readonly scale?: number;
}

/** A histogram as it is shown: which of the limits of its buckets, and the factor from the observed unit to the metric's. */
export interface HistogramMetric {
  readonly name: string;
  readonly help: string;
  readonly scale: number;
  /** Ascending, in the observed unit, each the limit of a bucket; +Inf comes by itself. */
  readonly limits: readonly number[];
}

/** A histogram as shared memory holds it; SharedHistogram is one. Buckets are not cumulative here. */
export interface HistogramSource {
  readonly grid: { readonly length: number; bucketOf(value: number): number; limitOf(bucket: number): number };
  readonly sum: number;
  bucketCount(bucket: number): number;
}

/** Calls answered so far, in plain columns of the main thread. */
export interface CallSource {
  readonly methods: readonly string[];
  /** By method, then by gRPC status code (17 of them). */
  readonly counts: Float64Array;
  /** By method; null where a call is a stream, whose time says nothing. Observed in microseconds. */
  readonly durations: readonly (HistogramSource | null)[];
  readonly duration: HistogramMetric;
}

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

/**
 * A line of the answer. Its name comes with its labels, written once: prom-client, which would put them together for each line of each scrape, takes
 * it for a name without any.
 */
interface Value {
  readonly metricName: string;
  readonly value: number;
}

type Kind = 'counter' | 'gauge' | 'histogram' | 'summary';

/** Names of google.rpc.Code by number. */
const STATUS_CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

/**
 * A metric whose values are made when it is scraped. It stands in prom-client's registry beside its own metrics: the
 * registry asks `get()` for name, type and values and knows nothing else of a metric. prom-client's Histogram cannot be
 * set from outside, and its `observe` is too slow for each message.
 */
class ScrapedMetric {
  readonly name: string;
  readonly help: string;
  readonly type: Kind;
  readonly aggregator = 'sum';
  /** By label set, so that a source that is added again (a replaced thread) takes the place of the former one. */
  readonly #sources = new Map<string, () => readonly Value[]>();
  #values: readonly Value[] = [];
  /** There are as many of it as shards: the first to be left out. */
  isPerShard = false;

  constructor(name: string, help: string, type: Kind) {
    this.name = name;
    this.help = help;
    this.type = type;
  }

  add(labels: Labels, read: () => readonly Value[]): void {
    this.#sources.set(JSON.stringify(labels), read);
    this.isPerShard ||= 'shard' in labels;
  }

  /** Reads all sources. Shown whole or not at all, since a part would be a wrong sum: the number of series that do not fit into `room`. */
  collect(room: number): { readonly shown: number; readonly left: number } {
    const values = [...this.#sources.values()].flatMap((read) => read());
    const fits = values.length <= room;
    this.#values = fits ? values : [];
    return fits ? { shown: values.length, left: 0 } : { shown: 0, left: values.length };
  }

  get(): Promise<{ name: string; help: string; type: Kind; aggregator: string; values: readonly Value[] }> {
    const { name, help, type, aggregator } = this;
    return Promise.resolve({ name, help, type, aggregator, values: this.#values });
  }
}

/** False while what is measured does not exist, such as a shard that was taken away: it is then not shown. */
type IsThere = () => boolean;

function always(): boolean {
  return true;
}

/**
 * What prom-client has by default and we do not show: three break the rules of names that Prometheus has, heap spaces are 39 series that nobody
 * looks at.
 */
const NOT_SHOWN = [
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total',
  'nodejs_heap_space_size_total_bytes',
  'nodejs_heap_space_size_used_bytes',
  'nodejs_heap_space_size_available_bytes',
];

/** What is left of them has fewer series; a test counts. */
export const PROCESS_SERIES_MAX = 100;
/** Of the registry itself. */
const OWN_SERIES = 3;

export interface MetricsOptions {
  readonly processMetrics?: boolean;
  /** metrics.series_max */
  readonly seriesMax?: number;
}

/** Everything that /metrics shows. On the main thread only; nothing here is touched between scrapes. */
export class MetricsRegistry {
  readonly #registry = new Registry();
  /** In the order in which they were added: shards, and then what comes late, are left out first. */
  readonly #metrics = new Map<string, ScrapedMetric>();
  readonly #own: readonly ScrapedMetric[];
  readonly #room: number;
  readonly #fresh: (() => Promise<void>)[] = [];
  #shown = 0;
  #left = 0;
  #ms = 0;

  constructor({ processMetrics = true, seriesMax = 2_000 }: MetricsOptions = {}) {
    // The loop-delay timer at its default of 10 ms would be the only thing that an idle broker does.
    if (processMetrics) collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 50 });
    for (const name of NOT_SHOWN) this.#registry.removeSingleMetric(name);
    this.#room = seriesMax - OWN_SERIES - (processMetrics ? PROCESS_SERIES_MAX : 0);
    const own = (name: string, help: string, read: () => number): ScrapedMetric => {
      const metric = new ScrapedMetric(name, help, 'gauge');
      metric.add({}, () => [{ metricName: name, value: read() }]);
      this.#register(metric);
      return metric;
    };
    this.#own = [
      own(
        'broker_metrics_series',
        'Series of the broker in this answer, those of the process aside.',
        () => this.#shown,
      ),
      own(
        'broker_metrics_left_out_series',
        'Series that are missing from this answer, for metrics.series_max.',
        () => this.#left,
      ),
      own(
        'broker_metrics_collect_seconds',
        'Time that the main thread took to read the figures of the answer before this one.',
        () => this.#ms / 1_000,
      ),
    ];
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** `look` is called before each scrape, which waits for it: it must have a limit of its own. */
  beforeScrape(look: () => Promise<void>): void {
    this.#fresh.push(look);
  }

  /** Prometheus text format. */
  async text(): Promise<string> {
    await Promise.all(this.#fresh.map((look) => look()));
    this.#collect();
    // Each metric is asked for its values before this returns, so two scrapes do not meet.
    return this.#registry.metrics();
  }

  #collect(): void {
    const startedAt = performance.now();
    let shown = OWN_SERIES;
    let left = 0;
    const all = [...this.#metrics.values()];
    const inOrder = [...all.filter(({ isPerShard }) => !isPerShard), ...all.filter(({ isPerShard }) => isPerShard)];
    for (const metric of inOrder) {
      const taken = metric.collect(this.#room + OWN_SERIES - shown);
      shown += taken.shown;
      left += taken.left;
    }
    this.#shown = shown;
    this.#left = left;
    for (const metric of this.#own) metric.collect(1);
    this.#ms = performance.now() - startedAt;
  }

  /** The slots of one thread's counters: `read` gives a slot's number; labels tell the threads apart. */
  addBlock<Slot extends string>(
    metrics: readonly SlotMetric<Slot>[],
    read: (slot: Slot) => number,
    labels: Labels,
    isThere: IsThere = always,
  ): void {
    for (const { slot, kind, name, help, scale = 1 } of metrics) {
      this.#addOne(kind, name, help, labels, () => read(slot) * scale, isThere);
    }
  }

  addGauge(name: string, help: string, labels: Labels, read: () => number, isThere: IsThere = always): void {
    this.#addOne('gauge', name, help, labels, read, isThere);
  }

  addCounter(name: string, help: string, labels: Labels, read: () => number, isThere: IsThere = always): void {
    this.#addOne('counter', name, help, labels, read, isThere);
  }

  /** A metric whose label sets come and go, such as subjects, tenants or reasons: `read` bounds how many there are. */
  addSamples(kind: 'counter' | 'gauge', name: string, help: string, read: () => readonly Sample[]): void {
    this.#metric(name, help, kind).add({}, () =>
      read().map(({ labels, value }) => ({ metricName: seriesName(name, labels), value })),
    );
  }

  /** Sum and number of what was observed, for means, where a histogram would be too many series. */
  addSumAndCount(
    name: string,
    help: string,
    labels: Labels,
    read: () => { readonly sum: number; readonly count: number },
    isThere: IsThere = always,
  ): void {
    const [ofSum, ofCount] = [seriesName(`${name}_sum`, labels), seriesName(`${name}_count`, labels)];
    this.#metric(name, help, 'summary').add(labels, () => {
      if (!isThere()) return [];
      const { sum, count } = read();
      return [
        { metricName: ofSum, value: sum },
        { metricName: ofCount, value: count },
      ];
    });
  }

  /** The sum of `sources`, which have the same grid: those of all shards. */
  addHistogram(metric: HistogramMetric, labels: Labels, sources: readonly HistogramSource[]): void {
    this.#histogram(metric).add(labels, histogramReader(metric, labels, sources));
  }

  /**
   * The predecessor's call metrics under its names. Its labels are kept: `method` in lower case and `status` successful
   * | failed; `rpc_duration` was its only label of durations. `code` is ours. Durations are in seconds (its fetch
   * durations were nanoseconds) and a histogram (it had a summary), so that nodes can be added up.
   */
  addCalls(calls: CallSource): void {
    const { methods, counts, durations, duration } = calls;
    assert(counts.length === methods.length * STATUS_CODES.length, 'metrics: one count per method and status');
    const count = this.#metric('rpc_request_get_method_count', 'Calls answered, by method and status.', 'counter');
    const names = seriesOfCalls(methods);
    count.add({}, () => callCounts(counts, names));
    methods.forEach((method, index) => {
      const source = durations[index] ?? null;
      const labels = { method: method.toLowerCase(), rpc_duration: `${method.toLowerCase()}_duration` };
      if (source !== null) this.addHistogram(duration, labels, [source]);
    });
  }

  /** The predecessor's gauge. */
  addActiveSubscribers(read: () => number): void {
    this.addGauge('active_subscribers', 'Subscribe streams that are open.', {}, read);
  }

  #addOne(
    kind: 'counter' | 'gauge',
    name: string,
    help: string,
    labels: Labels,
    read: () => number,
    isThere: IsThere,
  ): void {
    const metricName = seriesName(name, labels);
    this.#metric(name, help, kind).add(labels, () => (isThere() ? [{ metricName, value: read() }] : []));
  }

  #histogram({ name, help }: HistogramMetric): ScrapedMetric {
    return this.#metric(name, help, 'histogram');
  }

  #metric(name: string, help: string, kind: Kind): ScrapedMetric {
    const known = this.#metrics.get(name);
    if (known !== undefined) {
      assert(known.type === kind, () => `metrics: ${name} is a ${known.type} already`);
      return known;
    }
    const metric = new ScrapedMetric(name, help, kind);
    this.#metrics.set(name, metric);
    this.#register(metric);
    return metric;
  }

  /** The registry uses name and get() of a metric only; its type lists prom-client's own four classes. */
  #register(metric: ScrapedMetric): void {
    this.#registry.registerMetric(metric as unknown as Metric<string>);
  }
}

/** A name with its labels, as the text format wants them. */
function seriesName(name: string, labels: Labels): string {
  const written = Object.entries(labels).map(([label, value]) => `${label}="${value.replace(/[\\"\n]/g, escaped)}"`);
  return written.length === 0 ? name : `${name}{${written.join()}}`;
}

function escaped(character: string): string {
  return character === '\n' ? '\\n' : `\\${character}`;
}

/** In the order of CallSource.counts. */
function seriesOfCalls(methods: readonly string[]): string[] {
  return methods.flatMap((method) =>
    STATUS_CODES.map((code) => {
      const status = code === 'OK' ? 'successful' : 'failed';
      return seriesName('rpc_request_get_method_count', { method: method.toLowerCase(), status, code });
    }),
  );
}

/**
 * Shown before they occurred: an alert on what should never happen is an increase, and a series that begins with its first error has none until the
 * second one.
 */
const SHOWN_AS_ZERO: ReadonlySet<string> = new Set(['OK', 'UNKNOWN', 'INTERNAL', 'DATA_LOSS']);

/** Pairs that occurred, and these of each method: most of 9 methods x 17 codes would be zeros. */
function callCounts(counts: Float64Array, names: readonly string[]): Value[] {
  return names.flatMap((metricName, cell) => {
    const value = counts[cell] as number;
    const code = STATUS_CODES[cell % STATUS_CODES.length] as string;
    return value > 0 || SHOWN_AS_ZERO.has(code) ? [{ metricName, value }] : [];
  });
}

/** The count is the sum of the buckets read here, so that a scrape in the middle of an observation still adds up. */
function histogramReader(
  { name, scale, limits }: HistogramMetric,
  labels: Labels,
  sources: readonly HistogramSource[],
): () => Value[] {
  const grid = sources[0]?.grid;
  assert(grid !== undefined, () => `metrics: ${name} has no source`);
  const ends = limits.map((limit) => grid.bucketOf(limit));
  for (const [i, limit] of limits.entries()) {
    assert(grid.limitOf(ends[i] as number) === limit, () => `metrics: no bucket of ${name} ends at ${limit}`);
  }
  const names = [...limits.map((limit) => String(Number((limit * scale).toPrecision(12)))), '+Inf'].map((le) =>
    seriesName(`${name}_bucket`, { ...labels, le }),
  );
  const [ofSum, ofCount] = [seriesName(`${name}_sum`, labels), seriesName(`${name}_count`, labels)];
  ends.push(grid.length - 1);
  return () => {
    const values: Value[] = [];
    let cumulative = 0;
    let sum = 0;
    for (const source of sources) sum += source.sum;
    let bucket = 0;
    ends.forEach((end, i) => {
      for (; bucket <= end; bucket++) for (const source of sources) cumulative += source.bucketCount(bucket);
      values.push({ metricName: names[i] as string, value: cumulative });
    });
    values.push({ metricName: ofSum, value: sum * scale });
    values.push({ metricName: ofCount, value: cumulative });
    return values;
  };
}
