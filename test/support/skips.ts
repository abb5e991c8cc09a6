/** What `npm test` says at its end about tests that did not run. */

export interface Skipped {
  readonly file: string;
  readonly test: string;
  /** With how to enable it; '' if the test gave none. */
  readonly why: string;
}

/** A line for each reason, which many tests may share: what there are most of comes first. */
export function skipLines(skipped: readonly Skipped[]): string[] {
  const groups = Map.groupBy(skipped, ({ why }) => (why === '' ? 'no reason given' : why));
  const largestFirst = [...groups].sort(([, left], [, right]) => right.length - left.length);
  return largestFirst.map(([why, of]) => {
    const [first] = of;
    if (of.length === 1) return `  - ${first?.file}: ${first?.test}: ${why}`;
    return `  - ${of.length} tests of ${[...new Set(of.map(({ file }) => file))].join(', ')}: ${why}`;
  });
}
