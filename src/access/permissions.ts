import { Verb } from './caller.ts';
import type { Grants, SubjectLists } from './document.ts';
import { SubjectRule } from './subject-rule.ts';

/** A rule and who gives or takes it: `role orders`, `token ci`. */
interface Rule {
  readonly subjects: SubjectRule;
  readonly from: string;
}

/** Of one verb. Who denies is asked first. */
interface VerbRules {
  readonly deny: readonly Rule[];
  readonly allow: readonly Rule[];
}

/** Why something is allowed or not, for people. */
export interface Decision {
  readonly isAllowed: boolean;
  /** `deny "a.>" of role guests`, `no rule allows it`. */
  readonly why: string;
}

const VERB_NAMES = ['publish', 'subscribe', 'fetch'] as const satisfies readonly (keyof SubjectLists)[];
export type VerbName = (typeof VERB_NAMES)[number];

const NOTHING: VerbRules = { deny: [], allow: [] };

/** What somebody may do: deny goes before allow, and what no rule allows is denied. */
export class Permissions {
  readonly publish: VerbRules;
  readonly subscribe: VerbRules;
  readonly fetch: VerbRules;
  /** May look at the node and the cluster. */
  readonly observes: boolean;
  /** May change them. */
  readonly administers: boolean;
  /** Some rule allows something, whatever others deny of it. */
  readonly allowsAnything: boolean;
  /** Equal for what decides equally. */
  readonly fingerprint: string;

  /** `grants`: with who gives them. */
  constructor(grants: readonly { readonly from: string; readonly grants: Grants }[]) {
    const of = (verb: VerbName): VerbRules => {
      const rules = (side: 'allow' | 'deny'): Rule[] =>
        grants.flatMap(({ from, grants }) =>
          grants[side][verb].map((text) => ({ subjects: SubjectRule.of(text), from })),
        );
      return { deny: rules('deny'), allow: rules('allow') };
    };
    this.publish = of('publish');
    this.subscribe = of('subscribe');
    this.fetch = of('fetch');
    this.administers = grants.some(({ grants }) => grants.admin);
    this.observes = this.administers || grants.some(({ grants }) => grants.observe);
    this.allowsAnything = this.observes || VERB_NAMES.some((verb) => this[verb].allow.length > 0);
    const texts = VERB_NAMES.map((verb) => [textsOf(this[verb].deny), textsOf(this[verb].allow)]);
    this.fingerprint = JSON.stringify([texts, this.observes, this.administers]);
  }

  /** Makes nothing. */
  may(verb: Verb, bytes: Uint8Array, start: number, end: number): boolean {
    const { deny, allow } = this.#rulesOf(verb);
    for (const { subjects } of deny) if (subjects.matches(bytes, start, end)) return false;
    for (const { subjects } of allow) if (subjects.matches(bytes, start, end)) return true;
    return false;
  }

  /**
   * Whether a pattern may find anything that is allowed. Each subject that it finds has to be asked for by itself: what is denied among them stays denied.
   */
  mayFind(verb: Verb, pattern: string): boolean {
    const wanted = SubjectRule.of(pattern);
    const { deny, allow } = this.#rulesOf(verb);
    return allow.some(({ subjects }) => {
      const both = subjects.meet(wanted);
      return both !== null && !deny.some((rule) => rule.subjects.covers(both));
    });
  }

  /** `may`, and `mayFind` for a pattern, with the rule that decides. */
  explain(verb: VerbName, subject: string): Decision {
    const names = subject.split('.');
    if (!names.includes('*') && names.at(-1) !== '>') return this.#decide(verb, subject);
    if (verb !== 'subscribe') return { isAllowed: false, why: `a pattern cannot be used to ${verb}` };
    const isAllowed = this.mayFind(Verb.SUBSCRIBE, subject);
    return {
      isAllowed,
      why: isAllowed ? 'it may find what is allowed, and that alone' : 'no rule allows what it may find',
    };
  }

  #decide(verb: VerbName, subject: string): Decision {
    const bytes = new TextEncoder().encode(subject);
    const isFor = ({ subjects }: Rule): boolean => subjects.matches(bytes, 0, bytes.length);
    const denied = this[verb].deny.find(isFor);
    if (denied !== undefined) return { isAllowed: false, why: `deny ${inWords(denied)}` };
    const allowed = this[verb].allow.find(isFor);
    if (allowed !== undefined) return { isAllowed: true, why: `allow ${inWords(allowed)}` };
    return { isAllowed: false, why: 'no rule allows it' };
  }

  /**
   * Whether these may allow something that `next` does not: a rule that allowed it is gone and no other one allows all of it, or one that denies has come, is
   * no part of one that did, and is for something that was allowed. False is certain: nothing was taken away.
   */
  isNarrowedBy(verb: VerbName, next: Permissions): boolean {
    const [was, is] = [this[verb], next[verb]];
    return (
      lackingIn(is.allow, was.allow).length > 0 ||
      lackingIn(was.deny, is.deny).some((denied) => was.allow.some(({ subjects }) => subjects.meet(denied) !== null))
    );
  }

  #rulesOf(verb: Verb): VerbRules {
    switch (verb) {
      case Verb.PUBLISH:
        return this.publish;
      case Verb.SUBSCRIBE:
        return this.subscribe;
      case Verb.FETCH:
        return this.fetch;
      default:
        return NOTHING;
    }
  }
}

/** What `rules` are for and none of `others` alone is. Most rules are there as they were. */
function lackingIn(others: readonly Rule[], rules: readonly Rule[]): SubjectRule[] {
  const texts = new Set(textsOf(others));
  return rules
    .map(({ subjects }) => subjects)
    .filter((subjects) => !texts.has(subjects.text) && !others.some((other) => other.subjects.covers(subjects)));
}

function textsOf(rules: readonly Rule[]): string[] {
  return rules.map(({ subjects }) => subjects.text);
}

function inWords({ subjects, from }: Rule): string {
  return `"${subjects.text}" of ${from}`;
}
