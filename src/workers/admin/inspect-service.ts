import { BrokerError } from '../../base/errors.ts';
import { isInScope, isOfSpace, nameOf, type SubjectScope } from '../../base/subject-space.ts';
import { TopK } from '../../base/top-k.ts';
import type { InspectPort } from '../../grpc/admin.ts';
import type { ConnectionNote } from '../../grpc/connection-note.ts';
import type { DeliveryStream } from '../../grpc/delivery-stream.ts';
import {
  type ClientConnection,
  type ListConnectionsRequest,
  type ListConnectionsResponse,
  type ListSubscriptionsRequest,
  type ListSubscriptionsResponse,
  type OpenSubscription,
  SubscriptionOrder,
  type TopSubject,
  type TopSubjectsRequest,
  type TopSubjectsResponse,
} from '../../grpc/gen/broker/v1/inspect.ts';
import { ConsumerReader } from '../front/consumer-reader.ts';
import type { ConsumerStream } from '../front/consumer-stream.ts';
import type { Dispatcher } from '../front/dispatcher.ts';
import type { NodeLoad } from '../slots/advice.ts';
import { learnSettled, type OpenDelivery, type OpenGroup } from './settled-round.ts';
import { SharedAnswers } from './shared-answers.ts';
import { visitInSlices } from './slices.ts';
import { scopeOf, seenRows, tenantOf } from './viewed-subjects.ts';

const ROWS_DEFAULT = 100;
const ROWS_MAX = 1_000;
const SUBJECTS_DEFAULT = 20;
const SUBJECTS_MAX = 100;
const SUBJECT_BYTES_MAX = 255;
/** A client that has taken no byte for so long, in ms, of what waits for it is waited for; sweeps look once a second. */
const STUCK_MS = 1_500;

export type Inspected = Pick<Dispatcher, 'subscriptions' | 'consumers' | 'producers' | 'positions' | 'links'>;

/**
 * What runs on this node just now: subscriptions, connections, subjects. Everything is put together when it is asked for, in slices of the event loop,
 * and whoever asks the same soon after gets the same answer; nothing is done for it per message.
 */
export class InspectService implements InspectPort {
  readonly #dispatcher: Inspected;
  readonly #load: () => Promise<NodeLoad>;
  readonly #connections: () => Iterable<ConnectionNote>;
  readonly #answers = new SharedAnswers();
  readonly #rounds = new SharedAnswers();

  constructor(parts: {
    readonly dispatcher: Inspected;
    /** Of the last seconds. */
    readonly load: () => Promise<NodeLoad>;
    readonly connections: () => Iterable<ConnectionNote>;
  }) {
    this.#dispatcher = parts.dispatcher;
    this.#load = parts.load;
    this.#connections = parts.connections;
  }

  async listSubscriptions(request: ListSubscriptionsRequest, space: Uint8Array): Promise<ListSubscriptionsResponse> {
    const { order, limit, prefix, tenant } = request;
    const scope = scopeOf(space, tenant, prefix);
    if (scope.prefix.length > SUBJECT_BYTES_MAX) throw new BrokerError('SUBJECT_TOO_LONG', 'prefix');
    const rows = rowsOf(limit, ROWS_DEFAULT, ROWS_MAX);
    const question = JSON.stringify(['subscriptions', order, rows, prefix, tenant, tenantOf(space)]);
    return await this.#answers.get(question, () => this.#findSubscriptions(order, rows, scope, space));
  }

  async listConnections({ limit }: ListConnectionsRequest, space: Uint8Array): Promise<ListConnectionsResponse> {
    const rows = rowsOf(limit, ROWS_DEFAULT, ROWS_MAX);
    const tenant = tenantOf(space);
    return await this.#answers.get(`connections ${rows} ${tenant}`, () => this.#findConnections(rows, tenant));
  }

