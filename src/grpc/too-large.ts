import { type ServerInterceptor, type StatusObject, status } from '@grpc/grpc-js';
import { makeStatus } from './status.ts';

interface Call {
  sendStatus(status: Partial<StatusObject>): void;
}

/**
 * grpc-js itself answers a message that is, or decompresses to, more than the limit: RESOURCE_EXHAUSTED without details, past every
 * interceptor. The call's own `sendStatus` is therefore covered by this one, which adds the reason, so that a client can tell this
 * refusal, which no waiting mends, from "slow down". A status of ours always has metadata, and is passed on as it is.
 */
export const explainTooLarge = ((_method: unknown, call: Call): Call => {
  call.sendStatus = sendExplained;
  return call;
}) as unknown as ServerInterceptor;

function sendExplained(this: Call, plain: Partial<StatusObject>): void {
  const isUnexplained = plain.code === status.RESOURCE_EXHAUSTED && (plain.metadata ?? null) === null;
  const { sendStatus } = Object.getPrototypeOf(this) as Call;
  sendStatus.call(this, isUnexplained ? makeStatus('MESSAGE_TOO_LARGE', plain.details ?? '') : plain);
}
