import type { Caller } from '../../access/caller.ts';

/**
 * What a caller must be for each method, by its path; a path that is not here is answered to nobody. A test holds that every method of proto/ is here.
 *
 * - `open`: nobody has to say who they are: probes.
 * - `known`: anybody that the access file knows.
 * - `subjects`: the same; what it may do with which subject is asked where the subject is known.
 * - `observe`, `admin`: permissions.
 * - `node`: other nodes of the cluster; what nodes pass on for others is theirs, too.
 */
export type Need = 'open' | 'known' | 'subjects' | 'observe' | 'admin' | 'node';

const of = (need: Need, service: string, ...methods: readonly string[]): [string, Need][] =>
  methods.map((method) => [`/${service}/${method}`, need]);

/** Whether somebody is what a method needs. */
export function isMet(need: Need, caller: Caller): boolean {
  switch (need) {
    case 'open':
    case 'known':
    case 'subjects':
      return true;
    case 'observe':
      return caller.observes;
    case 'admin':
      return caller.administers;
    case 'node':
      return false;
  }
}

export const NEEDS: ReadonlyMap<string, Need> = new Map([
  ...of('subjects', 'broker.Broker', 'Publish', 'Subscribe', 'Fetch', 'Broadcast', 'IncIdx'),
  ...of('subjects', 'broker.v1.Producer', 'PublishStream'),
  ...of('subjects', 'broker.v1.Consumer', 'Consume'),
  // Of a subject that the caller may fetch, or of any for who observes.
  ...of('subjects', 'broker.v1.Admin', 'SubjectInfo'),
  ...of('observe', 'broker.v1.Admin', 'Status', 'ListSubjects', 'ListShards', 'AdviseShards', 'ListSubscriptions'),
  ...of('observe', 'broker.v1.Admin', 'ListConnections', 'TopSubjects', 'ListTenants', 'ListSettings'),
  ...of('admin', 'broker.v1.Admin', 'TrimSubject', 'ResizeShards', 'MoveSlot', 'ChangeSetting', 'Verify', 'DebugInfo'),
  ...of('observe', 'broker.v1.Cluster', 'Members'),
  ...of('admin', 'broker.v1.Cluster', 'Add', 'Remove', 'Promote', 'TransferLeader', 'GossipKeys'),
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
