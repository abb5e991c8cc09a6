import type { BirthRow } from '../../storage/birth.ts';
import type { ClusterMarker } from '../../storage/cluster-marker.ts';
import type { StartErrorCode } from '../../storage/start-error.ts';

/** All that the start of a node on a database depends on. */
export interface StartFacts {
  /** What the data directory says of its membership; null: nothing. */
  readonly marker: ClusterMarker['state'] | null;
  /** The data directory has a Raft log. */
  readonly hasLog: boolean;
  /** Cluster id of the data directory. Of one without log and marker it is only what was made up with it. */
  readonly clusterId: string;
  /** The key `cluster`. */
  readonly clusterName: string;
  readonly nodeId: string;
  readonly instanceId: string;
  readonly bootstrap: boolean;
  /** `join`, `gossip.join` or `discovery` tell, or will, whom to ask. */
  readonly hasSeeds: boolean;
  /** `bootstrap_expect`, which is a source of seeds too: not given; fewer brokers are seen; so many are. */
  readonly expect: 'off' | 'short' | 'met';
  /** The birth row of the database. */
  readonly row: BirthRow | null;
}

export type StartDecision =
  /** It has state: goes on where it was. `isClustered`: with a Raft port. `note`: what the operator should hear of flags without effect. */
  | { readonly kind: 'serve'; readonly isClustered: boolean; readonly note: string }
  /** The birth row is to be its own, or is. */
  | { readonly kind: 'first'; readonly isClustered: boolean }
  /** The leader has taken it in, and its log has nothing yet: it starts with the members that are kept in the marker. */
  | { readonly kind: 'joined' }
  /** Asks to be taken into the cluster of the birth row. */
  | { readonly kind: 'join'; readonly clusterId: string }
  /** There is no cluster yet: look again. `for`: somebody to begin one, or more brokers. */
  | { readonly kind: 'wait'; readonly for: 'birth' | 'brokers' }
  | { readonly kind: 'refuse'; readonly code: StartErrorCode; readonly why: string };

/**
 * What a node does at its start (design section 10). The order of what is made durable is: the marker `joining`, the cluster id, then, after the
 * answer of the leader, the marker `joined` with the members; and `first` before the birth row is claimed. So a node that was killed at any point
 * decides the same way again, and none that has asked to join ever takes itself for the first.
 */
export function decideStart(facts: StartFacts): StartDecision {
  const { marker, hasLog, bootstrap, hasSeeds, expect } = facts;
  if (marker === 'member' && !hasLog) {
    const self = `${facts.nodeId}/${facts.instanceId}`;
    return refuse(
      'RAFT_LOG_LOST',
      `this data directory was that of a member (${self}) and has no Raft log any more: with it went what the node has voted for, so it must not come back as itself. Take it out with \`broker cluster remove ${self}\`, and start on a new data directory with --join`,
    );
  }
  if (marker === 'joined') return { kind: 'joined' };
  if (marker === 'joining') return goOnJoining(facts);
  if (hasLog) {
    const isClustered = marker !== null || bootstrap || hasSeeds || expect !== 'off';
    const flags = [
      ...(bootstrap ? ['--bootstrap'] : []),
      ...(expect === 'off' ? [] : ['--bootstrap-expect']),
      ...(hasSeeds ? ['what names others to join'] : []),
    ].join(' and ');
    const note = flags === '' ? '' : `the data directory has state already: ${flags} begins and joins nothing`;
    return { kind: 'serve', isClustered, note };
  }
  return decideWithoutState(facts);
}

function goOnJoining({ hasSeeds, expect, row, clusterName }: StartFacts): StartDecision {
  if (!hasSeeds && expect === 'off') {
    return refuse(
      'JOIN_REFUSED',
      'the node was about to join a cluster when it was stopped: name a member with --join HOST:PORT, or let it find one with --gossip-join or --discovery',
    );
  }
  return row === null ? { kind: 'wait', for: 'birth' } : joinOf(row, clusterName);
}

function decideWithoutState(facts: StartFacts): StartDecision {
  const { row, clusterId, clusterName, marker, bootstrap, expect } = facts;
  const hasSeeds = facts.hasSeeds || expect !== 'off';
  const isClustered = marker === 'first' || bootstrap || hasSeeds;
  if (row === null) {
    // Whoever has tried before tries again, however many it sees now: others may wait for its row.
    const begins = bootstrap || marker === 'first' || expect === 'met' || !hasSeeds;
    if (begins) return { kind: 'first', isClustered };
    return { kind: 'wait', for: expect === 'short' ? 'brokers' : 'birth' };
  }
  // It has claimed the row, and was stopped before it had a log.
  if (row.clusterId === clusterId) return { kind: 'first', isClustered };
  if (hasSeeds) return joinOf(row, clusterName);
  const flag = bootstrap ? '--bootstrap begins nothing: ' : '';
  return refuse(
    'CLUSTER_EXISTS',
    `${flag}the database belongs to cluster ${row.clusterId} ("${row.name}"), and this node has no state of it. To join it name a member with --join HOST:PORT, or let the node find one with --gossip-join or --discovery; if the logs of all its nodes are lost, \`broker cluster recover\` makes a new one for the messages that are there; for a cluster of its own name another schema or keyspace`,
  );
}

function joinOf(row: BirthRow, clusterName: string): StartDecision {
  if (row.name !== clusterName) {
    return refuse(
      'JOIN_REFUSED',
      `the database belongs to cluster "${row.name}", and the configuration says "${clusterName}" (--cluster): correct the one that is wrong`,
    );
  }
  return { kind: 'join', clusterId: row.clusterId };
}

function refuse(code: StartErrorCode, why: string): StartDecision {
  return { kind: 'refuse', code, why };
}
