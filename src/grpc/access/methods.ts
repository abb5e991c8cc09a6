import type { Caller } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';

/**
 * What a caller must be for each method, by its path; a path that is not here is answered to nobody. A test holds that every method of proto/ is here.
 *
 * - `open`: nobody has to say who they are: probes.
 * - `known`: anybody that the access file knows.
 * - `subjects`: the same; what it may do with which subject is asked where the subject is known.
 * - `observe`, `admin`: permissions; whoever is in the space of a tenant sees and changes what is in it.
 * - `observe-all`, `admin-all`: the same for what concerns the whole node, or all tenants: not for who is in a space.
 * - `node`: other nodes of the cluster; what nodes pass on for others is theirs, too.
 */
export type Need = 'open' | 'known' | 'subjects' | 'observe' | 'observe-all' | 'admin' | 'admin-all' | 'node';

const of = (need: Need, service: string, ...methods: readonly string[]): [string, Need][] =>
  methods.map((method) => [`/${service}/${method}`, need]);

/** Why somebody is not what a method needs, or null. */
export function unmet(need: Need, caller: Caller): Reason | null {
  switch (need) {
    case 'open':
    case 'known':
    case 'subjects':
      return null;
    case 'observe':
      return caller.observes ? null : 'PERMISSION_DENIED';
    case 'observe-all':
      return unmet('observe', caller) ?? boundness(caller);
    case 'admin':
      return caller.administers ? null : 'PERMISSION_DENIED';
    case 'admin-all':
      return unmet('admin', caller) ?? boundness(caller);
    case 'node':
      return 'PERMISSION_DENIED';
  }
}

/** Of what is not in any space. */
function boundness({ space }: Caller): Reason | null {
  return space.length > 0 ? 'TENANT_BOUND' : null;
}

/** Whether it is something that operators do, which is written down. */
export function isAdministration(path: string): boolean {
  const need = NEEDS.get(path);
  return need === 'admin' || need === 'admin-all';
}

export const NEEDS: ReadonlyMap<string, Need> = new Map([
  ...of('subjects', 'broker.Broker', 'Publish', 'Subscribe', 'Fetch', 'Broadcast', 'IncIdx'),
  ...of('subjects', 'broker.v1.Producer', 'PublishStream'),
  ...of('subjects', 'broker.v1.Consumer', 'Consume'),
  // Of a subject that the caller may fetch, or of any for who observes.
  ...of('subjects', 'broker.v1.Admin', 'SubjectInfo'),
  ...of('observe', 'broker.v1.Admin', 'ListSubjects', 'ListSubscriptions', 'ListConnections', 'TopSubjects'),
  ...of('observe', 'broker.v1.Admin', 'ListTenants'),
  ...of('observe-all', 'broker.v1.Admin', 'Status', 'ListShards', 'AdviseShards', 'ListSettings'),
  ...of('admin', 'broker.v1.Admin', 'TrimSubject', 'Verify'),
  ...of('admin-all', 'broker.v1.Admin', 'ResizeShards', 'MoveSlot', 'ChangeSetting', 'DebugInfo'),
  ...of('observe-all', 'broker.v1.Cluster', 'Members'),
  ...of('admin-all', 'broker.v1.Cluster', 'Add', 'Remove', 'Promote', 'TransferLeader', 'GossipKeys'),
  ...of('node', 'broker.v1.Cluster', 'Join'),
  ...of('node', 'broker.v1.Peer', 'Exchange'),
  ...of('open', 'grpc.health.v1.Health', 'Check', 'Watch', 'List'),
  ...of('known', 'grpc.reflection.v1.ServerReflection', 'ServerReflectionInfo'),
  ...of('known', 'grpc.reflection.v1alpha.ServerReflection', 'ServerReflectionInfo'),
]);

/** Calls that stay open, which have to end when their caller may not have them any more. */
export const STREAMS: ReadonlySet<string> = new Set([
  '/broker.Broker/Subscribe',
  '/broker.v1.Producer/PublishStream',
  '/broker.v1.Consumer/Consume',
  '/broker.v1.Admin/Verify',
  '/broker.v1.Admin/DebugInfo',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
]);
