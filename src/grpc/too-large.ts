import { type ServerInterceptor, type StatusObject, status } from '@grpc/grpc-js';
import type { Reason } from '../base/errors.ts';
import { makeStatus } from './status.ts';

interface Call {
  sendStatus(status: Partial<StatusObject>): void;
}

/**
 * grpc-js itself answers a message that is, or decompresses to, more than the limit: RESOURCE_EXHAUSTED without details, past every
 * interceptor. The call's own `sendStatus` is therefore covered by this one, which adds the reason, so that a client can tell this
 * refusal, which no waiting mends, from "slow down". The same with UNIMPLEMENTED, for another number of messages than the method has and for unknown
 * encodings. A status of ours always has metadata, and is passed on as it is.
 */
export const explainTooLarge = ((_method: unknown, call: Call): Call => {
  call.sendStatus = sendExplained;
  return call;
}) as unknown as ServerInterceptor;

const REASON_OF: Readonly<Record<number, Reason>> = {
  [status.RESOURCE_EXHAUSTED]: 'MESSAGE_TOO_LARGE',
  [status.UNIMPLEMENTED]: 'REQUEST_UNSUPPORTED',
};

function sendExplained(this: Call, plain: Partial<StatusObject>): void {
  const { sendStatus } = Object.getPrototypeOf(this) as Call;
  sendStatus.call(this, explained(plain));
}

/** What is answered in the end. */
export function explained(plain: Partial<StatusObject>): Partial<StatusObject> {
  const reason = (plain.metadata ?? null) === null ? REASON_OF[plain.code ?? status.OK] : undefined;
  return reason === undefined ? plain : makeStatus(reason, plain.details ?? '');
}
