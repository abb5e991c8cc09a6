/** How the driver is set up: what it repeats by itself, how long it waits, and what its failure to connect means to who configured it. */
import type { ConnectionOptions } from 'node:tls';
import { Client, ExecutionProfile, errors, policies, types } from 'cassandra-driver';
import { isWithoutEffect } from './outcome.ts';

/** For creating tables, transactions, metadata and looks at a whole table: slower than any write, and not repeated. */
export const ADMIN_TIMEOUT_MS = 30_000;
/** Just above what a server takes before it says itself that the replicas did not answer (write_request_timeout). */
const REQUEST_TIMEOUT_MIN_MS = 2_500;
const CONNECT_TIMEOUT_MAX_MS = 5_000;
/** A server that came back is noticed within this time. */
const RECONNECT_MIN_MS = 250;
const RECONNECT_MAX_MS = 2_000;
/** Requests without an answer after which a connection counts as dead: a node that hangs must not be asked for long. */
const DEFUNCT_AFTER = 8;

export interface ConnectOptions {
  /** HOST or HOST:PORT of some nodes. */
  readonly contactPoints: readonly string[];
  readonly datacenter: string;
  readonly credentials: { readonly username: string; readonly password: string } | null;
  readonly tls: ConnectionOptions | null;
  /** Statements that may be on their way on one connection. */
  readonly inFlight: number;
  /** store.timeout in ms. */
  readonly timeoutMs: number;
}

export function createClient(options: ConnectOptions): Client {
  const connectTimeout = Math.min(options.timeoutMs, CONNECT_TIMEOUT_MAX_MS);
  return new Client({
    contactPoints: [...options.contactPoints],
    ...(options.credentials === null ? {} : { credentials: options.credentials }),
    ...(options.tls === null ? {} : { sslOptions: options.tls }),
    queryOptions: { consistency: types.consistencies.localQuorum, isIdempotent: true, captureStackTrace: false },
    // Twice: reads go beside the writes, and a place is free again before its answer has been taken off the connection.
    pooling: {
      coreConnectionsPerHost: { '0': 1, '1': 1, '2': 0 },
      maxRequestsPerConnection: options.inFlight * 2 + 64,
    },
    // Of statements that say nothing else.
    profiles: [new ExecutionProfile('default', { readTimeout: ADMIN_TIMEOUT_MS })],
    socketOptions: {
      // What is left with this are the driver's own requests. Where a connection breaks in its handshake, the driver (4.10) does not notice: it waits
      // so long for the answer, opens no other one meanwhile, and every statement is refused.
      readTimeout: connectTimeout,
      connectTimeout,
      defunctReadTimeoutThreshold: DEFUNCT_AFTER,
    },
    policies: {
      // Named here and not as `localDataCenter`: if there is none of that name, the driver (4.10) leaves a connection open there, and closes it here.
      loadBalancing: new policies.loadBalancing.DefaultLoadBalancingPolicy({ localDc: options.datacenter }),
      reconnection: new policies.reconnection.ExponentialReconnectionPolicy(RECONNECT_MIN_MS, RECONNECT_MAX_MS, false),
      // Rows carry the log's time; the driver's clock orders nothing.
      timestampGeneration: null as never,
    },
  });
}

/** One request gets a part of store.timeout: after a node that does not answer there is time to ask another one. */
export function requestTimeoutMs(timeoutMs: number): number {
  return Math.min(timeoutMs, Math.max(REQUEST_TIMEOUT_MIN_MS, timeoutMs / 4));
}

/**
 * Another node is asked only after a refusal. Of any other end nobody knows whether the write took effect; if a later node refused, the answer
 * to the whole would be that of a write without effect. So it comes back as uncertain, and the caller repeats it.
 */
export class WriteRetryPolicy extends policies.retry.RetryPolicy {
  override onRequestError(
    info: policies.retry.OperationInfo,
    consistency: types.consistencies,
    error: Error,
  ): policies.retry.DecisionInfo {
    return isWithoutEffect(error) ? super.onRequestError(info, consistency, error) : this.rethrowResult();
  }

  override onWriteTimeout(): policies.retry.DecisionInfo {
    return this.rethrowResult();
  }
}

/** One line, beginning with the key of the configuration to look at where the error says which. */
export function whyUnusable(error: unknown): string {
  if (error instanceof errors.ArgumentError) return `cassandra.datacenter: ${firstLine(error)}`;
  if (!(error instanceof errors.NoHostAvailableError)) return firstLine(error);
  const failures = Object.entries(error.innerErrors ?? {});
  if (failures.length === 0) return `cassandra.contact_points: ${firstLine(error)}`;
  const isLogin = failures.some(([, inner]) => isLoginRefused(inner));
  const hosts = failures.map(([host, inner]) => `${host}: ${firstLine(inner)}`);
  return `${isLogin ? 'cassandra.username and cassandra.password: ' : ''}${hosts.join('; ')}`;
}

function isLoginRefused(error: unknown): boolean {
  return (
    error instanceof errors.AuthenticationError ||
    (error instanceof errors.ResponseError && error.code === types.responseErrorCodes.badCredentials)
  );
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0] as string;
}
