import type { Server } from '@grpc/grpc-js';
import { type Caller, type CallOrigin, Verb } from '../access/caller.ts';
import { BrokerError } from '../base/errors.ts';
import { subjectFault } from '../base/subject.ts';
import {
  AdminService,
  type AdviseShardsResponse,
  type ListShardsResponse,
  type ListSubjectsRequest,
  type ListSubjectsResponse,
  type MoveSlotRequest,
  type ResizeShardsRequest,
  type ShardsChange,
  type StatusResponse,
  type SubjectInfoRequest,
  type SubjectInfoResponse,
  type TrimSubjectRequest,
  type TrimSubjectResponse,
} from './gen/broker/v1/admin.ts';
import type {
  ListConnectionsRequest,
  ListConnectionsResponse,
  ListSubscriptionsRequest,
  ListSubscriptionsResponse,
  TopSubjectsRequest,
  TopSubjectsResponse,
} from './gen/broker/v1/inspect.ts';
import { tolerant, unary } from './operator-calls.ts';
import { makeStatus } from './status.ts';

/** What operators ask of a node. `space`: the caller's; whoever has one sees what is in it. Rejections are BrokerErrors, or statuses that a call was answered with; any other is a defect. */
export interface AdminPort {
  status(): Promise<StatusResponse>;
  listSubjects(request: ListSubjectsRequest, space: Uint8Array): Promise<ListSubjectsResponse>;
  subjectInfo(request: SubjectInfoRequest, space: Uint8Array): Promise<SubjectInfoResponse>;
  trimSubject(request: TrimSubjectRequest, space: Uint8Array): Promise<TrimSubjectResponse>;
  listShards(): Promise<ListShardsResponse>;
  /** Resolves when the change has begun. */
  resizeShards(shards: number): Promise<ShardsChange>;
  moveSlot(slot: number, shard: number): Promise<ShardsChange>;
  adviseShards(): Promise<AdviseShardsResponse>;
}

/** What runs on a node just now. `space`: as above. Rejections are BrokerErrors; any other is a defect. */
export interface InspectPort {
  listSubscriptions(request: ListSubscriptionsRequest, space: Uint8Array): Promise<ListSubscriptionsResponse>;
  listConnections(request: ListConnectionsRequest, space: Uint8Array): Promise<ListConnectionsResponse>;
  topSubjects(request: TopSubjectsRequest, space: Uint8Array): Promise<TopSubjectsResponse>;
}

/** `onDefect` is told of every rejection that is not an operating error; its caller gets INTERNAL_ERROR. */
export function addAdmin(server: Server, admin: AdminPort, onDefect: (error: unknown) => void): void {
  const { status, listSubjects, subjectInfo, trimSubject, listShards, resizeShards, moveSlot, adviseShards } =
    AdminService;
  server.addService(
    {
      status: tolerant(status),
      listSubjects: tolerant(listSubjects),
      subjectInfo: tolerant(subjectInfo),
      trimSubject: tolerant(trimSubject),
      listShards: tolerant(listShards),
      resizeShards: tolerant(resizeShards),
      moveSlot: tolerant(moveSlot),
      adviseShards: tolerant(adviseShards),
    },
    {
      status: unary(() => admin.status(), onDefect),
      listSubjects: unary((request: ListSubjectsRequest, _, { space }) => admin.listSubjects(request, space), onDefect),
      subjectInfo: unary(async (request: SubjectInfoRequest, { from = null }, caller) => {
        checkMayKnow(caller, request, from);
        return await admin.subjectInfo(request, caller.space);
      }, onDefect),
      trimSubject: unary((request: TrimSubjectRequest, _, { space }) => admin.trimSubject(request, space), onDefect),
      listShards: unary(() => admin.listShards(), onDefect),
      resizeShards: unary(
        async ({ shards }: ResizeShardsRequest) => ({ change: await admin.resizeShards(shards) }),
        onDefect,
      ),
      moveSlot: unary(
        async ({ slot, shard }: MoveSlotRequest) => ({ change: await admin.moveSlot(slot, shard) }),
        onDefect,
      ),
      adviseShards: unary(() => admin.adviseShards(), onDefect),
    },
  );
}

/** The same. */
export function addInspection(server: Server, inspect: InspectPort, onDefect: (error: unknown) => void): void {
  const { listSubscriptions, listConnections, topSubjects } = AdminService;
  server.addService(
    {
      listSubscriptions: tolerant(listSubscriptions),
      listConnections: tolerant(listConnections),
      topSubjects: tolerant(topSubjects),
    },
    {
      listSubscriptions: unary(
        (request: ListSubscriptionsRequest, _, { space }) => inspect.listSubscriptions(request, space),
        onDefect,
      ),
      listConnections: unary(
        (request: ListConnectionsRequest, _, { space }) => inspect.listConnections(request, space),
        onDefect,
      ),
      topSubjects: unary((request: TopSubjectsRequest, _, { space }) => inspect.topSubjects(request, space), onDefect),
    },
  );
}

/** Whether there is such a subject is told to who observes, or may read it. BrokerError to others. */
function checkMayKnow(caller: Caller, { subject, tenant }: SubjectInfoRequest, from: CallOrigin | null): void {
  if (caller.observes) return;
  if (tenant !== '' && tenant !== caller.tenant)
    throw new BrokerError('PERMISSION_DENIED', 'it names the tenant of others');
  const bytes = Buffer.from(subject);
  if (caller.may(Verb.SUBSCRIBE, bytes, 0, bytes.length)) return;
  const fault = subjectFault(bytes, 0, bytes.length);
  if (fault !== null) throw new BrokerError(fault);
  const refusal = caller.demand(Verb.FETCH, bytes, 0, bytes.length, from);
  // As a status: it is written down already.
  if (refusal !== null) throw makeStatus(refusal, '');
}
