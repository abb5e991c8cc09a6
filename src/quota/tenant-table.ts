import type { Limiter } from './limiter.ts';
import { type QuotaRule, QuotaRules } from './quota-rules.ts';
import { PrefixQuota, Tenant } from './tenant.ts';

/** What tenants beyond the most that are known one by one share: they are one tenant of this name. */
export const OTHER = 'other';
/** A tenant that has not been met for so long, in ms, makes room for another. */
const FORGET_AFTER_MS = 10_000;
/** Tenants that are looked at for one that may be forgotten, each time that there is no room for a new one. */
const LOOKED_AT = 8;

export interface TenantTableOptions {
  /** Tenants that are known one by one beside those that a rule names. */
  readonly tenantsMax: number;
  /** What may come at once, as a time of the rates, in ms. */
  readonly burstMs: number;
}

/** All tenants that this node has met, their quotas and what they use. Times are ms, monotonic. */
export class TenantTable {
  /** Those of all that do not fit. */
  readonly other = new Tenant(OTHER);
  #tenants = new Map<string, Tenant>();
  #rules = new QuotaRules([]);
  #nodes = 1;
  #tenantsMax: number;
  #burstMs: number;
  #sampledAt = Number.NEGATIVE_INFINITY;

  constructor({ tenantsMax, burstMs }: TenantTableOptions) {
    this.#tenantsMax = tenantsMax;
    this.#burstMs = burstMs;
  }

  get rules(): readonly QuotaRule[] {
    return this.#rules.list;
  }

  /** Nothing is metered without a rule. */
  get isOn(): boolean {
    return this.#rules.list.length > 0;
  }

  /** Somebody was metered since the start. */
  get isMet(): boolean {
    return this.#tenants.size > 0 || this.other.seenAt > 0;
  }

  /** Between which each quota is divided. */
  get nodes(): number {
    return this.#nodes;
  }

  /** Tenants that are known one by one. */
  get size(): number {
    return this.#tenants.size;
  }

  /** Every quota from now on. Limiters that are given up let everything through. */
  apply(rules: readonly QuotaRule[], now: number): void {
    this.#rules = new QuotaRules(rules);
    this.#adjustAll(now);
  }

  setLimits({ tenantsMax, burstMs }: TenantTableOptions, now: number): void {
    this.#tenantsMax = tenantsMax;
    this.#burstMs = burstMs;
    this.#adjustAll(now);
  }

  /** True if that changes something. */
  setNodes(nodes: number, now: number): boolean {
    if (nodes === this.#nodes) return false;
    this.#nodes = nodes;
    this.#adjustAll(now);
    return true;
  }

  /** The tenant of this name; `other` if there is no room for one more. */
  of(name: string, now: number): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      if (name === OTHER || !this.#hasRoomFor(name, now)) tenant = this.other;
      else {
        tenant = new Tenant(name);
        this.#adjust(tenant, now);
        this.#tenants.set(name, tenant);
      }
    }
    tenant.seenAt = now;
    return tenant;
  }

  /** `other` too. */
  *all(): Generator<Tenant> {
    yield* this.#tenants.values();
    yield this.other;
  }

  /** Measures what all use; about once a second. */
  sample(now: number): void {
    const seconds = (now - this.#sampledAt) / 1_000;
    this.#sampledAt = now;
    if (!Number.isFinite(seconds) || seconds <= 0) return;
    for (const { usage, prefixes } of this.all()) {
      usage.sample(seconds);
      for (const prefix of prefixes) prefix.usage.sample(seconds);
    }
  }

  #hasRoomFor(name: string, now: number): boolean {
    return this.#tenants.size < this.#tenantsMax || this.#rules.names(name) || this.#forgetOne(now);
  }

  /** Looks at those that it has not looked at for longest. */
  #forgetOne(now: number): boolean {
    let looks = 0;
    for (const [name, tenant] of this.#tenants) {
      this.#tenants.delete(name);
      if (now - tenant.seenAt >= FORGET_AFTER_MS && !this.#rules.names(name) && tenant.isForgettable(now)) {
        this.other.usage.absorb(tenant.usage);
        return true;
      }
      this.#tenants.set(name, tenant);
      looks += 1;
      if (looks === LOOKED_AT) return false;
    }
    return false;
  }

  #adjustAll(now: number): void {
    for (const tenant of this.all()) this.#adjust(tenant, now);
  }

  #adjust(tenant: Tenant, now: number): void {
    const { name } = tenant;
    tenant.rule = this.#rules.totalOf(name);
    this.#limit(tenant.limiter, tenant.rule, now);
    const known = new Map(tenant.prefixes.map((quota) => [quota.prefix, quota]));
    tenant.prefixes = this.#rules.prefixesOf(name).map((rule) => {
      const quota = known.get(rule.prefix) ?? new PrefixQuota(rule);
      known.delete(rule.prefix);
      quota.rule = rule;
      this.#limit(quota.limiter, rule, now);
      return quota;
    });
    for (const { limiter } of known.values()) this.#limit(limiter, null, now);
  }

  #limit(limiter: Limiter, rule: QuotaRule | null, now: number): void {
    limiter.change(
      {
        messagesPerSecond: (rule?.messagesPerSecond ?? 0) / this.#nodes,
        bytesPerSecond: (rule?.bytesPerSecond ?? 0) / this.#nodes,
        burstMs: this.#burstMs,
      },
      now,
    );
  }
}
