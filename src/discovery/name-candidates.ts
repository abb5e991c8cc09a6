/** Short names, as resolv.conf(5) has them: what Node asks DNS for is taken as it is, and `brokers` alone would never be found in a pod. */

export interface SearchRules {
  /** Domains that are tried behind a name, in order. */
  readonly search: readonly string[];
  /** A name with so many dots is first tried as it is. */
  readonly ndots: number;
}

/** As many as glibc and Kubernetes allow (since 1.28). */
const SEARCH_MAX = 32;
const NDOTS_MAX = 15;
/** RFC 1035, section 2.3.4, in text. */
const NAME_LENGTH_MAX = 253;

/** Reads the text of /etc/resolv.conf; what it does not understand counts as not there. */
export function parseSearchRules(text: string): SearchRules {
  let search: readonly string[] = [];
  let ndots = 1;
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    // The last of several counts.
    if (keyword === 'search' || keyword === 'domain') search = values.filter((value) => value !== '.');
    if (keyword !== 'options') continue;
    for (const option of values) {
      const [, digits] = /^ndots:(\d{1,3})$/.exec(option) ?? [];
      if (digits !== undefined) ndots = Math.min(Number(digits), NDOTS_MAX);
    }
  }
  return { search: search.slice(0, SEARCH_MAX).map((domain) => domain.replace(/^\.+|\.+$/g, '')), ndots };
}

/** What to ask for in turn until there is an answer. */
export function nameCandidates(name: string, { search, ndots }: SearchRules): readonly string[] {
  const dots = name.split('.').length - 1;
  const longer = search.map((domain) => `${name}.${domain}`).filter((candidate) => candidate.length <= NAME_LENGTH_MAX);
  return [...new Set(dots >= ndots ? [name, ...longer] : [...longer, name])];
}
