/** One look at a node: what the panes show, asked for in a few calls. */
import { SubscriptionOrder } from '../../grpc/gen/broker/v1/inspect.ts';
import type { Connection } from '../connection.ts';
import type { Row } from '../output.ts';
import {
  connectionRow,
  type Lists,
  type PaneName,
  type Sample,
  shardRow,
  subjectRow,
  subscriptionRow,
} from './panes.ts';
import { counted } from './text.ts';

export interface Wanted {
  /** The others keep what the look before has found. */
  readonly panes: readonly PaneName[];
  /** A key of the pane of subscriptions. */
  readonly sort: string;
  readonly limit: number;
  readonly prefix: string;
}

const ORDERS: Readonly<Record<string, SubscriptionOrder>> = {
  lag: SubscriptionOrder.SUBSCRIPTION_ORDER_UNSPECIFIED,
  messages: SubscriptionOrder.SUBSCRIPTION_ORDER_MESSAGES,
  unsent: SubscriptionOrder.SUBSCRIPTION_ORDER_UNSENT,
  age_s: SubscriptionOrder.SUBSCRIPTION_ORDER_AGE,
  subject: SubscriptionOrder.SUBSCRIPTION_ORDER_SUBJECT,
};

interface Found {
  readonly rows: readonly Row[];
  readonly total: number;
  readonly lagMax?: number;
  readonly change?: string;
}

export async function takeSample(
  connection: Connection,
  wanted: Wanted,
  before: Sample | null,
  now: () => number,
): Promise<Sample> {
  const [status, lists] = await Promise.all([connection.status(), takeLists(connection, wanted, before, now)]);
  return { status, ...lists };
}

/** Without the node itself, of which not everybody is told who may see a list. */
export async function takeLists(
  connection: Connection,
  wanted: Wanted,
  before: Lists | null,
  now: () => number,
): Promise<Lists> {
  const found = await Promise.all(wanted.panes.map((pane) => find(connection, pane, wanted)));
  const rows = before === null ? { shards: [], subjects: [], subscriptions: [], connections: [] } : { ...before.rows };
  const totals = before === null ? { shards: 0, subjects: 0, subscriptions: 0, connections: 0 } : { ...before.totals };
  let { lagMax, change } = before ?? { lagMax: 0, change: '' };
  wanted.panes.forEach((pane, i) => {
    const answer = found[i] as Found;
    rows[pane] = answer.rows;
    totals[pane] = answer.total;
    lagMax = answer.lagMax ?? lagMax;
    change = answer.change ?? change;
  });
  return { at: now(), rows, totals, lagMax, change };
}

async function find(connection: Connection, pane: PaneName, { sort, limit, prefix }: Wanted): Promise<Found> {
  switch (pane) {
    case 'shards': {
      const { shards, change } = await connection.listShards();
      const told = change.running
        ? `${change.what}: ${change.slotsMoved} of ${counted(change.slotsTotal, 'slot')} moved`
        : '';
      return { rows: shards.map(shardRow), total: shards.length, change: told };
    }
    case 'subjects': {
      const { subjects } = await connection.topSubjects(Math.min(limit, 100));
      return { rows: subjects.map(subjectRow), total: subjects.length };
    }
    case 'subscriptions': {
      const order = ORDERS[sort] ?? SubscriptionOrder.SUBSCRIPTION_ORDER_UNSPECIFIED;
      const { subscriptions, total, lagMax } = await connection.subscriptions({ order, limit, prefix });
      return { rows: subscriptions.map(subscriptionRow), total, lagMax };
    }
    case 'connections': {
      const { connections, total } = await connection.connections(limit);
      return { rows: connections.map(connectionRow), total };
    }
  }
}