  async topSubjects({ limit }: TopSubjectsRequest, space: Uint8Array): Promise<TopSubjectsResponse> {
    const rows = rowsOf(limit, SUBJECTS_DEFAULT, SUBJECTS_MAX);
    const { subjects } = await this.#answers.get('subjects', async () => ({ subjects: topOf(await this.#load()) }));
    return { subjects: sharesOf(seenRows(subjects, space), space).slice(0, rows) };
  }

  // --- subscriptions ---

  /** Of those that a caller of `space` may see. */
  async #findSubscriptions(
    order: number,
    rows: number,
    scope: SubjectScope,
    space: Uint8Array,
  ): Promise<ListSubscriptionsResponse> {
    const { positions } = this.#dispatcher;
    await this.#rounds.get('settled', () => learnSettled(this.#groups(), this.#dispatcher.links(), positions));
    const first = new TopK<Ranked>(rows, compareBy(order));
    let total = 0;
    let lagMax = 0;
    await visitInSlices(this.#deliveries(), (delivery) => {
      const { subject } = delivery.group;
      if (space.length > 0 && !isOfSpace(subject, space)) return;
      const lag = lagOf(delivery);
      total += 1;
      if (lag > lagMax) lagMax = lag;
      if (!isInScope(subject, 0, subject.length, scope)) return;
      first.offer({ delivery, rank: rankOf(order, delivery, lag) });
    });
    const now = performance.now();
    return { subscriptions: first.sorted().map(({ delivery }) => toRow(delivery, now)), total, lagMax };
  }

  *#groups(): Generator<OpenGroup> {
    yield* this.#dispatcher.subscriptions.groups() as Iterable<OpenGroup>;
    yield* this.#dispatcher.consumers.groups() as Iterable<OpenGroup>;
  }

  *#deliveries(): Generator<OpenDelivery> {
    for (const group of this.#groups()) yield* group.members;
  }

  // --- connections ---

  /** `tenant`: those of others are not told of; '': all are. */
  async #findConnections(rows: number, tenant: string): Promise<ListConnectionsResponse> {
    const busiest = new TopK<{ note: ConnectionNote; bytes: number }>(rows, (a, b) => b.bytes - a.bytes);
    let total = 0;
    await visitInSlices(this.#connections(), (note) => {
      if (tenant !== '' && note.proven !== tenant) return;
      total += 1;
      busiest.offer({ note, bytes: note.bytesIn + note.bytesOut });
    });
    const shown = busiest.sorted().map(({ note }) => note);
    const streams = new Map(shown.map((note) => [note, { publish: 0, subscriptions: 0 }]));
    const ofStream = (out: DeliveryStream) => (out.connection === null ? undefined : streams.get(out.connection));
    await visitInSlices(this.#deliveries(), (delivery) => {
      const counted = ofStream(outOf(delivery));
      if (counted !== undefined) counted.subscriptions += 1;
    });
    await visitInSlices(this.#dispatcher.producers.streams(), ({ out }) => {
      const counted = ofStream(out);
      if (counted !== undefined) counted.publish += 1;
    });
    const now = performance.now();
    return {
      total,
      connections: shown.map((note): ClientConnection => {
        const { publish, subscriptions } = streams.get(note) ?? { publish: 0, subscriptions: 0 };
        return {
          peer: note.peer,
          agent: note.agent,
          tenant: note.tenant,
          openMs: Math.round(now - note.openedAt),
          calls: note.callsOpen < 0 ? publish + subscriptions : note.callsOpen,
          publishStreams: publish,
          subscriptions,
          callsTotal: note.callsTotal,
          bytesIn: note.bytesIn,
          bytesOut: note.bytesOut,
        };
      }),
    };
  }
}

/** What of a subscription decides where it stands in the list, as it was when it was looked at. */
interface Ranked {
  readonly delivery: OpenDelivery;
  readonly rank: number;
}

function rowsOf(limit: number, byDefault: number, max: number): number {
  return Math.min(max, limit === 0 ? byDefault : limit);
}

