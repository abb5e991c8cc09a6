import type { ListTenantsResponse, Quota, TenantUsage } from '../../grpc/gen/broker/v1/inspect.ts';
import type { TenantsPort } from '../../grpc/tenants.ts';
import type { QuotaRule } from '../../quota/quota-rules.ts';
import type { Tenant, Usage } from '../../quota/tenant.ts';
import type { TenantTable } from '../../quota/tenant-table.ts';
import type { Quotas } from '../front/quotas.ts';
import { seenRows } from './viewed-subjects.ts';

/** What operators are told of tenants. */
export class TenantsService implements TenantsPort {
  readonly #quotas: Quotas;

  constructor(quotas: Quotas) {
    this.#quotas = quotas;
  }

  listTenants(limit: number, space: Uint8Array): ListTenantsResponse {
    const { table } = this.#quotas;
    const all = [...table.all()]
      .filter((tenant) => tenant !== table.other || tenant.seenAt > 0)
      .flatMap((tenant) => rowsOf(tenant, table))
      .sort((left, right) => right.messages - left.messages);
    const tenants = seenRows(all, space).slice(0, limit);
    return { tenants, quotas: seenRows(table.rules.map(toQuota), space), nodes: table.nodes };
  }
}

/** One row for all subjects, and one for each prefix with a quota that was used. */
function rowsOf({ name, rule, usage, prefixes }: Tenant, { nodes }: TenantTable): TenantUsage[] {
  const used = prefixes.filter((quota) => quota.usage.messages > 0 || quota.usage.refused > 0);
  return [
    toRow(name, '', rule, usage, nodes),
    ...used.map((quota) => toRow(name, quota.prefix, quota.rule, quota.usage, nodes)),
  ];
}

function toRow(
  tenant: string,
  subjectPrefix: string,
  rule: QuotaRule | null,
  usage: Usage,
  nodes: number,
): TenantUsage {
  const { messages, bytes, refused, shrunk, messagesPerSecond, bytesPerSecond } = usage;
  return {
    tenant,
    subjectPrefix,
    messagesPerSecondMax: (rule?.messagesPerSecond ?? 0) / nodes,
    bytesPerSecondMax: (rule?.bytesPerSecond ?? 0) / nodes,
    messagesPerSecond,
    bytesPerSecond,
    messages,
    bytes,
    refused,
    shrunk,
  };
}

function toQuota({ tenant, prefix, messagesPerSecond, bytesPerSecond }: QuotaRule): Quota {
  return { tenant, subjectPrefix: prefix, messagesPerSecond, bytesPerSecond };
}
