import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { Tracing } from './tracing.ts';

/** What tracing says of itself; only where it is on. */
export function addTraceMetrics(registry: MetricsRegistry, tracing: Tracing): void {
  const { spans, budget } = tracing;
  registry.addCounter(
    'broker_traces_total',
    'Calls and batches that were traced to their end.',
    {},
    () => tracing.traced,
  );
  registry.addCounter(
    'broker_traces_refused_total',
    'Calls and batches that were to be traced and were not, by tracing.traces_per_second.',
    {},
    () => budget.refused,
  );
  const name = 'broker_trace_spans_total';
  const help =
    'Spans that the collector took, refused or was not reached with (failed), or that found the queue full (dropped).';
  registry.addCounter(name, help, { outcome: 'exported' }, () => spans.exported);
  registry.addCounter(name, help, { outcome: 'failed' }, () => spans.failed);
  registry.addCounter(name, help, { outcome: 'dropped' }, () => spans.dropped);
}
