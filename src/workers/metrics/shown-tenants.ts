import type { Tenant } from '../../quota/tenant.ts';
import type { TenantTable } from '../../quota/tenant-table.ts';

/** Figures of a tenant, in the order of `FIGURES`. */
export const FIGURES = ['messages', 'bytes', 'refused', 'shrunk'] as const;
export type Figure = (typeof FIGURES)[number];

export interface ShownTenant {
  readonly name: string;
  readonly values: Readonly<Record<Figure, number>>;
}

/** A tenant takes the place of one that is shown when it has published so many times as much since the last look. */
const BUSIER = 2;

const NOTHING: Readonly<Record<Figure, number>> = { messages: 0, bytes: 0, refused: 0, shrunk: 0 };

interface Place {
  readonly tenant: Tenant;
  /** What it had when it got the place: that counts for the others, for ever, so that no counter falls. */
  readonly before: Readonly<Record<Figure, number>>;
  /** Its messages at the last look. */
  seen: number;
  /** What was shown of it then. */
  shown: Readonly<Record<Figure, number>>;
}

/**
 * Which tenants are shown one by one, and their counters; all others together are `other`. A tenant keeps its place, so that its counters go
 * on; it loses it to one that is much busier, or when the broker has forgotten it.
 */
export class ShownTenants {
  readonly #table: TenantTable;
  readonly #max: number;
  readonly #places = new Map<string, Place>();
  /** Messages of all tenants at the last look. */
  readonly #seen = new WeakMap<Tenant, number>();
  /** Of those that have lost their places. */
  readonly #gone: Record<Figure, number> = { messages: 0, bytes: 0, refused: 0, shrunk: 0 };

  constructor(table: TenantTable, max: number) {
    this.#table = table;
    this.#max = max;
  }

  /** Once for each scrape. The last one is `other`. */
  look(): ShownTenant[] {
    const tenants = [...this.#table.all()];
    const named = tenants.filter((tenant) => tenant !== this.#table.other);
    for (const [name, place] of this.#places) if (!named.includes(place.tenant)) this.#take(name, place);
    this.#fill(named);
    const others: Record<Figure, number> = { messages: 0, bytes: 0, refused: 0, shrunk: 0 };
    for (const { usage } of tenants) for (const figure of FIGURES) others[figure] += usage[figure];
    const shown: ShownTenant[] = [];
    for (const [name, place] of this.#places) {
      const values = since(place);
      place.shown = values;
      for (const figure of FIGURES) others[figure] -= values[figure];
      shown.push({ name, values });
    }
    for (const figure of FIGURES) others[figure] -= this.#gone[figure];
    return [...shown, { name: this.#table.other.name, values: others }];
  }

  #fill(named: readonly Tenant[]): void {
    const waiting = named
      .filter(({ name }) => !this.#places.has(name))
      .map((tenant) => ({ tenant, news: tenant.usage.messages - (this.#seen.get(tenant) ?? 0) }))
      .filter(({ news, tenant }) => news > 0 || tenant.rule?.tenant === tenant.name)
      .sort((left, right) => right.news - left.news);
    for (const { tenant, news } of waiting) {
      if (this.#places.size >= this.#max) {
        const [quietest] = [...this.#places].sort(([, left], [, right]) => newsOf(left) - newsOf(right));
        if (quietest === undefined || news <= newsOf(quietest[1]) * BUSIER) break;
        this.#take(...quietest);
      }
      // Its first messages are its own: only what `other` has shown already stays there.
      const before = this.#seen.has(tenant) ? { ...tenant.usage } : NOTHING;
      this.#places.set(tenant.name, { tenant, before, seen: this.#seen.get(tenant) ?? 0, shown: NOTHING });
    }
    for (const tenant of named) this.#seen.set(tenant, tenant.usage.messages);
    for (const place of this.#places.values()) place.seen = place.tenant.usage.messages;
  }

  /** What it has done since the last look was shown nowhere yet: that counts for the others. */
  #take(name: string, place: Place): void {
    for (const figure of FIGURES) this.#gone[figure] += place.shown[figure];
    this.#places.delete(name);
  }
}

function newsOf({ tenant, seen }: Place): number {
  return tenant.usage.messages - seen;
}

function since({ tenant, before }: Place): Record<Figure, number> {
  const { usage } = tenant;
  return {
    messages: usage.messages - before.messages,
    bytes: usage.bytes - before.bytes,
    refused: usage.refused - before.refused,
    shrunk: usage.shrunk - before.shrunk,
  };
}
