/** How the services for operators take requests: decoded, and answered by a promise. */
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../access/caller.ts';
import { BrokerError, type Reason } from '../base/errors.ts';
import { callerOf, lapseOf, originOf, tellRefusal } from './callers.ts';
import { FORWARDED, nodeOfCall } from './node-callers.ts';
import { type ErrorStatus, makeStatus, statusOf } from './status.ts';

/** Stands for a request that cannot be decoded. */
export const MALFORMED = Symbol('malformed');

interface Deserializing<Request> {
  requestDeserialize(bytes: Buffer): Request;
}

/** grpc-js would answer INTERNAL to bytes that cannot be decoded, although the fault is the caller's: they arrive as MALFORMED instead. */
export function tolerant<Request, Definition extends Deserializing<Request>>(
  definition: Definition & Deserializing<Request>,
) {
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

/**
 * `isForwarded`: another node has passed it on already. `deadlineMs`: epoch ms, Infinity = none. `certified`: the node that calls, by its certificate; null: it
 * showed none, or is not asked for it as everybody may call. `authorization`: what the caller showed, to be shown again where the call is passed on.
 */
export interface CallContext {
  readonly authorization?: string | null;
  readonly certified?: string | null;
  /** Absent: it does not come from a client. */
  readonly from?: CallOrigin | null;
  readonly isForwarded: boolean;
  readonly deadlineMs: number;
}

export function unary<Request, Response>(
  answer: (request: Request, context: CallContext, caller: Caller) => Promise<Response>,
  onDefect: (error: unknown) => void,
) {
  return (call: ServerUnaryCall<Request | typeof MALFORMED, Response>, callback: sendUnaryData<Response>): void => {
    if (call.request === MALFORMED) {
      callback(makeStatus('MALFORMED_MESSAGE', ''));
      return;
    }
    const lapse = lapseOf(call);
    if (lapse !== null) {
      callback(makeStatus(lapse, ''));
      return;
    }
    const deadline = call.getDeadline();
    const context: CallContext = {
      authorization: call.metadata.get('authorization')[0]?.toString() ?? null,
      certified: nodeOfCall(call),
      from: originOf(call),
      isForwarded: call.metadata.get(FORWARDED).length > 0,
      deadlineMs: typeof deadline === 'number' ? deadline : deadline.getTime(),
    };
    answer(call.request, context, callerOf(call)).then(
      (response) => callback(null, response),
      (error: unknown) => {
        tellIfOfOthers(call, error);
        callback(asStatus(error, onDefect));
      },
    );
  };
}

/** Why a caller who may make the call is refused for what it names. */
const OF_OTHERS: ReadonlySet<Reason> = new Set(['PERMISSION_DENIED', 'TENANT_INVALID']);

/** A refusal for what a call names is one for who asks, too. */
export function tellIfOfOthers(call: object, error: unknown): void {
  if (error instanceof BrokerError && OF_OTHERS.has(error.reason)) tellRefusal(call, error.reason);
}

export function asStatus(error: unknown, onDefect: (error: unknown) => void): ErrorStatus {
  if (error instanceof BrokerError) return statusOf(error);
  const isStatus = typeof error === 'object' && error !== null && 'code' in error && 'metadata' in error;
  if (isStatus) return error as ErrorStatus;
  onDefect(error);
  return makeStatus('INTERNAL_ERROR', '');
}
