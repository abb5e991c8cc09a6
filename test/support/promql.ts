/** What a PromQL expression names: metrics with the labels that it picks them by, and labels that it groups by. No full parser: it must not miss a name. */

export interface Matcher {
  readonly label: string;
  readonly operator: string;
  readonly value: string;
}

export interface MetricUse {
  readonly metric: string;
  readonly matchers: readonly Matcher[];
}

export interface QueryNames {
  readonly metrics: readonly MetricUse[];
  /** Of by, without, on, ignoring, group_left and group_right. */
  readonly groupedBy: readonly string[];
  /** Labels that `label_replace` makes. */
  readonly made: readonly string[];
}

const TOKEN =
  /\s+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[[^\]]*\]|[a-zA-Z_:][\w:]*|\d[\w.]*|\.\d+|=~|!~|!=|==|<=|>=|./gs;
const GROUPING = new Set(['by', 'without', 'on', 'ignoring', 'group_left', 'group_right']);
const WORDS = new Set(['and', 'or', 'unless', 'bool', 'offset', 'inf', 'nan', ...GROUPING]);

export function namesIn(expression: string): QueryNames {
  const tokens = (expression.match(TOKEN) ?? []).filter((token) => token.trim() !== '' && !token.startsWith('['));
  const metrics: MetricUse[] = [];
  const groupedBy: string[] = [];
  const made: string[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i] as string;
    if (!/^[a-zA-Z_:]/.test(token)) continue;
    const next = tokens[i + 1];
    if (GROUPING.has(token) && next === '(') {
      for (i += 2; tokens[i] !== ')'; i++) if (tokens[i] !== ',') groupedBy.push(tokens[i] as string);
    } else if (token === 'label_replace') {
      made.push(unquoted(argument(tokens, i + 1, 1)));
    } else if (next === '{') {
      const matchers: Matcher[] = [];
      for (i += 2; tokens[i] !== '}'; i++) {
        if (tokens[i] === ',') continue;
        const [label, operator, value] = tokens.slice(i, i + 3) as [string, string, string];
        matchers.push({ label, operator, value: unquoted(value) });
        i += 2;
      }
      metrics.push({ metric: token, matchers });
    } else if (next !== '(' && !WORDS.has(token) && !GROUPING.has(next ?? '')) {
      metrics.push({ metric: token, matchers: [] });
    }
  }
  return { metrics, groupedBy, made };
}

/** The first token of an argument of the function whose "(" is at `open`. */
function argument(tokens: readonly string[], open: number, index: number): string {
  let depth = 0;
  let commas = 0;
  for (let i = open; i < tokens.length; i++) {
    const token = tokens[i] as string;
    if ('({'.includes(token)) depth += 1;
    else if (')}'.includes(token)) depth -= 1;
    else if (token === ',' && depth === 1) commas += 1;
    else if (commas === index) return token;
  }
  throw new Error('no such argument');
}

function unquoted(text: string): string {
  if (!/^["']/.test(text)) throw new Error(`not a text: ${text}`);
  return text.slice(1, -1);
}
