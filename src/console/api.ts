/** The JSON API of the console: one request carries what one page shows. */
import { BrokerError } from '../base/errors.ts';
import { NO_SPACE } from '../base/subject-space.ts';
import type { StatusResponse } from '../grpc/gen/broker/v1/admin.ts';
import { SubscriptionOrder } from '../grpc/gen/broker/v1/inspect.ts';
import { makeStatus } from '../grpc/status.ts';
import { type AdminPage, json } from '../telemetry/admin-http.ts';
import { isBound } from './bound.ts';
import { MessageReader } from './message-reader.ts';
import type { ConsoleCaller, ConsoleOptions, ConsoleSources } from './ports.ts';
import { Query } from './query.ts';
import { RequestError } from './refusal.ts';

/** Subscriptions, connections and tenants of a page. */
const ROWS_MAX = 200;
const SUBJECTS_PAGE = 100;
const TOP_SUBJECTS = 10;
const MESSAGES_MAX = 50;
const MESSAGES_DEFAULT = 20;
/** Shown of a body in a list, and of one message alone. */
const PREVIEW_BYTES = 256;
const BODY_BYTES_SHOWN = 256 * 1024;
const MEMBERS_MS = 2_000;
const TIME_MAX = 8_640_000_000_000_000;

/** As the query names them, in the order of the menu. */
const ORDERS = {
  lag: SubscriptionOrder.SUBSCRIPTION_ORDER_UNSPECIFIED,
  messages: SubscriptionOrder.SUBSCRIPTION_ORDER_MESSAGES,
  unsent: SubscriptionOrder.SUBSCRIPTION_ORDER_UNSENT,
  age: SubscriptionOrder.SUBSCRIPTION_ORDER_AGE,
  subject: SubscriptionOrder.SUBSCRIPTION_ORDER_SUBJECT,
} as const;

/** What concerns the whole node: not for who is in the space of a tenant. In the order of the menu. */
const OF_NODE: readonly string[] = ['overview', 'nodes', 'shards', 'settings'];

type Handler = (
  sources: ConsoleSources,
  query: URLSearchParams,
  caller: ConsoleCaller | null,
  peer: string,
) => Promise<unknown>;

/** GET of a path below /api/v1. */
export class ConsoleApi {
  readonly #options: ConsoleOptions;
  readonly #handlers: ReadonlyMap<string, Handler>;

