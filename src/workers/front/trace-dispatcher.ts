import type { Tracing } from '../tracing/tracing.ts';
import type { Dispatcher } from './dispatcher.ts';

/** From now on the calls of the dispatcher are traced. Before the first one is let in. */
export function traceDispatcher(tracing: Tracing, dispatcher: Dispatcher, node: string): void {
  const { subscriptions, consumers, producers, peers } = dispatcher;
  tracing.start(node, {
    groupsOf: (subject) => [subscriptions.groupOf(subject), consumers.groupOf(subject)].filter((group) => group >= 0),
  });
  dispatcher.tracing = tracing;
  producers.tracing = tracing;
  peers.tracing = tracing;
  subscriptions.traces = tracing.deliveries;
  consumers.traces = tracing.deliveries;
}
