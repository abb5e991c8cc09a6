import type { MemberCounters } from '../../gossip/members/member-list.ts';
import { DROP_REASONS } from '../../net/gossip/transport.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { GossipAgent } from './gossip-agent.ts';
import type { GossipFigures, GossipStatus } from './types.ts';

const STATUSES: readonly GossipStatus[] = ['alive', 'suspect', 'leaving', 'left', 'failed'];

interface Figure {
  readonly kind: 'gauge' | 'counter';
  readonly name: string;
  readonly help: string;
  readonly read: (figures: GossipFigures) => number;
}

const RULES: readonly (readonly [keyof MemberCounters, string, string])[] = [
  ['probes', 'broker_gossip_probes_total', 'Probes of other nodes.'],
  ['probesFailed', 'broker_gossip_probe_failures_total', 'Probes that nobody answered: each begins a suspicion.'],
  ['probesStreamOnly', 'broker_gossip_probes_stream_only_total', 'Probes that only TCP answered: UDP is blocked.'],
  ['suspicions', 'broker_gossip_suspicions_total', 'Suspicions that began here, own and heard.'],
  ['failures', 'broker_gossip_failures_total', 'Nodes that this one called failed.'],
  ['refutations', 'broker_gossip_refutations_total', 'Times that others took this node for gone or for another.'],
  ['conflicts', 'broker_gossip_conflicts_total', 'Messages about a name at another address.'],
  ['aliveRefused', 'broker_gossip_nodes_refused_total', 'Messages of nodes that are of another cluster.'],
  ['refused', 'broker_gossip_messages_refused_total', 'Messages with a value out of its bounds.'],
  ['pauses', 'broker_gossip_pauses_total', 'Times that the thread did not run for longer than a probe interval.'],
  ['joinsDone', 'broker_gossip_joins_total', 'Exchanges with seeds that succeeded.'],
  ['pushPullsFailed', 'broker_gossip_exchanges_failed_total', 'Exchanges of everything that failed or were refused.'],
];

const FIGURES: readonly Figure[] = [
  {
    kind: 'gauge',
    name: 'broker_gossip_health_score',
    help: 'How late this node is: 0 is well, up to 7.',
    read: ({ health }) => health,
  },
  { kind: 'gauge', name: 'broker_gossip_keys', help: 'Keys; 0: gossip is not encrypted.', read: ({ keys }) => keys },
  ...RULES.map(([slot, name, help]): Figure => ({ kind: 'counter', name, help, read: ({ rules }) => rules[slot] })),
  {
    kind: 'counter',
    name: 'broker_gossip_packets_in_total',
    help: 'Packets that came.',
    read: ({ transport }) => transport.packetsIn,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_packets_out_total',
    help: 'Packets sent.',
    read: ({ transport }) => transport.packetsOut,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_bytes_in_total',
    help: 'Bytes of packets and streams that came.',
    read: ({ transport }) => transport.bytesIn + transport.streams.bytesIn,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_bytes_out_total',
    help: 'Bytes of packets and streams sent.',
    read: ({ transport }) => transport.bytesOut + transport.streams.bytesOut,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_packets_unsent_total',
    help: 'Packets that the kernel did not take.',
    read: ({ transport }) => transport.unsent,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_streams_accepted_total',
    help: 'TCP connections that others opened.',
    read: ({ transport }) => transport.streams.accepted,
  },
  {
    kind: 'counter',
    name: 'broker_gossip_streams_dialed_total',
    help: 'TCP connections opened to others.',
    read: ({ transport }) => transport.streams.dialed,
  },
];

/** What /metrics shows of gossip; nothing before `start`. */
export function addGossipMetrics(registry: MetricsRegistry, agent: GossipAgent): void {
  const isThere = (): boolean => agent.figures !== null;
  const reading = (read: (figures: GossipFigures) => number) => (): number => {
    const { figures } = agent;
    return figures === null ? 0 : read(figures);
  };
  for (const { kind, name, help, read } of FIGURES) {
    if (kind === 'gauge') registry.addGauge(name, help, {}, reading(read), isThere);
    else registry.addCounter(name, help, {}, reading(read), isThere);
  }
  for (const status of STATUSES) {
    const count = (): number => agent.view().filter((member) => member.status === status).length;
    registry.addGauge(
      'broker_gossip_members',
      'Nodes by how they stand, this one included.',
      { status },
      count,
      isThere,
    );
  }
  const queues: Readonly<Record<string, (figures: GossipFigures) => number>> = {
    node: ({ nodeQueue }) => nodeQueue,
    intent: ({ serf }) => serf.intentQueue,
    event: ({ serf }) => serf.eventQueue,
    query: ({ serf }) => serf.queryQueue,
  };
  for (const [queue, read] of Object.entries(queues)) {
    const help = 'Messages that wait to be gossiped.';
    registry.addGauge('broker_gossip_queue_length', help, { queue }, reading(read), isThere);
  }
  const streams = { crowded: 'crowded', malformed: 'malformed', late: 'late' } as const;
  for (const reason of Object.values(streams)) {
    const count = reading(({ transport }) => transport.streams[reason]);
    const help = 'TCP connections that were closed for what came on them, what did not, or how many there were.';
    registry.addCounter('broker_gossip_streams_closed_total', help, { reason }, count, isThere);
  }
  for (const reason of DROP_REASONS) {
    const count = reading(({ transport }) => transport.drops[reason]);
    registry.addCounter(
      'broker_gossip_drops_total',
      'Packets, and parts of them, dropped.',
      { reason },
      count,
      isThere,
    );
  }
}