  constructor(options: ConsoleOptions) {
    this.#options = options;
    this.#handlers = new Map<string, Handler>([
      ['overview', (sources, query) => this.#overview(sources, query)],
      ['nodes', (sources, query) => this.#nodes(sources, query)],
      ['shards', (sources, query) => this.#shards(sources, query)],
      ['subjects', (sources, query, caller) => this.#subjects(sources, query, spaceOf(caller))],
      ['subject', (sources, query, caller) => this.#subject(sources, query, spaceOf(caller))],
      ['messages', (sources, query, caller, peer) => this.#messages(sources, query, caller, peer)],
      ['subscriptions', (sources, query, caller) => this.#subscriptions(sources, query, spaceOf(caller))],
      ['connections', (sources, query, caller) => this.#connections(sources, query, spaceOf(caller))],
      ['tenants', (sources, query, caller) => this.#tenants(sources, query, spaceOf(caller))],
      ['settings', (sources, query) => this.#settings(sources, query)],
    ]);
  }

  knows(name: string): boolean {
    return this.#handlers.has(name);
  }

  /** Names of what this node does not tell, or not to `caller`. */
  missing({ inspect, tenants, settings }: ConsoleSources, caller: ConsoleCaller | null): string[] {
    return [
      ...(isBound(caller) ? OF_NODE : []),
      ...(inspect === null ? ['subscriptions', 'connections'] : []),
      ...(tenants === null ? ['tenants'] : []),
      ...(settings === null && !isBound(caller) ? ['settings'] : []),
    ];
  }

  /** `name`: one that it knows. `caller`: who is logged in; null where nobody has to be. `peer`: HOST:PORT of who asks. */
  async answer(
    name: string,
    sources: ConsoleSources,
    query: URLSearchParams,
    caller: ConsoleCaller | null,
    peer: string,
  ): Promise<AdminPage> {
    if (isBound(caller) && OF_NODE.includes(name)) throw new BrokerError('TENANT_BOUND');
    const answer = (await this.#handlers.get(name)?.(sources, query, caller, peer)) as object;
    return json(200, { now: this.#options.now(), node: sources.name, ...answer });
  }

  async #overview(sources: ConsoleSources, query: URLSearchParams): Promise<unknown> {
    new Query(query, []);
    const [status, shards, top] = await Promise.all([
      sources.node.status(),
      sources.node.listShards(),
      sources.inspect?.topSubjects({ limit: TOP_SUBJECTS }, NO_SPACE) ?? null,
    ]);
    return {
      status,
      delivered: sources.delivered(),
      shards: shards.shards.map(({ shard, messagesPerSecond, bytesPerSecond, utilization, storeBusy }) => {
        return { shard, messagesPerSecond, bytesPerSecond, utilization, storeBusy };
      }),
      top: top?.subjects ?? null,
    };
  }

  async #nodes({ node, members }: ConsoleSources, query: URLSearchParams): Promise<unknown> {
    new Query(query, []);
    const context = { isForwarded: false, deadlineMs: this.#options.now() + MEMBERS_MS };
    const [cluster, status] = await Promise.all([members.members(context), node.status()]);
    return { cluster, status: briefly(status) };
  }

  async #shards({ node }: ConsoleSources, query: URLSearchParams): Promise<unknown> {
    new Query(query, []);
    const [{ shards, shardsMax, epoch, auto, change }, { measured: _, ...advice }] = await Promise.all([
      node.listShards(),
      node.adviseShards(),
    ]);
    return { shards, shardsMax, epoch, auto, change, advice };
  }

  async #subjects({ node }: ConsoleSources, parameters: URLSearchParams, space: Uint8Array): Promise<unknown> {
    const query = new Query(parameters, ['prefix', 'page', 'tenant']);
    const request = {
      prefix: query.text('prefix'),
      pageToken: query.text('page'),
      pageSize: SUBJECTS_PAGE,
      tenant: query.text('tenant'),
    };
    const { subjects, nextPageToken } = await node.listSubjects(request, space);
    return { subjects, next: nextPageToken };
  }

  async #subject({ node }: ConsoleSources, parameters: URLSearchParams, space: Uint8Array): Promise<unknown> {
    const query = new Query(parameters, ['name', 'tenant']);
    const request = { subject: query.text('name'), tenant: query.text('tenant') };
    return { ...(await node.subjectInfo(request, space)) };
  }

  async #messages(
    sources: ConsoleSources,
    parameters: URLSearchParams,
    caller: ConsoleCaller | null,
    peer: string,
  ): Promise<unknown> {
    const query = new Query(parameters, ['subject', 'tenant', 'id', 'time', 'limit']);
    const name = query.text('subject');
    const tenant = query.text('tenant') || tenantOf(caller);
    const refusal = caller?.fetchRefusal(name, tenant, peer) ?? null;
    // As a status: it is written down already.
    if (refusal !== null) throw makeStatus(refusal, '');
    if (query.has('id') && query.has('time')) throw new RequestError(400, 'both id and time', 'give one of them');
    const limit = query.number('limit', { min: 1, max: MESSAGES_MAX, absent: MESSAGES_DEFAULT });
    const id = query.number('id', { min: 1, max: Number.MAX_SAFE_INTEGER, absent: 0 });
    const time = query.number('time', { min: 0, max: TIME_MAX, absent: -1 });
    const { subject } = await sources.node.subjectInfo({ subject: name, tenant }, spaceOf(caller));
    const { first, head, settled } = subject ?? { first: 1, head: 0, settled: 0 };
    const reader = new MessageReader(sources.messages, tenant, this.#options.now);
    const newest = Math.max(first, head - limit + 1);
    const from = time >= 0 ? await reader.firstAt(name, time, { first, settled }) : id > 0 ? id : newest;
    // One id that is asked for is shown whatever it is; a list ends with the newest.
    const to = limit === 1 ? from : Math.min(head, from + limit - 1);
    const bodyBytes = limit === 1 ? BODY_BYTES_SHOWN : PREVIEW_BYTES;
    const messages = await reader.read(name, { from, to }, bodyBytes);
    return { subject: { name, tenant, first, head, settled }, from, messages };
  }

  async #subscriptions({ inspect }: ConsoleSources, parameters: URLSearchParams, space: Uint8Array): Promise<unknown> {
    const query = new Query(parameters, ['order', 'prefix', 'tenant']);
    const order = ORDERS[query.choice('order', Object.keys(ORDERS) as (keyof typeof ORDERS)[])];
    const request = { order, limit: ROWS_MAX, prefix: query.text('prefix'), tenant: query.text('tenant') };
    return { ...(await given(inspect).listSubscriptions(request, space)) };
  }

  async #connections({ inspect }: ConsoleSources, query: URLSearchParams, space: Uint8Array): Promise<unknown> {
    new Query(query, []);
    return { ...(await given(inspect).listConnections({ limit: ROWS_MAX }, space)) };
  }

  async #tenants({ tenants }: ConsoleSources, query: URLSearchParams, space: Uint8Array): Promise<unknown> {
    new Query(query, []);
    return { ...given(tenants).listTenants(ROWS_MAX, space) };
  }

  async #settings({ settings }: ConsoleSources, query: URLSearchParams): Promise<unknown> {
    new Query(query, []);
    return { settings: given(settings).listSettings() };
  }
}

/** What the page of the cluster shows of the node that answers. */
function briefly({ nodeId, cluster, role, leader, version, store, durability }: StatusResponse): object {
  return { nodeId, cluster, role, leader, version, store, durability };
}

function given<Port>(port: Port | null): Port {
  if (port === null) throw new RequestError(501, 'this node does not tell that', 'upgrade it');
  return port;
}

/** What is shown to whoever is logged in; everything where nobody has to be. */
function spaceOf(caller: ConsoleCaller | null): Uint8Array {
  return caller?.space ?? NO_SPACE;
}

/** Whose subjects are meant where none is named: '' for those without a space. */
function tenantOf(caller: ConsoleCaller | null): string {
  return caller !== null && isBound(caller) ? caller.tenant : '';
}
