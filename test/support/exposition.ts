/** Reads the Prometheus text format, strictly: what a scraper would refuse is an error here. */

export interface Exposed {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Exposition {
  /** By the name that HELP and TYPE have: a histogram is one. */
  readonly types: ReadonlyMap<string, string>;
  readonly samples: readonly Exposed[];
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/s;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/y;
const ESCAPED: Readonly<Record<string, string>> = { '\\\\': '\\', '\\"': '"', '\\n': '\n' };

export function parseExposition(text: string): Exposition {
  const types = new Map<string, string>();
  const samples: Exposed[] = [];
  const seen = new Set<string>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('# HELP ')) continue;
    const type = /^# TYPE (\S+) (counter|gauge|histogram|summary)$/.exec(line);
    if (type !== null) {
      if (types.has(type[1] as string)) throw new Error(`two types: ${line}`);
      types.set(type[1] as string, type[2] as string);
      continue;
    }
    const match = SAMPLE.exec(line);
    if (match === null) throw new Error(`not the text format: ${line}`);
    const value = Number(match[3]);
    if (Number.isNaN(value) && !/^nan$/i.test(match[3] as string) && !/^[+-]Inf$/.test(match[3] as string))
      throw new Error(`no number: ${line}`);
    const labels = labelsOf(match[2] ?? '', line);
    const series = `${match[1]}${JSON.stringify(Object.entries(labels).sort())}`;
    if (seen.has(series)) throw new Error(`twice: ${line}`);
    seen.add(series);
    samples.push({ name: match[1] as string, labels, value });
  }
  return { types, samples };
}

function labelsOf(text: string, line: string): Record<string, string> {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const match = LABEL.exec(text);
    if (match === null) throw new Error(`labels that cannot be read: ${line}`);
    labels[match[1] as string] = (match[2] as string).replace(/\\[\\"n]/g, (escaped) => ESCAPED[escaped] as string);
  }
  return labels;
}

/** The name that TYPE has for a sample's. */
export function familyOf(name: string, types: ReadonlyMap<string, string>): string {
  const base = name.replace(/_(bucket|sum|count)$/, '');
  const isPart = base !== name && ['histogram', 'summary'].includes(types.get(base) ?? '');
  return isPart ? base : name;
}
