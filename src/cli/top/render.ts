/** The screen of `broker top`, as a function of what is known: the same on every terminal and in every test. */
import type { Row } from '../output.ts';
import { type Column, PANE, PANES, type Sample, sorted } from './panes.ts';
import type { TopState } from './state.ts';
import { ageOf, bytesOf, compact, counted, cut, millis, pad, percent, safe, widthOf } from './text.ts';

/** How a line is written where there is colour. */
export type Style = 'plain' | 'title' | 'head' | 'warning' | 'bad' | 'dim';

export interface Line {
  readonly text: string;
  readonly style: Style;
}

export interface View {
  readonly state: TopState;
  /** Null: nothing is known yet. */
  readonly sample: Sample | null;
  /** Since when there is no answer (ms since 1970), and why; null: there is. */
  readonly failure: { readonly since: number; readonly why: string } | null;
  readonly address: string;
  /** ms since 1970 */
  readonly now: number;
  readonly columns: number;
  readonly rows: number;
}

/** Of columns that take what is left. */
const FLEX_MIN = 12;
const GAP = 2;
/** Lines around the rows of a list: three of the node, one of warnings, panes, head, keys. */
const FRAME_LINES = 7;

/** Rows of a list that fit. */
export function pageOf(rows: number): number {
  return Math.max(1, rows - FRAME_LINES);
}

/** Exactly `rows` lines of at most `columns`. */
export function renderTop(view: View): Line[] {
  const { columns, rows, state } = view;
  const body = state.isHelp ? help() : list(view);
  const lines = [...header(view), warningLine(view), panesLine(view), ...body].slice(0, Math.max(0, rows - 1));
  while (lines.length < rows - 1) lines.push(plain(''));
  lines.push(keysLine(view));
  return lines.slice(0, rows).map(({ text, style }) => ({ text: cut(text, columns), style }));
}

function plain(text: string): Line {
  return { text, style: 'plain' };
}

function header({ state, sample, columns, now, address }: View): Line[] {
  if (sample === null) return [{ text: `broker top  ${address}`, style: 'title' }, plain(''), plain('')];
  const { status } = sample;
  const name = `${safe(status.nodeId)}  cluster ${safe(status.cluster)}, ${roleOf(sample)}  up ${ageOf(status.uptimeMs)}`;
  const clock = `${state.isPaused ? 'PAUSED' : `every ${state.intervalMs / 1_000}s`}  ${timeOf(now)}`;
  const traffic = [
    `in ${compact(status.messagesInPerSecond)} msg/s ${bytesOf(status.bytesInPerSecond)}/s`,
    `out ${compact(status.messagesOutPerSecond)} msg/s ${bytesOf(status.bytesOutPerSecond)}/s`,
    `p99 ms publish ${p99(status.publishP99Ms)} write ${p99(status.storeWriteP99Ms)}`,
  ];
  const load = [
    `main thread ${percent(status.mainUtilization)}`,
    `cpu ${percent(status.cpuUtilization)}`,
    counted(status.connections, 'connection', compact),
    counted(status.subscriptions, 'subscription', compact),
    counted(status.subjects, 'subject', compact),
  ];
  return [
    { text: `${pad(`broker top  ${name}`, columns - widthOf(clock) - 1)} ${clock}`, style: 'title' },
    plain(traffic.join('  ')),
    plain(load.join('   ')),
  ];
}

function roleOf({ status }: Sample): string {
  if (status.role === 'alone' || status.role === 'leader') return status.role;
  return `${status.role}, ${status.leader === '' ? 'no leader' : `leader ${safe(status.leader)}`}`;
}

