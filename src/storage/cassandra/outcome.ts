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

/** A host that was not asked, refused the connection, or answered with a refusal. */
function isNotSent(error: unknown): boolean {
  const { code, requestNotWritten } = (error ?? {}) as {
    readonly code?: unknown;
    readonly requestNotWritten?: unknown;
  };
  return requestNotWritten === true || code === 'ECONNREFUSED' || isWithoutEffect(error);
}

export function meaningOf(error: unknown): Error {
  if (!isWithoutEffect(error))
    return new StoreUncertain('Cassandra did not say whether the write took effect', { cause: error });
  return new BrokerError('STORE_UNAVAILABLE', 'Cassandra did not take the write', { cause: error });
}
