import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import { HANDSHAKE_FAILURES } from '../../tls/handshake-failure.ts';
import type { HandshakeWatch } from '../../tls/handshake-watch.ts';
import type { TlsKeeper } from '../../tls/tls-keeper.ts';

/** `keeper`: null where no port speaks TLS; then all of it is 0. `failures`: of the gRPC port, null before it is open. */
export function addTls(
  registry: MetricsRegistry,
  keeper: TlsKeeper | null,
  failures: () => HandshakeWatch['failures'] | null,
): void {
  registry.addGauge(
    'broker_tls_certificate_expires_timestamp_seconds',
    'When the first certificate of tls.cert and tls.ca expires, in seconds since 1970; 0 without TLS.',
    {},
    () => (keeper === null ? 0 : Math.floor(keeper.material.expiresAtMs / 1_000)),
  );
  const reloads = 'Changed files of certificates that were taken (success), or could not be used (failure).';
  registry.addCounter('broker_tls_reload_total', reloads, { result: 'success' }, () => keeper?.reloads.success ?? 0);
  registry.addCounter('broker_tls_reload_total', reloads, { result: 'failure' }, () => keeper?.reloads.failure ?? 0);
  const failed =
    'Connections to the gRPC port that were refused in their TLS handshake, or for their certificate, by why.';
  registry.addSamples('counter', 'broker_tls_handshake_failures_total', failed, () =>
    HANDSHAKE_FAILURES.map((reason) => ({ labels: { reason }, value: failures()?.get(reason) ?? 0 })),
  );
}
