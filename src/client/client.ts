/** The client: one object for all that a program does with a broker or a cluster of them. */
import type { ChannelCredentials } from '@grpc/grpc-js';
import { isTenant } from '../base/subject-space.ts';
import {
  AdminService,
  AdviseShardsRequest,
  AdviseShardsResponse,
  ListShardsRequest,
  ListShardsResponse,
  ListSubjectsRequest,
  ListSubjectsResponse,
  MoveSlotRequest,
  MoveSlotResponse,
  ResizeShardsRequest,
  ResizeShardsResponse,
  type ShardsChange,
  StatusRequest,
  StatusResponse,
  type Subject,
  SubjectInfoRequest,
  SubjectInfoResponse,
  TrimSubjectRequest,
  TrimSubjectResponse,
} from '../grpc/gen/broker/v1/admin.ts';
import {
  AddRequest,
  ChangeResponse,
  GossipKeysRequest,
  GossipKeysResponse,
  type Member,
  MembersRequest,
  MembersResponse,
  PromoteRequest,
  RemoveRequest,
  TransferLeaderRequest,
} from '../grpc/gen/broker/v1/cluster.ts';
import {
  ChangeSettingRequest,
  ChangeSettingResponse,
  DebugInfoPart,
  DebugInfoRequest,
  ListConnectionsRequest,
  ListConnectionsResponse,
  ListSettingsRequest,
  ListSettingsResponse,
  ListSubscriptionsRequest,
  ListSubscriptionsResponse,
  ListTenantsRequest,
  ListTenantsResponse,
  type Setting,
  type SubscriptionOrder,
  TopSubjectsRequest,
  TopSubjectsResponse,
  VerifyProgress,
  VerifyRequest,
} from '../grpc/gen/broker/v1/inspect.ts';
import { readAddress, tlsWanted } from './addresses.ts';
import { type CallOptions, type CallStats, Calls, type Effect } from './calls.ts';
import {
  decodeMessage,
  decodeNumber,
  encodeFetch,
  encodeHealthCheck,
  encodeIncrementId,
  encodePublish,
} from './codec.ts';
import { type EndpointOptions, Endpoints, insecure } from './endpoints.ts';
import { ClientError, closedError } from './errors.ts';
import { type Body, checkBody, type HeadersInput, listHeaders, type Message } from './message.ts';
import { Publisher, type PublisherOptions } from './publisher.ts';
import { serverStream } from './server-stream.ts';
import type { SubscribeOptions } from './subscribe-options.ts';
import { Subscription } from './subscription.ts';
import { type TlsOptions, tlsCredentials } from './tls.ts';
import { Token, type TokenSource } from './token.ts';

export interface ConnectOptions {
  /** Longest wait for the answer of a call, in ms, over all its tries. Default 10,000. */
  readonly timeoutMs?: number;
  /** Whether refusals that may pass are tried again, within a budget. Default true. */
  readonly retries?: boolean;
  /** Calls fail at once while no address answers, instead of waiting for one within their time. Default false. */
  readonly failFast?: boolean;
  /** Whose calls these are, for the broker's quotas: 1 to 64 letters, digits, ".", "_" and "-". Default: the broker's, `default`. */
  readonly tenant?: string | undefined;
  /**
   * Bearer token that says who calls. A function is asked for each connection that is made, and again when the broker takes the token no more. Without
   * `tls` it can be read on the way.
   */
  readonly token?: TokenSource | undefined;
  /** Encrypts; `true`: with what Node knows. Default: as the addresses say (https://, grpcs://), else clear text. */
  readonly tls?: TlsOptions | boolean | undefined;
  /** Of gRPC, in place of `tls`. */
  readonly credentials?: ChannelCredentials;
}

export interface PublishOptions extends CallOptions {
  readonly headers?: HeadersInput | undefined;
  /** Whole seconds after which the message is gone; 0 or none: never. */
  readonly expirationSeconds?: number | undefined;
  /**
   * Stored once however often it is sent: the same id and sequence (from 1, one higher with every call) name the same message, in this
   * process and in the next. With it the call is also retried when its outcome is unknown.
   */
  readonly producer?: { readonly id: string; readonly sequence: number } | undefined;
}

