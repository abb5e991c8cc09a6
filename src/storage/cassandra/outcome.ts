/** What an error of the driver says about a write: it had no effect, or that is not known. */
import { errors, types } from 'cassandra-driver';
import { BrokerError } from '../../base/errors.ts';
import { StoreUncertain } from '../store.ts';

/** Answers that a coordinator gives before it has sent the write to anybody. */
const REFUSALS: ReadonlySet<number> = new Set([
  types.responseErrorCodes.unavailableException,
  types.responseErrorCodes.isBootstrapping,
  types.responseErrorCodes.badCredentials,
  types.responseErrorCodes.syntaxError,
  types.responseErrorCodes.unauthorized,
  types.responseErrorCodes.invalid,
  types.responseErrorCodes.configError,
]);

export function isWithoutEffect(error: unknown): boolean {
  if (error instanceof errors.ResponseError) return REFUSALS.has(error.code);
  if (error instanceof errors.BusyConnectionError) return true;
  if (error instanceof errors.NoHostAvailableError) {
    return Object.values(error.innerErrors ?? {}).every((inner) => isNotSent(inner));
  }
  return false;
}

/**
 * A host that was not asked, because it is known to be down (a text) or has no connection, or that answered with a refusal. What did go out and failed
 * carries the name of its `coordinator`.
 */
function isNotSent(error: unknown): boolean {
  if (typeof error === 'string') return true;
  if (!(error instanceof Error)) return false;
  const { requestNotWritten } = error as { readonly requestNotWritten?: unknown };
  return requestNotWritten === true || !('coordinator' in error) || isWithoutEffect(error);
}

export function meaningOf(error: unknown): Error {
  if (!isWithoutEffect(error))
    return new StoreUncertain('Cassandra did not say whether the write took effect', { cause: error });
  return new BrokerError('STORE_UNAVAILABLE', 'Cassandra did not take the write', { cause: error });
}
