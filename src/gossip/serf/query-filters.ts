import { FILTERS_MAX } from './limits.ts';
import type { QueryFilter, Tags } from './messages.ts';
import { type PatternBudget, STEPS_MAX, TagPattern } from './tag-pattern.ts';

/** Whether this node is meant by a query (hashicorp/serf serf/query.go shouldProcessQuery). An expression that is not understood means nobody. */
export function isMeant(filters: readonly QueryFilter[], node: string, tags: Tags): boolean {
  const budget: PatternBudget = { steps: STEPS_MAX };
  return filters.length <= FILTERS_MAX && filters.every((filter) => meets(filter, node, tags, budget));
}

function meets(filter: QueryFilter, node: string, tags: Tags, budget: PatternBudget): boolean {
  switch (filter.kind) {
    case 'nodes':
      return filter.nodes.includes(node);
    case 'tag':
      return TagPattern.parse(filter.expression, budget)?.isFoundIn(tags.get(filter.tag) ?? '', budget) ?? false;
    case 'unknown':
      return false;
  }
}
