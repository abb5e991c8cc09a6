/** `--assert 'p99<5ms'`: limits on the figures of a report, for scripts. Pure. */

type Operator = '<' | '<=' | '>' | '>=' | '==';

export interface Assertion {
  readonly text: string;
  /** Key of a figure (`p99`, `rate`, …), or of a ratio to the baseline (`ratio.rate`). */
  readonly key: string;
  readonly operator: Operator;
  /** In the unit of `kind`: ms, bytes, or as it is. */
  readonly limit: number;
  readonly kind: 'time' | 'bytes' | 'plain';
}

export class AssertionError extends Error {
  override name = 'AssertionError';
}

export interface Verdict {
  readonly text: string;
  readonly isTrue: boolean;
  readonly value: number;
}

/** What a unit counts as, in ms or bytes. */
const UNITS: Readonly<Record<string, { readonly kind: Assertion['kind']; readonly scale: number }>> = {
  us: { kind: 'time', scale: 1e-3 },
  ms: { kind: 'time', scale: 1 },
  s: { kind: 'time', scale: 1e3 },
  KiB: { kind: 'bytes', scale: 2 ** 10 },
  MiB: { kind: 'bytes', scale: 2 ** 20 },
  GiB: { kind: 'bytes', scale: 2 ** 30 },
  '%': { kind: 'plain', scale: 0.01 },
  k: { kind: 'plain', scale: 1e3 },
  M: { kind: 'plain', scale: 1e6 },
  '': { kind: 'plain', scale: 1 },
};

export function parseAssertion(text: string): Assertion {
  const match = /^\s*([a-z][a-z0-9.-]*)\s*(<=|>=|==|<|>)\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*$/.exec(text);
  const unit = match === null ? undefined : UNITS[match[4] ?? ''];
  if (match === null || unit === undefined) {
    throw new AssertionError(
      `"${text}" is no assertion: KEY OPERATOR NUMBER[UNIT], such as p99<5ms, rate>=100k, rss<600MiB`,
    );
  }
  const limit = Number(match[3]) * unit.scale;
  return { text: text.trim(), key: match[1] as string, operator: match[2] as Operator, limit, kind: unit.kind };
}

/** A figure as an assertion sees it: the median, in the unit that the report prints. */
export interface Measured {
  readonly value: number;
  readonly unit: string;
}

/** Fails too when no such figure was measured, or when its unit does not fit: a limit that is never looked at must not pass. */
export function check(assertion: Assertion, figures: ReadonlyMap<string, Measured>): Verdict {
  const { text, key, kind, limit, operator } = assertion;
  const figure = figures.get(key);
  if (figure === undefined) {
    return {
      text: `${text}: no figure ${key}; there are ${[...figures.keys()].join(', ')}`,
      isTrue: false,
      value: Number.NaN,
    };
  }
  const unit = UNITS[figure.unit];
  const own = unit !== undefined && unit.kind !== 'plain' ? unit : { kind: 'plain' as const, scale: 1 };
  if (own.kind !== kind) {
    return {
      text: `${text}: ${key} is measured in ${figure.unit || 'plain numbers'}`,
      isTrue: false,
      value: figure.value,
    };
  }
  return { text, value: figure.value, isTrue: holds(operator, figure.value * own.scale, limit) };
}

function holds(operator: Operator, value: number, limit: number): boolean {
  switch (operator) {
    case '<':
      return value < limit;
    case '<=':
      return value <= limit;
    case '>':
      return value > limit;
    case '>=':
      return value >= limit;
    case '==':
      return value === limit;
  }
}
