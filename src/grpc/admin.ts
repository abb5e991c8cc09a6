import type { Server, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { BrokerError } from '../base/errors.ts';
import {
  AdminService,
  type ListSubjectsRequest,
  type ListSubjectsResponse,
  type StatusResponse,
  type SubjectInfoResponse,
  type TrimSubjectResponse,
} from './gen/broker/v1/admin.ts';
import { type ErrorStatus, makeStatus } from './status.ts';

/** What operators ask of a node. Rejections are BrokerErrors, or statuses that a call was answered with. */
export interface AdminPort {
  status(): Promise<StatusResponse>;
  listSubjects(request: ListSubjectsRequest): Promise<ListSubjectsResponse>;
  subjectInfo(subject: string): Promise<SubjectInfoResponse>;
  trimSubject(subject: string, first: number): Promise<TrimSubjectResponse>;
}

export function addAdmin(server: Server, admin: AdminPort): void {
  server.addService(AdminService, {
    status: unary(() => admin.status()),
    listSubjects: unary((request: ListSubjectsRequest) => admin.listSubjects(request)),
    subjectInfo: unary(({ subject }: { subject: string }) => admin.subjectInfo(subject)),
    trimSubject: unary(({ subject, first }: { subject: string; first: number }) => admin.trimSubject(subject, first)),
  });
}

function unary<Request, Response>(answer: (request: Request) => Promise<Response>) {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    answer(call.request).then(
      (response) => callback(null, response),
      (error: unknown) => callback(asStatus(error)),
    );
  };
}

function asStatus(error: unknown): ErrorStatus {
  if (error instanceof BrokerError) return makeStatus(error.reason, '');
  const isStatus = typeof error === 'object' && error !== null && 'code' in error && 'metadata' in error;
  return isStatus ? (error as ErrorStatus) : makeStatus('INTERNAL_ERROR', '');
}
