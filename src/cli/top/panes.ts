/** What `broker top` shows: four lists, their columns, and what they can be sorted by. */

import { shownName } from '../../base/subject-space.ts';
import type { NodeStatus } from '../../client/index.ts';
import type { ClientConnection, OpenSubscription, TopSubject } from '../../grpc/gen/broker/v1/inspect.ts';
import type { ShardRow } from '../connection.ts';
import type { Row } from '../output.ts';
import { ageOf, bytesOf, compact, millis, percent, safe } from './text.ts';

export const PANES = ['shards', 'subjects', 'subscriptions', 'connections'] as const;
export type PaneName = (typeof PANES)[number];

/** What one look at a node has found; of panes that were not asked for, what was found last, or nothing. */
export interface Lists {
  /** ms since 1970 */
  readonly at: number;
  readonly rows: Readonly<Record<PaneName, readonly Row[]>>;
  /** On the node, shown or not. */
  readonly totals: Readonly<Record<PaneName, number>>;
  readonly lagMax: number;
  /** A change of the shards that is under way, in words; ''. */
  readonly change: string;
}

export interface Sample extends Lists {
  readonly status: NodeStatus;
}

export interface Column {
  /** Of the row, and what it is sorted by. */
  readonly key: string;
  readonly title: string;
  /** In columns of the terminal; 0: what is left. */
  readonly width: number;
  readonly show?: (value: number) => string;
  /** Only where some row has something there. */
  readonly isOptional?: true;
}

export interface Pane {
  readonly columns: readonly Column[];
  /** The first one unless another is asked for. */
  readonly sortKeys: readonly string[];
  /** What the filter is compared with. */
  readonly named: string;
}

const count = (value: number): string => compact(value);

export const PANE: Readonly<Record<PaneName, Pane>> = {
  shards: {
    columns: [
      { key: 'shard', title: 'SHARD', width: 5 },
      { key: 'slots', title: 'SLOTS', width: 5 },
      { key: 'busy', title: 'BUSY', width: 4, show: percent },
      { key: 'store_busy', title: 'STORE', width: 5, show: percent },
      { key: 'messages_s', title: 'MSG/S', width: 6, show: count },
      { key: 'bytes_s', title: 'BYTES/S', width: 8, show: bytesOf },
      { key: 'wait_ms', title: 'WAIT', width: 5, show: millis },
      { key: 'write_ms', title: 'WRITE', width: 5, show: millis },
      { key: 'group', title: 'GROUP', width: 5, show: count },
      { key: 'hot', title: 'HOTTEST', width: 0 },
    ],
    sortKeys: ['shard', 'busy', 'store_busy', 'messages_s', 'bytes_s', 'wait_ms', 'write_ms'],
    named: 'shard',
  },
  subjects: {
    columns: [
      { key: 'subject', title: 'SUBJECT', width: 0 },
      { key: 'messages_s', title: 'MSG/S', width: 7, show: count },
      { key: 'share', title: 'SHARE', width: 5, show: percent },
      { key: 'shard', title: 'SHARD', width: 5 },
      { key: 'tenant', title: 'TENANT', width: 12, isOptional: true },
    ],
    sortKeys: ['messages_s', 'subject', 'shard'],
    named: 'subject',
  },
  subscriptions: {
    columns: [
      { key: 'lag', title: 'LAG', width: 6, show: count },
      { key: 'state', title: 'STATE', width: 8 },
      { key: 'subject', title: 'SUBJECT', width: 0 },
      { key: 'sent', title: 'SENT', width: 6, show: count },
      { key: 'messages', title: 'MSGS', width: 6, show: count },
      { key: 'unsent', title: 'UNSENT', width: 7, show: bytesOf },
      { key: 'age_s', title: 'AGE', width: 6, show: (seconds) => ageOf(seconds * 1_000) },
      { key: 'peer', title: 'CLIENT', width: 21 },
      { key: 'kind', title: 'CALL', width: 9 },
      { key: 'tenant', title: 'TENANT', width: 12 },
    ],
    sortKeys: ['lag', 'messages', 'unsent', 'age_s', 'subject'],
    named: 'subject',
  },
  connections: {
    columns: [
      { key: 'peer', title: 'CLIENT', width: 21 },
      { key: 'bytes_in', title: 'IN', width: 7, show: bytesOf },
      { key: 'bytes_out', title: 'OUT', width: 7, show: bytesOf },
      { key: 'calls', title: 'OPEN', width: 5, show: count },
      { key: 'publish', title: 'PUBL', width: 4, show: count },
      { key: 'subscriptions', title: 'SUBS', width: 5, show: count },
      { key: 'calls_total', title: 'CALLS', width: 6, show: count },
      { key: 'age_s', title: 'AGE', width: 6, show: (seconds) => ageOf(seconds * 1_000) },
      { key: 'agent', title: 'AGENT', width: 0 },
      { key: 'tenant', title: 'TENANT', width: 12 },
    ],
    sortKeys: ['bytes', 'bytes_in', 'bytes_out', 'calls', 'subscriptions', 'age_s', 'peer'],
    named: 'peer',
  },
};

export function shardRow(shard: ShardRow): Row {
  const hottest = shard.hotSubjects[0];
  return {
    shard: shard.shard,
    slots: shard.slots,
    busy: rounded(shard.utilization),
    store_busy: rounded(shard.storeBusy),
    messages_s: rounded(shard.messagesPerSecond),
    bytes_s: Math.round(shard.bytesPerSecond),
    wait_ms: rounded(shard.queueWaitMs),
    write_ms: rounded(shard.storeWriteMs),
    group: rounded(shard.groupMessages),
    hot: shard.serving
      ? hottest === undefined
        ? ''
        : `${percent(hottest.share)} ${safe(shownName(hottest))}`
      : '(being replaced)',
  };
}

export function subjectRow({ tenant, subject, messagesPerSecond, share, shard }: TopSubject): Row {
  return {
    subject: safe(subject),
    tenant: safe(tenant),
    messages_s: rounded(messagesPerSecond),
    share: rounded(share),
    shard,
  };
}

export function subscriptionRow(row: OpenSubscription): Row {
  return {
    lag: row.lag,
    state: row.state,
    subject: safe(shownName({ tenant: row.space, subject: row.subject })),
    sent: row.sent,
    settled: row.settled,
    messages: row.messages,
    bytes: row.bytes,
    unsent: row.unsentBytes,
    age_s: Math.round(row.openMs / 1_000),
    peer: row.peer,
    kind: row.kind,
    tenant: safe(row.tenant),
    pattern: safe(row.pattern),
    id: row.id,
  };
}

export function connectionRow(row: ClientConnection): Row {
  return {
    peer: row.peer,
    bytes: row.bytesIn + row.bytesOut,
    bytes_in: row.bytesIn,
    bytes_out: row.bytesOut,
    calls: row.calls,
    publish: row.publishStreams,
    subscriptions: row.subscriptions,
    calls_total: row.callsTotal,
    age_s: Math.round(row.openMs / 1_000),
    agent: safe(row.agent),
    tenant: safe(row.tenant),
  };
}

/** Numbers fall, names and numbers of shards rise, unless the order is turned round. */
export function sorted(rows: readonly Row[], key: string, isReversed: boolean): Row[] {
  const rises = key === 'shard' || key === 'subject' || key === 'peer';
  const sign = rises !== isReversed ? 1 : -1;
  return [...rows].sort((a, b) => sign * compareCells(a[key] ?? 0, b[key] ?? 0));
}

function compareCells(a: string | number | boolean, b: string | number | boolean): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
