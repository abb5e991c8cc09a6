/** A limit for a tenant, or for subjects of a tenant, of all nodes together. */
export interface QuotaRule {
  /** Empty: every tenant that no other rule of the same prefix names, each for itself. */
  readonly tenant: string;
  /** Whole tokens of subjects: `orders` stands for itself and for what begins with `orders.`; `orders.` for the latter alone. Empty: all subjects. */
  readonly prefix: string;
  /** 0 = not limited. */
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
}

/** Which rules are for whom. */
export class QuotaRules {
  readonly list: readonly QuotaRule[];
  readonly #names: ReadonlySet<string>;
  /** By prefix, the longest first, and then by tenant. */
  readonly #byPrefix = new Map<string, Map<string, QuotaRule>>();

  constructor(list: readonly QuotaRule[]) {
    this.list = list;
    this.#names = new Set(list.map(({ tenant }) => tenant));
    for (const rule of [...list].sort((left, right) => right.prefix.length - left.prefix.length)) {
      const rules = this.#byPrefix.get(rule.prefix) ?? new Map<string, QuotaRule>();
      this.#byPrefix.set(rule.prefix, rules.set(rule.tenant, rule));
    }
  }

  /** A rule is for this tenant by name. */
  names(tenant: string): boolean {
    return this.#names.has(tenant);
  }

  /** For all subjects of the tenant; null: there is none. */
  totalOf(tenant: string): QuotaRule | null {
    return ruleIn(this.#byPrefix.get(''), tenant);
  }

  /** For prefixes of the tenant's subjects, the longest first. */
  prefixesOf(tenant: string): readonly QuotaRule[] {
    const found: QuotaRule[] = [];
    for (const [prefix, rules] of this.#byPrefix) {
      const rule = prefix === '' ? null : ruleIn(rules, tenant);
      if (rule !== null) found.push(rule);
    }
    return found;
  }
}

function ruleIn(rules: ReadonlyMap<string, QuotaRule> | undefined, tenant: string): QuotaRule | null {
  return rules?.get(tenant) ?? rules?.get('') ?? null;
}
