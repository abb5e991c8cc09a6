/** The keys of quotas. A part of `SCHEMA`. */
import { z } from 'zod';
import type { QuotaRule } from '../quota/quota-rules.ts';
import { about, duration, type Field, integer, type Scalar } from './field.ts';
import { formatQuotaRules, NO_RULES, parseQuotaRules, QUOTA_RULES_MAX } from './quota-rules.ts';

function quotaRules(options: { readonly doc: string }): Field<readonly QuotaRule[]> {
  const schema = z.string().transform((input, context): readonly QuotaRule[] => {
    const rules = input === NO_RULES ? [] : parseQuotaRules(input);
    if (typeof rules !== 'string') return rules;
    context.issues.push({ code: 'custom', input });
    return z.NEVER;
  });
  return {
    ...about({ ...options, live: true }),
    type: 'text',
    isList: true,
    schema: schema as unknown as z.ZodType<readonly QuotaRule[], Scalar>,
    rule: `must be rules such as "acme=1000msg/s 1MiB/s, acme/orders=100msg/s, *=50msg/s", at most ${QUOTA_RULES_MAX} and one for each name`,
    explain: (text) => {
      const rules = parseQuotaRules(text);
      return typeof rules === 'string' ? rules : null;
    },
    guess: () => [],
    default: Object.freeze([]),
    defaultText: 'none: nothing is metered',
    range: `TENANT[/PREFIX]=LIMIT[ LIMIT], up to ${QUOTA_RULES_MAX} with commas, ";" or line breaks between; a limit is \`100msg/s\`, \`1MiB/s\` or \`unlimited\``,
    jsonSchema: {
      anyOf: [{ type: 'string' }, { type: 'array', maxItems: QUOTA_RULES_MAX, items: { type: 'string' } }],
    },
    format: (rules) => (rules.length === 0 ? NO_RULES : formatQuotaRules(rules)),
    suffix: '',
  };
}

export const QUOTAS = {
  rules: quotaRules({
    doc: 'What tenants may publish, in messages and bytes a second, on all nodes together: each node takes the share of one of the nodes that are there. `*` is every tenant that no other rule names, each for itself; `*=unlimited` only counts. docs/quotas.md says more.',
  }),
  burst: duration({
    min: '10ms',
    max: '1m',
    default: '1s',
    live: true,
    doc: 'What a tenant that was quiet may send at once, as a time of its quota. Up for loads that come in waves; down so that a tenant takes less of the broker for a moment.',
  }),
  tenants_max: integer({
    min: 1,
    max: 100_000,
    default: 1_000,
    live: true,
    doc: 'Tenants that are metered one by one, beside those that a rule names. Further ones share the quota of one tenant, `other`, until one of the others was quiet for 10 s. Each takes about 1 KiB, and as much for each rule with a prefix.',
  }),
};
