import type { Server, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { BrokerError } from '../base/errors.ts';
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
import { type ErrorStatus, makeStatus, statusOf } from './status.ts';

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

/** Stands for a request that cannot be decoded. */
const MALFORMED = Symbol('malformed');

interface Deserializing<Request> {
  requestDeserialize(bytes: Buffer): Request;
}

/** grpc-js would answer INTERNAL to bytes that cannot be decoded, although the fault is the caller's: they arrive as MALFORMED instead. */
function tolerant<Request, Definition extends Deserializing<Request>>(definition: Definition & Deserializing<Request>) {
  const requestDeserialize = (bytes: Buffer): Request | typeof MALFORMED => {
    try {
      return definition.requestDeserialize(bytes);
    } catch {
      // Cut off, a number beyond 2^53-1, nested too deep: whatever it is, there is no request.
      return MALFORMED;
    }
  };
  return { ...definition, requestDeserialize };
}

function unary<Request, Response>(answer: (request: Request) => Promise<Response>, onDefect: (error: unknown) => void) {
  return (call: ServerUnaryCall<Request | typeof MALFORMED, Response>, callback: sendUnaryData<Response>): void => {
    if (call.request === MALFORMED) {
      callback(makeStatus('MALFORMED_MESSAGE', ''));
      return;
    }
    answer(call.request).then(
      (response) => callback(null, response),
      (error: unknown) => callback(asStatus(error, onDefect)),
    );
  };
}

function asStatus(error: unknown, onDefect: (error: unknown) => void): ErrorStatus {
  if (error instanceof BrokerError) return statusOf(error);
  const isStatus = typeof error === 'object' && error !== null && 'code' in error && 'metadata' in error;
  if (isStatus) return error as ErrorStatus;
  onDefect(error);
  return makeStatus('INTERNAL_ERROR', '');
}
