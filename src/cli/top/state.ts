/** What the person before the screen has chosen, and what each key does to it. */
import { PANE, PANES, type PaneName } from './panes.ts';

/** In ms; + and - move along. */
const INTERVALS = [250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
const FILTER_MAX = 255;

export interface TopState {
  readonly pane: PaneName;
  readonly sort: Readonly<Record<PaneName, string>>;
  readonly isReversed: boolean;
  readonly filter: string;
  /** What is being typed behind a /; null: nothing is. */
  readonly typing: string | null;
  readonly isPaused: boolean;
  readonly isHelp: boolean;
  readonly intervalMs: number;
  /** Rows above the first one that is shown. */
  readonly scroll: number;
  /** How it was asked to end. */
  readonly end: 'quit' | 'interrupt' | null;
}

export function firstState(options: { pane: PaneName; sort: string | null; intervalMs: number }): TopState {
  const sort = { shards: '', subjects: '', subscriptions: '', connections: '' };
  for (const pane of PANES) sort[pane] = PANE[pane].sortKeys[0] ?? '';
  if (options.sort !== null) sort[options.pane] = options.sort;
  return {
    pane: options.pane,
    sort,
    isReversed: false,
    filter: '',
    typing: null,
    isPaused: false,
    isHelp: false,
    intervalMs: options.intervalMs,
    scroll: 0,
    end: null,
  };
}

/** `page`: rows of a screen. */
export function pressed(state: TopState, key: string, page: number): TopState {
  if (key === 'ctrl-c') return { ...state, end: 'interrupt' };
  if (state.typing !== null) return typed(state, state.typing, key);
  if (state.isHelp) return key === 'q' ? { ...state, end: 'quit' } : { ...state, isHelp: false };
  switch (key) {
    case 'q':
      return { ...state, end: 'quit' };
    case 'h':
    case '?':
      return { ...state, isHelp: true };
    case '1':
    case '2':
    case '3':
    case '4':
      return withPane(state, Number(key) - 1);
    case 'tab':
    case 'right':
      return withPane(state, PANES.indexOf(state.pane) + 1);
    case 'shift-tab':
    case 'left':
      return withPane(state, PANES.indexOf(state.pane) - 1);
    case 's': {
      const { sortKeys } = PANE[state.pane];
      const next = sortKeys[(sortKeys.indexOf(state.sort[state.pane]) + 1) % sortKeys.length] ?? '';
      return { ...state, sort: { ...state.sort, [state.pane]: next }, isReversed: false, scroll: 0 };
    }
    case 'r':
      return { ...state, isReversed: !state.isReversed, scroll: 0 };
    case '/':
      return { ...state, typing: state.filter };
    case 'escape':
      return { ...state, filter: '', scroll: 0 };
    case 'p':
    case ' ':
      return { ...state, isPaused: !state.isPaused };
    case '+':
    case '=':
      return { ...state, intervalMs: INTERVALS.find((ms) => ms > state.intervalMs) ?? state.intervalMs };
    case '-':
      return { ...state, intervalMs: INTERVALS.findLast((ms) => ms < state.intervalMs) ?? state.intervalMs };
    case 'down':
    case 'j':
      return { ...state, scroll: state.scroll + 1 };
    case 'up':
    case 'k':
      return { ...state, scroll: Math.max(0, state.scroll - 1) };
    case 'page-down':
      return { ...state, scroll: state.scroll + page };
    case 'page-up':
      return { ...state, scroll: Math.max(0, state.scroll - page) };
    case 'home':
      return { ...state, scroll: 0 };
    case 'end':
      return { ...state, scroll: Number.MAX_SAFE_INTEGER };
    default:
      return state;
  }
}

function withPane(state: TopState, index: number): TopState {
  const pane = PANES[(index + PANES.length) % PANES.length] ?? 'shards';
  return { ...state, pane, isReversed: false, scroll: 0 };
}

function typed(state: TopState, typing: string, key: string): TopState {
  if (key === 'enter') return { ...state, filter: typing, typing: null, scroll: 0 };
  if (key === 'escape') return { ...state, typing: null };
  if (key === 'backspace') return { ...state, typing: [...typing].slice(0, -1).join('') };
  const isText = [...key].length === 1 && key >= ' ' && key !== '\u007f';
  return isText && typing.length < FILTER_MAX ? { ...state, typing: typing + key } : state;
}