/** The largest rank first, equal ones by subject. */
function compareBy(order: number): (a: Ranked, b: Ranked) => number {
  const bySubject = (a: Ranked, b: Ranked): number =>
    Buffer.compare(a.delivery.group.subject, b.delivery.group.subject) || a.delivery.id - b.delivery.id;
  return order === SubscriptionOrder.SUBSCRIPTION_ORDER_SUBJECT
    ? bySubject
    : (a, b) => b.rank - a.rank || bySubject(a, b);
}

function rankOf(order: number, delivery: OpenDelivery, lag: number): number {
  switch (order) {
    case SubscriptionOrder.SUBSCRIPTION_ORDER_MESSAGES:
      return delivery.messages;
    case SubscriptionOrder.SUBSCRIPTION_ORDER_UNSENT:
      return outOf(delivery).unsentBytes;
    case SubscriptionOrder.SUBSCRIPTION_ORDER_AGE:
      return -delivery.openedAt;
    default:
      return lag;
  }
}

function outOf({ stream }: OpenDelivery): DeliveryStream {
  return 'out' in stream ? (stream as ConsumerStream).out : (stream as DeliveryStream);
}

/** The id up to which it has had everything. */
function sentOf({ window }: OpenDelivery): number {
  return window === null ? 0 : window.next - 1;
}

function lagOf(delivery: OpenDelivery): number {
  return delivery.window === null ? 0 : Math.max(0, delivery.group.settled - sentOf(delivery));
}

function toRow(delivery: OpenDelivery, now: number): OpenSubscription {
  const { group, messages, bytes } = delivery;
  const isConsume = delivery instanceof ConsumerReader;
  const out = outOf(delivery);
  const sent = sentOf(delivery);
  const { tenant, subject } = nameOf(group.subject);
  return {
    id: isConsume ? delivery.stream.id : delivery.id,
    kind: isConsume ? 'consume' : 'subscribe',
    subject,
    pattern: isConsume && delivery.pattern !== null ? Buffer.from(delivery.pattern.bytes).toString() : '',
    peer: out.connection?.peer ?? '',
    space: tenant,
    tenant: tenant === '' ? (out.connection?.tenant ?? '') : tenant,
    sent,
    settled: Math.max(0, group.settled),
    lag: lagOf(delivery),
    state: stateOf(delivery, out, now),
    messages,
    bytes,
    unsentBytes: out.unsentBytes,
    openMs: Math.round(now - delivery.openedAt),
  };
}

function stateOf(delivery: OpenDelivery, out: DeliveryStream, now: number): string {
  const { window } = delivery;
  if (window === null) return 'starting';
  const watched = delivery instanceof ConsumerReader ? delivery.stream : delivery;
  const isStuck = out.unsentBytes > 0 && now - watched.movedAt > STUCK_MS;
  const isSpent = delivery instanceof ConsumerReader && delivery.stream.isPaused;
  if (window.paused || isStuck || isSpent) return 'waiting';
  return delivery.isReading && lagOf(delivery) > 0 ? 'catch-up' : 'tail';
}

/** To who is in a space, shares of what they see: one of all would tell how much others publish. */
function sharesOf(subjects: readonly TopSubject[], space: Uint8Array): readonly TopSubject[] {
  if (space.length === 0) return subjects;
  const all = subjects.reduce((sum, { messagesPerSecond }) => sum + messagesPerSecond, 0);
  return subjects.map((row) => ({ ...row, share: row.messagesPerSecond / all }));
}

/** Those of all shards, the busiest first. */
function topOf({ shards }: NodeLoad): TopSubject[] {
  const all = shards.reduce((sum, { messagesPerSecond }) => sum + messagesPerSecond, 0);
  const subjects = shards.flatMap(({ shard, messagesPerSecond: ofShard, hotSubjects }) =>
    hotSubjects.map(({ tenant, subject, share }) => ({
      tenant,
      subject,
      shard,
      messagesPerSecond: share * ofShard,
      share: all > 0 ? (share * ofShard) / all : 0,
    })),
  );
  return subjects
    .filter(({ messagesPerSecond }) => messagesPerSecond > 0)
    .sort((a, b) => b.messagesPerSecond - a.messagesPerSecond)
    .slice(0, SUBJECTS_MAX);
}
