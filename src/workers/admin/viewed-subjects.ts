/** What a call of a service for operators may see: a caller without a space everything, any other what is in its own. */
import { BrokerError } from '../../base/errors.ts';
import { SUBJECT_BYTES_MAX, subjectFault } from '../../base/subject.ts';
import { inSpace, isTenant, NO_SPACE, nameOf, type SubjectScope, spaceOf } from '../../base/subject-space.ts';

/** The space that is meant, null: all. `space`: the caller's; `tenant`: that it names, or ''. Throws PERMISSION_DENIED and TENANT_INVALID. */
function spaceMeant(space: Uint8Array, tenant: string): Uint8Array | null {
  if (space.length > 0) {
    if (tenant !== '' && tenant !== tenantOf(space)) {
      throw new BrokerError('PERMISSION_DENIED', 'it names the tenant of others');
    }
    return space;
  }
  if (tenant === '') return null;
  if (!isTenant(tenant)) throw new BrokerError('TENANT_INVALID');
  return spaceOf(tenant);
}

/** The tenant of a space. */
export function tenantOf(space: Uint8Array): string {
  return nameOf(space).tenant;
}

/** Subjects that begin with `prefix`. Throws like `spaceMeant`. */
export function scopeOf(space: Uint8Array, tenant: string, prefix: string): SubjectScope {
  return { space: spaceMeant(space, tenant), prefix: Buffer.from(prefix) };
}

/** One subject, as it is called inside the broker. Throws the rule that it breaks, and like `spaceMeant`. */
export function subjectMeant(space: Uint8Array, tenant: string, subject: string): Buffer {
  const name = Buffer.from(subject);
  const meant = spaceMeant(space, tenant) ?? NO_SPACE;
  const isTooLong = meant.length + name.length > SUBJECT_BYTES_MAX;
  const fault = isTooLong ? 'SUBJECT_TOO_LONG' : subjectFault(name, 0, name.length);
  if (fault !== null) throw new BrokerError(fault);
  return inSpace(meant, name);
}

/** Rows that name subjects, as far as the caller may see them. */
export function seenRows<Row extends { readonly tenant: string }>(rows: readonly Row[], space: Uint8Array): Row[] {
  if (space.length === 0) return [...rows];
  const tenant = tenantOf(space);
  return rows.filter((row) => row.tenant === tenant);
}
