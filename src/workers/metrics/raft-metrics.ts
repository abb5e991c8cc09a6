import { within } from '../../base/within.ts';
import { RAFT_APPEND, RAFT_METRICS, RAFT_SYNC } from '../../telemetry/catalogue.ts';
import type { MetricsRegistry, Sample } from '../../telemetry/metrics.ts';
import type { ClusterView, MemberView } from '../messages.ts';
import { RAFT_ROLES, type RaftCounters } from '../raft/raft-counters.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';

/** A scrape waits no longer than this for what another thread knows, and shows what that said last. */
const ASK_MS = 20;
/** Members that are shown; with more the first ones by name. */
const MEMBERS_MAX = 32;

export function addRaft(registry: MetricsRegistry, raft: RaftCounters): void {
  registry.addBlock(RAFT_METRICS, (slot) => raft.get(slot), {});
  for (const role of RAFT_ROLES) {
    registry.addGauge('broker_raft_role', '1 for the role that this node has, 0 for the others.', { role }, () =>
      raft.role === role ? 1 : 0,
    );
  }
  registry.addHistogram(RAFT_APPEND, {}, [raft.append]);
  registry.addHistogram(RAFT_SYNC, {}, [raft.sync]);
}

/** Of a node with peers: what it knows of the members. */
export function addMembers(registry: MetricsRegistry, raft: Pick<RaftHandle, 'cluster'>): void {
  let view: ClusterView | null = null;
  registry.beforeScrape(async () => {
    view = (await within(ASK_MS, raft.cluster())) ?? view;
  });
  const ofMembers = (pick: (member: MemberView, cluster: ClusterView) => number | null): (() => Sample[]) => {
    return () => {
      const cluster = view;
      if (cluster === null) return [];
      return cluster.members.slice(0, MEMBERS_MAX).flatMap((member) => {
        const value = pick(member, cluster);
        return value === null ? [] : [{ labels: { peer: member.node }, value }];
      });
    };
  };
  const isLeading = ({ node, leader }: ClusterView): boolean => node === leader;
  registry.addSamples(
    'gauge',
    'broker_raft_peer_lag_entries',
    'Entries of the log that a member has not confirmed; shown by the leader.',
    ofMembers(({ match }, cluster) => (isLeading(cluster) ? Math.max(0, cluster.lastIndex - match) : null)),
  );
  registry.addSamples(
    'gauge',
    'broker_raft_peer_active',
    '1 if the leader has heard of the member within the last election timeout; shown by the leader.',
    ofMembers(({ isActive }, cluster) => (isLeading(cluster) ? Number(isActive) : null)),
  );
  registry.addSamples(
    'gauge',
    'broker_raft_peer_clock_offset_seconds',
    'Clock of a member less that of this node.',
    ofMembers(({ clockOffsetMs }) => (clockOffsetMs === null ? null : clockOffsetMs / 1_000)),
  );
  registry.addSamples('gauge', 'broker_raft_members', 'Members of the cluster, as this node knows it.', () => {
    if (view === null) return [];
    const voters = view.members.filter(({ isVoter }) => isVoter).length;
    return [
      { labels: { kind: 'voter' }, value: voters },
      { labels: { kind: 'learner' }, value: view.members.length - voters },
    ];
  });
}
