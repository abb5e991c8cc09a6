import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { Quotas } from '../front/quotas.ts';
import { type Figure, ShownTenants } from './shown-tenants.ts';

/** Tenants that are shown one by one. */
export const SHOWN_TENANTS = 20;

/** What the busiest tenants publish and how often they were held back; nothing while there is no quota. */
export function addTenants(registry: MetricsRegistry, quotas: Quotas): void {
  const shown = new ShownTenants(quotas.table, SHOWN_TENANTS);
  let rows: ReturnType<ShownTenants['look']> = [];
  const add = (name: string, help: string, figure: Figure): void =>
    registry.addSamples('counter', name, help, () => {
      // One look for all four, which are asked for in this order.
      if (figure === 'messages') rows = quotas.table.isMet ? shown.look() : [];
      return rows.map(({ name: tenant, values }) => ({ labels: { tenant }, value: values[figure] }));
    });
  add('broker_tenant_messages_total', 'Messages published by tenants, while there are quotas.', 'messages');
  add('broker_tenant_bytes_total', 'Bytes of messages that a tenant published, as quotas count them.', 'bytes');
  add(
    'broker_tenant_refused_total',
    'Calls and batches of tenants that were refused for their quotas (QUOTA_EXCEEDED).',
    'refused',
  );
  add(
    'broker_tenant_shrunk_total',
    'Batches of tenants that waited for their quotas, with the windows of their streams shrunk.',
    'shrunk',
  );
}
