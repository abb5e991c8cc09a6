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

/** A histogram as shared memory holds it; Log2Histogram is one. Buckets are not cumulative here. */
export interface HistogramSource {
  readonly shape: { readonly buckets: number };
  readonly count: number;
  readonly sum: number;
  bucketCount(bucket: number): number;
  /** Inclusive; Infinity for the last one. */
  bucketLimit(bucket: number): number;
}

/** Calls answered so far, in plain columns of the main thread. */
export interface CallSource {
  readonly methods: readonly string[];
  /** By method, then by gRPC status code (17 of them). */
  readonly counts: Float64Array;
  /** By method, then by bucket; not cumulative. */
  readonly buckets: Float64Array;
  readonly sumsMs: Float64Array;
  /** Upper bounds in ms, the last one Infinity. */
  readonly bucketLimitsMs: readonly number[];
}

interface Value {
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

type Kind = 'counter' | 'gauge' | 'histogram';

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
  readonly #sources = new Map<string, () => Value[]>();

  constructor(name: string, help: string, type: Kind) {
    this.name = name;
    this.help = help;
    this.type = type;
  }

  add(labels: Labels, read: () => Value[]): void {
    this.#sources.set(JSON.stringify(labels), read);
  }

  get(): Promise<{ name: string; help: string; type: Kind; aggregator: string; values: Value[] }> {
    const values = [...this.#sources.values()].flatMap((read) => read());
    return Promise.resolve({ name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values });
  }
}

/** False while what is measured does not exist, such as a shard that was taken away: it is then not shown. */
type IsThere = () => boolean;

function always(): boolean {
  return true;
}

/** Everything that /metrics shows. On the main thread only; nothing here is touched between scrapes. */
export class MetricsRegistry {
  readonly #registry = new Registry();
  readonly #metrics = new Map<string, ScrapedMetric>();

  constructor(options: { readonly processMetrics: boolean } = { processMetrics: true }) {
    // The loop-delay timer at its default of 10 ms would be the only thing that an idle broker does.
    if (options.processMetrics) collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 50 });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Prometheus text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** The slots of one thread's counters: `read` gives a slot's number; labels tell the threads apart. */
  addBlock<Slot extends string>(
    metrics: readonly SlotMetric<Slot>[],
    read: (slot: Slot) => number,
    labels: Labels,
    isThere: IsThere = always,
  ): void {
    for (const { slot, kind, name, help, scale = 1 } of metrics) {
      this.#metric(name, help, kind).add(labels, () => (isThere() ? [{ labels, value: read(slot) * scale }] : []));
    }
  }

  addGauge(name: string, help: string, labels: Labels, read: () => number, isThere: IsThere = always): void {
    this.#metric(name, help, 'gauge').add(labels, () => (isThere() ? [{ labels, value: read() }] : []));
  }

  addCounter(name: string, help: string, labels: Labels, read: () => number, isThere: IsThere = always): void {
    this.#metric(name, help, 'counter').add(labels, () => (isThere() ? [{ labels, value: read() }] : []));
  }

  /** `scale` turns the unit that was observed into the one of the metric's name: 1e-6 for microseconds in `_seconds`. */
  addHistogram(
    name: string,
    help: string,
    labels: Labels,
    source: HistogramSource,
    scale = 1,
    isThere: IsThere = always,
  ): void {
    const metric = this.#metric(name, help, 'histogram');
    metric.add(labels, () => {
      if (!isThere()) return [];
      const limits = Array.from({ length: source.shape.buckets }, (_, bucket) => source.bucketLimit(bucket) * scale);
      return histogramValues(name, labels, limits, (bucket) => source.bucketCount(bucket), source.sum * scale);
    });
  }

  /**
   * The predecessor's call metrics under its names. Its labels are kept: `method` in lower case and `status` successful
   * | failed; `rpc_duration` was its only label of durations. `code` is ours. Durations are in seconds (its fetch
   * durations were nanoseconds) and a histogram (it had a summary), so that nodes can be added up.
   */
  addCalls(calls: CallSource): void {
    assert(
      calls.counts.length === calls.methods.length * STATUS_CODES.length,
      'metrics: one count per method and status',
    );
    const buckets = calls.bucketLimitsMs.length;
    assert(calls.buckets.length === calls.methods.length * buckets, 'metrics: one bucket row per method');
    const count = this.#metric('rpc_request_get_method_count', 'Calls answered, by method and status.', 'counter');
    count.add({}, () => callCounts(calls));
    const name = 'rpc_request_get_method_duration';
    const duration = this.#metric(name, 'Seconds from the arrival of a call to its answer.', 'histogram');
    const limits = calls.bucketLimitsMs.map((limit) => limit / 1_000);
    calls.methods.forEach((method, index) => {
      const labels = { method: method.toLowerCase(), rpc_duration: `${method.toLowerCase()}_duration` };
      const bucketCount = (bucket: number): number => calls.buckets[index * buckets + bucket] as number;
      duration.add(labels, () =>
        histogramValues(name, labels, limits, bucketCount, (calls.sumsMs[index] as number) / 1_000),
      );
    });
  }

  /** The predecessor's gauge. */
  addActiveSubscribers(read: () => number): void {
    this.addGauge('active_subscribers', 'Subscribe streams that are open.', {}, read);
  }

  #metric(name: string, help: string, kind: Kind): ScrapedMetric {
    const known = this.#metrics.get(name);
    if (known !== undefined) {
      assert(known.type === kind, () => `metrics: ${name} is a ${known.type} already`);
      return known;
    }
    const metric = new ScrapedMetric(name, help, kind);
    this.#metrics.set(name, metric);
    // The registry uses name and get() of a metric only; its type lists prom-client's own four classes.
    this.#registry.registerMetric(metric as unknown as Metric<string>);
    return metric;
  }
}

/** Only pairs that occurred: 7 methods x 17 codes would be mostly zeros. */
function callCounts({ methods, counts }: CallSource): Value[] {
  const values: Value[] = [];
  methods.forEach((method, row) => {
    STATUS_CODES.forEach((code, column) => {
      const value = counts[row * STATUS_CODES.length + column] as number;
      const status = code === 'OK' ? 'successful' : 'failed';
      if (value > 0 || code === 'OK') values.push({ labels: { method: method.toLowerCase(), status, code }, value });
    });
  });
  return values;
}

/** The count is the sum of the buckets read here, so that a scrape in the middle of an observation still adds up. */
function histogramValues(
  name: string,
  labels: Labels,
  limits: readonly number[],
  bucketCount: (bucket: number) => number,
  sum: number,
): Value[] {
  const values: Value[] = [];
  let cumulative = 0;
  limits.forEach((limit, bucket) => {
    cumulative += bucketCount(bucket);
    const le = limit === Number.POSITIVE_INFINITY ? '+Inf' : Number(limit.toPrecision(12));
    values.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: cumulative });
  });
  values.push({ metricName: `${name}_sum`, labels, value: sum });
  values.push({ metricName: `${name}_count`, labels, value: cumulative });
  return values;
}
