import { QUERY_RESPONSE_BYTES_MAX } from './limits.ts';
import type { KeyResponse } from './messages.ts';
import type { KeyOperation, SerfPort } from './types.ts';

export const INTERNAL_PREFIX = '_serf_';
/** hashicorp/serf serf/internal_query.go */
export type InternalQuery = 'ping' | 'conflict' | 'list-keys' | KeyOperation;

export function internalName(query: InternalQuery): string {
  return `${INTERNAL_PREFIX}${query}`;
}

const NO_KEYRING = 'gossip is not encrypted on this node: it has no keyring';

/** Carries out a query about keys; `answer` gets what this node says, in this turn or a later one. */
export function answerKeyQuery(
  port: SerfPort,
  query: KeyOperation | 'list-keys',
  payload: Uint8Array,
  answer: (response: KeyResponse, now: number | null) => void,
): void {
  const { keyring } = port;
  const request = port.decode(payload);
  if (keyring === null) {
    answer(failed(NO_KEYRING), null);
  } else if (query === 'list-keys') {
    answer({ ...failed(''), isDone: true, ...keyring.list() }, null);
  } else if (request?.kind !== 'keyRequest') {
    answer(failed('the key request could not be read'), null);
  } else {
    keyring.change(query, request.key, (failure, now) => {
      answer({ ...failed(failure ?? ''), isDone: failure === null }, now);
    });
  }
}

function failed(message: string): KeyResponse {
  return { kind: 'keyResponse', isDone: false, message, keys: [], primaryKey: '' };
}

/** The first that fits of the response with all its keys, and with ever fewer (internal_query.go keyListResponseWithCorrectSize). */
export function fittingKeyResponse(response: KeyResponse, sizeOf: (response: KeyResponse) => number): KeyResponse {
  const total = response.keys.length;
  let fitting = response;
  for (let count = total - 1; count >= 0 && sizeOf(fitting) > QUERY_RESPONSE_BYTES_MAX; count--) {
    const message = `only the first ${count} of ${total} keys fit`;
    fitting = { ...response, keys: response.keys.slice(0, count), message };
  }
  return fitting;
}