/** Of which tenant, for callers who see more than one; absent: the caller's own, or all. */
export interface TenantOptions extends CallOptions {
  readonly tenant?: string | undefined;
}

export interface SubjectInfo {
  readonly subject: string;
  /** In whose space it is; '': in none. */
  readonly tenant: string;
  /** Lowest id that may still be there. */
  readonly first: number;
  /** Up to here every id is a message or a void. */
  readonly settled: number;
  /** Last id given. */
  readonly head: number;
}

/** What a broker says of itself; the fields are those of StatusResponse in proto/broker/v1/admin.proto. */
export type NodeStatus = Readonly<StatusResponse>;

/** A setting of a node; the fields are those of Setting in proto/broker/v1/inspect.proto. */
export type NodeSetting = Readonly<Setting>;

/** Methods of the service Admin that show something and need no input. */
export type InspectMethod = 'listShards' | 'listSubscriptions' | 'listConnections' | 'topSubjects' | 'listTenants';

/** A thread that hangs is waited for, and then said to hang. */
const DEBUG_TIMEOUT_MS = 60_000;

/** What a server answers of its health, by its number (`ServingStatus` of grpc.health.v1). */
const HEALTH = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const;
export type HealthStatus = (typeof HEALTH)[number];

/** One node of a cluster; the fields are those of Member in proto/broker/v1/cluster.proto. */
export type ClusterMember = Readonly<Member>;

/** Who is in the cluster and who leads, as one node knows it; the fields are those of MembersResponse. */
export type ClusterMembers = Readonly<MembersResponse>;
export interface SubscriptionsRequest {
  readonly order?: SubscriptionOrder;
  /** 0: a hundred. */
  readonly limit?: number;
  readonly prefix?: string;
  readonly tenant?: string;
}
export type OpenSubscriptions = Readonly<ListSubscriptionsResponse>;
export type OpenConnections = Readonly<ListConnectionsResponse>;
export type TopSubjects = Readonly<TopSubjectsResponse>;
export type GossipKeys = Readonly<GossipKeysResponse>;

/** Tenants of a node, what they use, and the quotas; the fields are those of ListTenantsResponse in proto/broker/v1/inspect.proto. */
export type Tenants = Readonly<ListTenantsResponse>;

/** The members behind a change. */
export type ClusterChange = Readonly<ChangeResponse>;

/** How a verification goes; the fields are those of VerifyProgress in proto/broker/v1/inspect.proto. */
export type Verification = Readonly<VerifyProgress>;

export const ADDRESS_DEFAULT = '127.0.0.1:8081';

/**
 * Nothing is sent before the first call. Several addresses are nodes of one cluster, any of which takes any call: the client moves on to the next
 * when one does not answer or is shutting down.
 */
export function connect(addresses: string | readonly string[] = ADDRESS_DEFAULT, options: ConnectOptions = {}): Client {
  return new Client(typeof addresses === 'string' ? [addresses] : [...addresses], options);
}

export class Client {
  readonly #addresses: readonly string[];
  readonly #endpointOptions: EndpointOptions;
  readonly #endpoints: Endpoints;
  readonly #calls: Calls;
  readonly #open = new Set<{ close(options?: Pick<CallOptions, 'signal'>): Promise<void> }>();
  /** Of the first call of `close`; null until then. */
  #closing: Promise<void> | null = null;

