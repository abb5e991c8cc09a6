/** Whose call it is, as the client or the ingress says in the metadata of the call. */

import { isTenant, TENANT_DEFAULT } from '../base/subject-space.ts';

/** Metadata key that names the tenant of a call. */
export const TENANT_KEY = 'x-tenant';
/**
 * The tenant of a call by the header as HTTP/2 gives it, null if it is no valid name: several headers of one name come joined with ", ", which no
 * valid name has.
 */
export function tenantOfHeader(value: unknown): string | null {
  if (value === undefined) return TENANT_DEFAULT;
  return typeof value === 'string' && isTenant(value) ? value : null;
}
