import type { Server } from '@grpc/grpc-js';
import { AdminService } from './gen/broker/v1/admin.ts';
import type { ListTenantsRequest, ListTenantsResponse } from './gen/broker/v1/inspect.ts';
import { tolerant, unary } from './operator-calls.ts';

/** Tenants of a node and their quotas. */
export interface TenantsPort {
  /** At most `limit`, those with most messages first; for a caller of a space, its own tenant alone. */
  listTenants(limit: number, space: Uint8Array): ListTenantsResponse;
}

const LIMIT_DEFAULT = 100;
const LIMIT_MAX = 1_000;

/** Its call belongs to the service Admin. */
export function addTenants(server: Server, tenants: TenantsPort, onDefect: (error: unknown) => void): void {
  const { listTenants } = AdminService;
  server.addService(
    { listTenants: tolerant(listTenants) },
    {
      listTenants: unary(async ({ limit }: ListTenantsRequest, _, { space }) => {
        return tenants.listTenants(limit === 0 ? LIMIT_DEFAULT : Math.min(LIMIT_MAX, limit), space);
      }, onDefect),
    },
  );
}