  /** Made by `connect`. */
  constructor(addresses: readonly string[], options: ConnectOptions) {
    if (addresses.length === 0) throw new RangeError('connect takes at least one address');
    const { tenant } = options;
    if (tenant !== undefined && !isTenant(tenant))
      throw new RangeError('tenant: 1 to 64 letters, digits, ".", "_" and "-"');
    const written = addresses.map(readAddress);
    this.#addresses = written.map(({ address }) => address);
    if (this.#addresses.includes('')) throw new RangeError('an address is HOST:PORT');
    const tls = tlsOf(options, tlsWanted(written));
    this.#endpointOptions = {
      credentials: options.credentials ?? tls ?? insecure(),
      failures: tls,
      failFast: options.failFast ?? false,
      tenant: options.tenant,
      token: options.token === undefined ? null : new Token(options.token),
      random: Math.random,
    };
    this.#endpoints = new Endpoints(
      this.#addresses,
      this.#endpointOptions,
      Math.floor(Math.random() * addresses.length),
    );
    this.#calls = new Calls(this.#endpoints, {
      timeoutMs: options.timeoutMs ?? 10_000,
      retries: options.retries ?? true,
      random: Math.random,
    });
  }

  /** Of the single calls: how many were made, and how often something was sent for them. */
  get stats(): Readonly<CallStats> {
    return this.#calls.stats;
  }

  /** Resolves with the id once the message is durable. For more than some hundred a second see `publisher`. */
  async publish(subject: string, body: Body, options: PublishOptions = {}): Promise<number> {
    const producer = options.producer ?? null;
    const request = encodePublish({ ...this.#fields(subject, body, options), producer });
    return decodeNumber(
      await this.#call('/broker.Broker/Publish', request, options, producer === null ? 'each-time' : 'once'),
    );
  }

  /** To the subscribers of this moment, once each: not stored, without an id, best effort. */
  async broadcast(subject: string, body: Body, options: Omit<PublishOptions, 'producer'> = {}): Promise<void> {
    const request = encodePublish({ ...this.#fields(subject, body, options), producer: null });
    await this.#call('/broker.Broker/Broadcast', request, options, 'each-time');
  }

  /** One stored message. */
  async fetch(subject: string, id: number, options: CallOptions = {}): Promise<Message> {
    return decodeMessage(await this.#call('/broker.Broker/Fetch', encodeFetch(subject, id), options, 'none'));
  }

  /** Takes the next id of the subject without a message; that id. */
  async incrementId(subject: string, options: CallOptions = {}): Promise<number> {
    return decodeNumber(await this.#call('/broker.Broker/IncIdx', encodeIncrementId(subject), options, 'each-time'));
  }

  /** Streams batches of messages, with order per subject, back-pressure, and repeats that are stored once. */
  publisher(options: PublisherOptions = {}): Publisher {
    this.#checkOpen();
    const publisher = new Publisher(this.#addresses, this.#endpointOptions, options);
    this.#open.add(publisher);
    void publisher.closed.then(() => this.#open.delete(publisher));
    return publisher;
  }

  /**
   * Messages in the order of their ids, each once, over reconnections and failures of nodes. `subjects`: names, or patterns, in which `*`
   * stands for one token and `>` at the end for one or more.
   */
  subscribe(subjects: string | readonly string[], options: SubscribeOptions = {}): Subscription {
    this.#checkOpen();
    const list = typeof subjects === 'string' ? [subjects] : [...subjects];
    const subscription = new Subscription(this.#endpoints, list, options, (name, signal) => this.#headOf(name, signal));
    this.#open.add(subscription);
    void subscription.closed.then(() => this.#open.delete(subscription));
    return subscription;
  }

  async status(options: CallOptions = {}): Promise<NodeStatus> {
    return StatusResponse.decode(await this.#admin('Status', StatusRequest.encode({}), options));
  }

  /** The standard health check of gRPC: of one service such as `broker.Broker`, or of the whole server. RefusedError if it has no such service. */
  async health(service = '', options: CallOptions = {}): Promise<HealthStatus> {
    const answer = await this.#call('/grpc.health.v1.Health/Check', encodeHealthCheck(service), options, 'none');
    return HEALTH[decodeNumber(answer)] ?? 'UNKNOWN';
  }

  /** Subjects whose name begins with `prefix`, page by page, in the broker's order. */
  async *subjects(prefix = '', options: TenantOptions = {}): AsyncGenerator<SubjectInfo> {
    let pageToken = '';
    do {
      const request = ListSubjectsRequest.encode({ prefix, pageToken, pageSize: 0, tenant: options.tenant ?? '' });
      const page = ListSubjectsResponse.decode(await this.#admin('ListSubjects', request, options));
      for (const subject of page.subjects) yield infoOf(subject);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  async subject(name: string, options: TenantOptions = {}): Promise<SubjectInfo> {
    const request = SubjectInfoRequest.encode({ subject: name, tenant: options.tenant ?? '' });
    const { subject } = SubjectInfoResponse.decode(await this.#admin('SubjectInfo', request, options));
    return infoOf(subject ?? { name, first: 0, head: 0, settled: 0, tenant: '' });
  }

  /** Gives up all messages of the subject below `first`, for ever; its first id afterwards. */
  async trim(name: string, first: number, options: TenantOptions = {}): Promise<number> {
    const request = TrimSubjectRequest.encode({ subject: name, first, tenant: options.tenant ?? '' });
    return TrimSubjectResponse.decode(await this.#admin('TrimSubject', request, options)).first;
  }

  /** The shards of the node that answers, and how a change of them goes. */
  async shards(options: CallOptions = {}): Promise<Readonly<ListShardsResponse>> {
    return ListShardsResponse.decode(await this.#admin('ListShards', ListShardsRequest.encode({}), options));
  }

  /** Begins a change of their number; `shards` shows how it goes. */
  async resizeShards(shards: number, options: CallOptions = {}): Promise<Readonly<ShardsChange>> {
    const request = ResizeShardsRequest.encode({ shards });
    const { change } = ResizeShardsResponse.decode(await this.#admin('ResizeShards', request, options));
    return change ?? NO_CHANGE;
  }

  /** The same for the shard of one slot. */
  async moveSlot(slot: number, shard: number, options: CallOptions = {}): Promise<Readonly<ShardsChange>> {
    const request = MoveSlotRequest.encode({ slot, shard });
    const { change } = MoveSlotResponse.decode(await this.#admin('MoveSlot', request, options));
    return change ?? NO_CHANGE;
  }

  /** How many shards would serve the present load best, and why. */
  async adviseShards(options: CallOptions = {}): Promise<Readonly<AdviseShardsResponse>> {
    return AdviseShardsResponse.decode(await this.#admin('AdviseShards', AdviseShardsRequest.encode({}), options));
  }

  /** Settings of the node that answers, and where they come from; secrets are not shown. */
  async settings(options: CallOptions = {}): Promise<readonly NodeSetting[]> {
    const answer = await this.#admin('ListSettings', ListSettingsRequest.encode({}), options);
    return ListSettingsResponse.decode(answer).settings;
  }

  /** Changes one of that node that needs no restart, until its next start; `value` as in a flag. It is in force when this resolves. */
  async changeSetting(key: string, value: string, options: CallOptions = {}): Promise<NodeSetting> {
    const request = ChangeSettingRequest.encode({ key, value });
    const { setting } = ChangeSettingResponse.decode(await this.#admin('ChangeSetting', request, options));
    return setting ?? { key, value, origin: '', place: '', live: true };
  }

  /**
   * Holds the store of the node that answers against its log, beside its work. Ends with an answer that is `done`; leaving the loop, or the signal, ends
   * the verification too.
   */
  async *verify(request: Partial<VerifyRequest> = {}, options: CallOptions = {}): AsyncGenerator<Verification> {
    this.#checkOpen();
    const bytes = VerifyRequest.encode({ prefix: '', bytesPerSecond: 0, tenant: '', ...request }).finish();
    for await (const answer of this.#calls.answers('/broker.v1.Admin/Verify', Buffer.from(bytes), options)) {
      yield VerifyProgress.decode(answer);
    }
  }

  /** A call that may be made without saying anything, by its name: the node's answer as it is. */
  async inspect(method: InspectMethod, options: CallOptions = {}): Promise<object> {
    const { path, responseDeserialize } = AdminService[method];
    return responseDeserialize(await this.#call(path, Buffer.alloc(0), options, 'none'));
  }

  /**
   * What a report of a problem needs of the node that answers, without secrets: files in parts, one after the other. With `cpuProfileMs`
   * it also records where its threads spend their time.
   */
  async *debugInfo(cpuProfileMs = 0, options: CallOptions = {}): AsyncGenerator<Readonly<DebugInfoPart>> {
    this.#checkOpen();
    const timeoutMs = options.timeoutMs ?? DEBUG_TIMEOUT_MS;
    const deadlineMs = Date.now() + timeoutMs + cpuProfileMs;
    const client = this.#endpoints.connected ?? (await this.#endpoints.connect(deadlineMs, options.signal));
    const request = Buffer.from(DebugInfoRequest.encode({ cpuProfileMs }).finish());
    const limits = { deadlineMs, signal: options.signal, metadata: this.#endpoints.metadata() };
    for await (const part of serverStream(client, AdminService.debugInfo.path, request, limits)) {
      yield DebugInfoPart.decode(part);
    }
  }

  /** Subscriptions that are open on the node that answers. */
  async subscriptions(
    { order = 0, limit = 0, prefix = '', tenant = '' }: SubscriptionsRequest = {},
    options: CallOptions = {},
  ): Promise<OpenSubscriptions> {
    const request = ListSubscriptionsRequest.encode({ order, limit, prefix, tenant });
    return ListSubscriptionsResponse.decode(await this.#admin('ListSubscriptions', request, options));
  }

  /** Connections of clients of the node that answers, those with most bytes first; `limit` 0: a hundred. */
  async connections(limit = 0, options: CallOptions = {}): Promise<OpenConnections> {
    const request = ListConnectionsRequest.encode({ limit });
    return ListConnectionsResponse.decode(await this.#admin('ListConnections', request, options));
  }

  /** Subjects of the node that answers that most was published to in the last seconds; `limit` 0: twenty. */
  async topSubjects(limit = 0, options: CallOptions = {}): Promise<TopSubjects> {
    const request = TopSubjectsRequest.encode({ limit });
    return TopSubjectsResponse.decode(await this.#admin('TopSubjects', request, options));
  }

  /** Tenants that the node has met, those with most messages first. `limit`: 1 to 1,000. */
  async tenants(limit = 100, options: CallOptions = {}): Promise<Tenants> {
    return ListTenantsResponse.decode(await this.#admin('ListTenants', ListTenantsRequest.encode({ limit }), options));
  }

  async members(options: CallOptions = {}): Promise<ClusterMembers> {
    return MembersResponse.decode(await this.#cluster('Members', MembersRequest.encode({}), options));
  }

  /** Admits a node in advance. As with every change of the members, any node takes the call, and making it twice is harmless. */
  async addMember(
    member: Pick<Member, 'nodeId' | 'instanceId' | 'raftAddress' | 'grpcAddress'>,
    options: CallOptions = {},
  ): Promise<ClusterChange> {
    return await this.#change('Add', AddRequest.encode({ member: { ...NO_MEMBER, ...member } }), options);
  }

  /** `instanceId`: '' for whichever it is. `force`: although the rest would have no live majority. */
  async removeMember(
    nodeId: string,
    instanceId = '',
    options: CallOptions & { readonly force?: boolean } = {},
  ): Promise<ClusterChange> {
    const request = RemoveRequest.encode({ nodeId, instanceId, force: options.force ?? false });
    return await this.#change('Remove', request, options);
  }

  /** Makes a learner a voter. */
  async promoteMember(nodeId: string, options: CallOptions = {}): Promise<ClusterChange> {
    return await this.#change('Promote', PromoteRequest.encode({ nodeId }), options);
  }

  /** To the voter that has most of the log, if none is named. */
  async transferLeader(nodeId = '', options: CallOptions = {}): Promise<ClusterChange> {
    return await this.#change('TransferLeader', TransferLeaderRequest.encode({ nodeId }), options);
  }

  /** Lists or changes the keys that gossip of all nodes is encrypted with; the keys behind it, by their fingerprints. */
  async gossipKeys(
    change: {
      readonly action: 'list' | 'install' | 'use' | 'remove';
      readonly key?: Buffer;
      readonly fingerprint?: string;
    },
    options: CallOptions = {},
  ): Promise<GossipKeys> {
    const { action, key = Buffer.alloc(0), fingerprint = '' } = change;
    const request = GossipKeysRequest.encode({ action, key, fingerprint });
    return GossipKeysResponse.decode(await this.#cluster('GossipKeys', request, options));
  }

  /**
   * Closes publishers (which wait for what they have taken), subscriptions and connections; from the call on nothing new is begun. Rejects
   * with what a publisher could not do, when all is closed. With a signal the wait can be cut short: what is left then fails.
   */
  close(options: Pick<CallOptions, 'signal'> = {}): Promise<void> {
    this.#closing ??= this.#finish();
    // Each tells all of its callers the same end: that of the first call is waited for, and heard, in `#finish`.
    if (options.signal !== undefined) for (const one of this.#open) one.close(options).catch(() => undefined);
    return this.#closing;
  }

  async #finish(): Promise<void> {
    const ends = await Promise.allSettled([...this.#open].map((one) => one.close()));
    this.#endpoints.close();
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw closedError('client');
  }

  /** What a call of `close` has told already is not told again. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing === null) await this.close();
    else await this.#closing.catch(() => undefined);
  }

  #fields(subject: string, body: Body, options: Omit<PublishOptions, 'producer'>) {
    checkBody(body);
    return {
      subject,
      body: typeof body === 'string' ? Buffer.from(body) : body,
      headers: this.#calls.tracing?.headers(listHeaders(options.headers)) ?? listHeaders(options.headers),
      expirationSeconds: options.expirationSeconds ?? 0,
    };
  }

  /** 0: nothing was ever published to it. */
  async #headOf(name: string, signal: AbortSignal): Promise<number> {
    try {
      return (await this.subject(name, { signal })).head;
    } catch (error) {
      if (error instanceof ClientError && error.reason === 'SUBJECT_NOT_FOUND') return 0;
      throw error;
    }
  }

  async #call(path: string, request: Buffer, options: CallOptions, effect: Effect): Promise<Buffer> {
    this.#checkOpen();
    return await this.#calls.call(path, request, options, effect);
  }

  async #change(name: string, request: { finish(): Uint8Array }, options: CallOptions): Promise<ClusterChange> {
    return ChangeResponse.decode(await this.#cluster(name, request, options));
  }

  #cluster(name: string, request: { finish(): Uint8Array }, options: CallOptions): Promise<Buffer> {
    return this.#call(`/broker.v1.Cluster/${name}`, Buffer.from(request.finish()), options, 'once');
  }

  #admin(name: string, request: { finish(): Uint8Array }, options: CallOptions): Promise<Buffer> {
    return this.#call(`/broker.v1.Admin/${name}`, Buffer.from(request.finish()), options, 'once');
  }
}

/** Of an answer that says nothing of it. */
const NO_CHANGE: ShardsChange = {
  running: false,
  what: '',
  slotsMoved: 0,
  slotsTotal: 0,
  pauseMsMax: 0,
  durationMs: 0,
  error: '',
};

/** What the node that is added says of itself when it comes. */
const NO_MEMBER: Member = {
  nodeId: '',
  instanceId: '',
  raftAddress: '',
  grpcAddress: '',
  role: '',
  isLeader: false,
  matchIndex: 0,
  isActive: false,
  protocol: 0,
  openAllotments: 0,
};

function infoOf({ name, first, head, settled, tenant }: Subject): SubjectInfo {
  return { subject: name, tenant, first, settled, head };
}

/** Null: clear text. `isWanted`: by the addresses. */
function tlsOf(
  { tls, credentials }: ConnectOptions,
  isWanted: boolean | null,
): ReturnType<typeof tlsCredentials> | null {
  if (credentials !== undefined) {
    if (tls !== undefined) throw new RangeError('tls and credentials: give one of them');
    return null;
  }
  if (isWanted === false && tls !== undefined && tls !== false) throw new RangeError('tls: the address says http://');
  if (isWanted === true && tls === false) throw new RangeError('tls: false: the address says https://');
  const isOn = tls === undefined ? isWanted === true : tls !== false;
  if (!isOn) return null;
  return tlsCredentials(typeof tls === 'object' ? tls : {});
}