/** In UTC, as the log has it. */
function timeOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(11, 19)}Z`;
}

/** To a factor of two; 0 = none was. */
function p99(ms: number): string {
  return ms === 0 ? '-' : millis(ms);
}

/** The worst that is to be said, on one line. */
function warningLine({ failure, sample, now }: View): Line {
  if (failure !== null) {
    return {
      text: `! no answer since ${timeOf(failure.since)} (${ageOf(now - failure.since)}): ${safe(failure.why)}`,
      style: 'bad',
    };
  }
  if (sample === null) return plain('waiting for the first answer');
  const { warnings, notReady, ready } = sample.status;
  const told = [...(ready ? [] : notReady.map((reason) => `not ready: ${reason}`)), ...warnings];
  if (sample.change !== '') told.push(sample.change);
  if (told.length === 0) return { text: 'no warnings', style: 'dim' };
  const more = told.length > 1 ? `(1 of ${told.length}) ` : '';
  return { text: `! ${more}${safe(told[0] ?? '')}`, style: ready ? 'warning' : 'bad' };
}

function panesLine({ state, columns }: View): Line {
  const names = PANES.map((pane, i) => (pane === state.pane ? `[${i + 1} ${pane}]` : ` ${i + 1} ${pane} `)).join('');
  const sort = `by ${state.sort[state.pane]}${state.isReversed ? ' reversed' : ''}`;
  const rest = `${state.filter === '' ? '' : `/${safe(state.filter)} `}${sort}`;
  return { text: `${pad(names, Math.max(widthOf(names), columns - widthOf(rest) - 1))} ${rest}`, style: 'plain' };
}

/** Rows of the chosen pane, as many as begin with the filter, in the chosen order. */
function shownRows({ state, sample }: Pick<View, 'state' | 'sample'>): Row[] {
  if (sample === null) return [];
  const { named } = PANE[state.pane];
  const { filter } = state;
  const rows = sample.rows[state.pane].filter((row) => String(row[named] ?? '').startsWith(filter));
  return sorted(rows, state.sort[state.pane], state.isReversed);
}

function list(view: View): Line[] {
  const { state, sample, columns, rows } = view;
  const all = shownRows(view);
  const wanted = PANE[state.pane].columns.filter(({ key, isOptional }) => !isOptional || all.some((row) => row[key]));
  const fitting = fitted(wanted, columns);
  const page = pageOf(rows);
  const from = Math.min(state.scroll, Math.max(0, all.length - page));
  const shown = all.slice(from, from + page);
  const isNumber = fitting.map(({ column }) => shown.some((row) => typeof row[column.key] === 'number'));
  const head = fitting.map(({ column, width }, i) => pad(column.title, width, isNumber[i])).join(' '.repeat(GAP));
  const lines: Line[] = [{ text: head.trimEnd(), style: 'head' }];
  for (const row of shown) {
    const cells = fitting.map(({ column, width }, i) => pad(cellOf(row, column), width, isNumber[i]));
    lines.push({ text: cells.join(' '.repeat(GAP)).trimEnd(), style: styleOf(row) });
  }
  if (shown.length === 0 && sample !== null) lines.push({ text: nothing(view), style: 'dim' });
  return lines;
}

function nothing({ state }: View): string {
  if (state.filter !== '') return `nothing begins with ${safe(state.filter)}`;
  if (state.pane === 'subjects') return 'no subject stands out in the last seconds';
  return `no ${state.pane}`;
}

function styleOf(row: Row): Style {
  return row.state === 'waiting' ? 'warning' : 'plain';
}

function cellOf(row: Row, { key, show }: Column): string {
  const value = row[key] ?? null;
  if (value === null) return '-';
  return typeof value === 'number' && show !== undefined ? show(value) : String(value);
}

interface Fitting {
  readonly column: Column;
  readonly width: number;
}

/** The columns that there is room for, the first ones first; the one without a width gets what is left. */
function fitted(all: readonly Column[], columns: number): Fitting[] {
  let kept = [...all];
  const least = (): number => kept.reduce((sum, { width }) => sum + GAP + (width === 0 ? FLEX_MIN : width), -GAP);
  while (kept.length > 1 && least() > columns) {
    const last = kept.findLastIndex(({ width }) => width > 0);
    kept = kept.filter((_, i) => i !== last);
  }
  const left = FLEX_MIN + Math.max(0, columns - least());
  return kept.map((column) => ({ column, width: column.width === 0 ? left : column.width }));
}

function keysLine({ state, columns, sample }: View): Line {
  if (state.typing !== null) return plain(`/${safe(state.typing)}_  (Enter: only names that begin so, Esc: as before)`);
  const keys = 'q quit  h help  s sort  r reverse  / filter  p pause  +- interval';
  if (sample === null) return { text: keys, style: 'dim' };
  const total = sample.totals[state.pane];
  const shown = shownRows({ state, sample }).length;
  const count = shown < total ? `${shown} of ${total.toLocaleString('en-US')}` : `${shown}`;
  return { text: `${pad(keys, Math.max(widthOf(keys), columns - widthOf(count) - 1))} ${count}`, style: 'dim' };
}

function help(): Line[] {
  return [
    '',
    '1 2 3 4, Tab     shards, subjects, subscriptions, connections',
    's, r             sort by the next column; turn the order round',
    '/                only names that begin with what you type; Esc: all',
    'p, Space         stop and go on asking',
    '+ -              ask less often, more often',
    'arrows, PgUp/Dn  scroll',
    'q, Ctrl-C        end',
    '',
    'Rates and shares are of the last ten seconds. p99: to a factor of two, of single',
    'publishes (not of streams) and of durable writes.',
    'LAG: ids still to be sent. waiting: the client takes nothing, or grants no credit.',
    'Any key goes back.',
  ].map(plain);
}
