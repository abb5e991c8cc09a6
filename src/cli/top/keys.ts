/** What a terminal sends for keys, by name. */

const SEQUENCES: Readonly<Record<string, string>> = {
  '\u001b[A': 'up',
  '\u001b[B': 'down',
  '\u001b[C': 'right',
  '\u001b[D': 'left',
  '\u001bOA': 'up',
  '\u001bOB': 'down',
  '\u001bOC': 'right',
  '\u001bOD': 'left',
  '\u001b[H': 'home',
  '\u001b[F': 'end',
  '\u001bOH': 'home',
  '\u001bOF': 'end',
  '\u001b[1~': 'home',
  '\u001b[4~': 'end',
  '\u001b[5~': 'page-up',
  '\u001b[6~': 'page-down',
  '\u001b[Z': 'shift-tab',
};

const SINGLE: Readonly<Record<string, string>> = {
  '\u0003': 'ctrl-c',
  '\u0009': 'tab',
  '\u000d': 'enter',
  '\u000a': 'enter',
  '\u007f': 'backspace',
  '\u0008': 'backspace',
  '\u001b': 'escape',
  '\u000c': 'redraw',
};

const ESCAPE = '\u001b';
/** Behind ESCAPE, a sequence that is none of ours: all of it is skipped. */
const OTHER = /^(?:\[[0-?]*[ -/]*[@-~]|O.|[^[O])/;

/** Keys of one piece of input, which terminals send whole. */
export function keysOf(input: string): string[] {
  const keys: string[] = [];
  for (let rest = input; rest.length > 0; ) {
    const known = Object.keys(SEQUENCES).find((sequence) => rest.startsWith(sequence));
    const other = known === undefined && rest.startsWith(ESCAPE) ? OTHER.exec(rest.slice(1))?.[0] : undefined;
    const taken = known ?? (other === undefined ? String.fromCodePoint(rest.codePointAt(0) ?? 0) : ESCAPE + other);
    if (other === undefined) keys.push(SEQUENCES[taken] ?? SINGLE[taken] ?? taken);
    rest = rest.slice(taken.length);
  }
  return keys;
}
