import type { Server } from '@grpc/grpc-js';
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
import { tolerant, unary } from './operator-calls.ts';

/** What operators ask of a node. Rejections are BrokerErrors, or statuses that a call was answered with; any other is a defect. */
export interface AdminPort {
  status(): Promise<StatusResponse>;
  listSubjects(request: ListSubjectsRequest): Promise<ListSubjectsResponse>;
  subjectInfo(subject: string): Promise<SubjectInfoResponse>;
  trimSubject(subject: string, first: number): Promise<TrimSubjectResponse>;
  listShards(): Promise<ListShardsResponse>;
  /** Resolves when the change has begun. */
  resizeShards(shards: number): Promise<ShardsChange>;
  moveSlot(slot: number, shard: number): Promise<ShardsChange>;
  adviseShards(): Promise<AdviseShardsResponse>;
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
      listSubjects: unary((request: ListSubjectsRequest) => admin.listSubjects(request), onDefect),
      subjectInfo: unary(({ subject }: SubjectInfoRequest) => admin.subjectInfo(subject), onDefect),
      trimSubject: unary(({ subject, first }: TrimSubjectRequest) => admin.trimSubject(subject, first), onDefect),
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
