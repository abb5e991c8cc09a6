import type { MetricsRegistry, Sample } from '../../telemetry/metrics.ts';
import { HANDSHAKE_FAILURES } from '../../tls/handshake-failure.ts';
import type { HandshakeWatch } from '../../tls/handshake-watch.ts';
import type { TlsKeeper } from '../../tls/tls-keeper.ts';

/** Certificates that have a series of their own; connections with others are one together. */
const CERTIFICATES_MAX = 100;

/** `keeper`: null where no port speaks TLS; then all of it is 0. `failures` and `certificates`: of the gRPC port, null before it is open. */
export function addTls(
  registry: MetricsRegistry,
  keeper: TlsKeeper | null,
  failures: () => HandshakeWatch['failures'] | null,
  certificates: () => ReadonlyMap<string, number> | null,
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
  const shown =
    'Open connections to the gRPC port with a certificate, by the URI in it that says who it is for, or its subject; `other` are those beyond 100 certificates.';
  registry.addSamples('gauge', 'broker_certificate_connections', shown, () =>
    byCertificate(certificates() ?? new Map()),
  );
}

function byCertificate(connections: ReadonlyMap<string, number>): Sample[] {
  const rows = [...connections].sort(([a, one], [b, other]) => other - one || (a < b ? -1 : 1));
  const own = rows.slice(0, CERTIFICATES_MAX);
  const others = rows.slice(CERTIFICATES_MAX).reduce((sum, [, value]) => sum + value, 0);
  // The last one also where it is 0: the metric is there.
  return [...own, ['other', others] as const].map(([certificate, value]) => ({ labels: { certificate }, value }));
}
