import { type PatternNode, parsePattern } from './tag-pattern-syntax.ts';

/**
 * Regular expressions of strangers, for the tag filters of queries. Serf takes Go's, RE2, which never take more than linear time; those of JavaScript can be
 * made to run for years. So this is a machine of its own (Thompson, "Regular expression search algorithm", 1968): it holds the set of all places that
 * the expression may be in, and takes one character after another: at most INSTRUCTIONS_MAX steps for each, and what all filters of one query cost together is
 * counted in a budget besides.
 */
const INSTRUCTIONS_MAX = 1_000;
/** Characters of an expression: a query has at most 1,024 bytes. */
export const EXPRESSION_LENGTH_MAX = 1_024;
/** Characters of a value: a node's tags are at most 512 bytes. */
export const SUBJECT_LENGTH_MAX = 512;
/** Steps for all filters of a query, about a millisecond; `^broker-[0-9]+$` takes some hundreds. */
export const STEPS_MAX = 100_000;

/** Steps that are left. */
export interface PatternBudget {
  steps: number;
}

type Instruction =
  | { readonly kind: 'set'; readonly matches: (code: number) => boolean }
  | { readonly kind: 'assert'; readonly holds: (before: number, after: number) => boolean }
  /** Either of the two. */
  | { kind: 'split'; first: number; second: number }
  | { kind: 'jump'; target: number }
  | { readonly kind: 'match' };

export class TagPattern {
  readonly #program: readonly Instruction[];

  private constructor(program: readonly Instruction[]) {
    this.#program = program;
  }

  /** Null: not of the syntax that is understood (tag-pattern-syntax.ts), or too large. */
  static parse(expression: string, budget: PatternBudget = { steps: STEPS_MAX }): TagPattern | null {
    if (expression.length > EXPRESSION_LENGTH_MAX) return null;
    const node = parsePattern(expression);
    if (node === null) return null;
    const program: Instruction[] = [];
    if (!compile(node, { program, budget }) || program.length >= INSTRUCTIONS_MAX) return null;
    program.push({ kind: 'match' });
    return new TagPattern(program);
  }

  /** Whether it is found anywhere in `subject`; false for one of more than SUBJECT_LENGTH_MAX characters, and if the budget does not suffice. */
  isFoundIn(subject: string, budget: PatternBudget = { steps: STEPS_MAX }): boolean {
    if (subject.length > SUBJECT_LENGTH_MAX) return false;
    const codes = Array.from(subject, (character) => character.codePointAt(0) as number);
    let places = new Set<number>();
    for (let at = 0; at <= codes.length; at++) {
      const [before, after] = [codes[at - 1] ?? -1, codes[at] ?? -1];
      // A match may begin at any character.
      const reached = this.#follow([...places, 0], before, after);
      if (reached === null) return true;
      budget.steps -= reached.size;
      if (budget.steps < 0) return false;
      places = new Set();
      for (const place of reached) {
        const instruction = this.#program[place];
        if (instruction?.kind === 'set' && after >= 0 && instruction.matches(after)) places.add(place + 1);
      }
    }
    return false;
  }

  /** Every place that is reached from `places` without taking a character; null if the match is one of them. */
  #follow(places: readonly number[], before: number, after: number): Set<number> | null {
    const reached = new Set<number>();
    const stack = [...places];
    for (let place = stack.pop(); place !== undefined; place = stack.pop()) {
      if (reached.has(place)) continue;
      reached.add(place);
      const instruction = this.#program[place];
      if (instruction === undefined || instruction.kind === 'match') return null;
      if (instruction.kind === 'jump') stack.push(instruction.target);
      if (instruction.kind === 'split') stack.push(instruction.first, instruction.second);
      if (instruction.kind === 'assert' && instruction.holds(before, after)) stack.push(place + 1);
    }
    return reached;
  }
}

interface Compilation {
  readonly program: Instruction[];
  /** Pays for each node looked at, also if it makes no instruction, such as `(){1000}` in itself. */
  readonly budget: PatternBudget;
}

/** Appends the node's instructions; false if they are too many. */
function compile(node: PatternNode, into: Compilation): boolean {
  const { program } = into;
  if (program.length > INSTRUCTIONS_MAX || --into.budget.steps < 0) return false;
  switch (node.kind) {
    case 'set':
      program.push({ kind: 'set', matches: node.matches });
      return true;
    case 'assert':
      program.push({ kind: 'assert', holds: node.holds });
      return true;
    case 'sequence':
      return node.parts.every((part) => compile(part, into));
    case 'choice':
      return compileChoice(node.branches, into);
    case 'repeat':
      return compileRepeat(node, into);
  }
}

function compileChoice(branches: readonly PatternNode[], into: Compilation): boolean {
  const { program } = into;
  const ends: { kind: 'jump'; target: number }[] = [];
  for (const [at, branch] of branches.entries()) {
    const isLast = at === branches.length - 1;
    const split = { kind: 'split' as const, first: program.length + 1, second: 0 };
    if (!isLast) program.push(split);
    if (!compile(branch, into)) return false;
    if (isLast) continue;
    const end = { kind: 'jump' as const, target: 0 };
    program.push(end);
    ends.push(end);
    split.second = program.length;
  }
  for (const end of ends) end.target = program.length;
  return true;
}

function compileRepeat(node: PatternNode & { kind: 'repeat' }, into: Compilation): boolean {
  const { program } = into;
  for (let i = 0; i < node.min; i++) if (!compile(node.part, into)) return false;
  if (node.max === Number.POSITIVE_INFINITY) {
    const split = { kind: 'split' as const, first: program.length + 1, second: 0 };
    program.push(split);
    if (!compile(node.part, into)) return false;
    program.push({ kind: 'jump', target: program.indexOf(split) });
    split.second = program.length;
    return true;
  }
  const splits: { kind: 'split'; first: number; second: number }[] = [];
  for (let i = node.min; i < node.max; i++) {
    const split = { kind: 'split' as const, first: program.length + 1, second: 0 };
    program.push(split);
    splits.push(split);
    if (!compile(node.part, into)) return false;
  }
  for (const split of splits) split.second = program.length;
  return true;
}
