import { Readable, Writable } from 'node:stream';
import type { Connection, GossipKeyChange, PublishInput, ShardRow, ShardsChange } from '../../src/cli/connection.ts';
import type { ConnectOptions } from '../../src/cli/context.ts';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { type RunOptions, run } from '../../src/cli/run.ts';
import type {
  ClusterChange,
  ClusterMember,
  ClusterMembers,
  GossipKeys,
  HealthStatus,
  InspectMethod,
  Message,
  NodeSetting,
  NodeStatus,
  OpenConnections,
  OpenSubscriptions,
  Start,
  SubscriptionsRequest,
  Tenants,
  TopSubjects,
  Verification,
} from '../../src/client/index.ts';
import type { Config } from '../../src/config/schema.ts';
import type { CopyRequest } from '../../src/copy/types.ts';

export class Sink extends Writable {
  readonly isTTY: boolean;
  readonly #failure: Error | null;
  #chunks: Buffer[] = [];

  constructor(options: { isTTY?: boolean; failure?: Error } = {}) {
    super();
    this.isTTY = options.isTTY ?? false;
    this.#failure = options.failure ?? null;
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    if (this.#failure === null) this.#chunks.push(chunk);
    done(this.#failure);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.bytes.toString();
  }
}

export function message(id: number, body: string | Uint8Array): Message {
  const headers = [{ key: 'k', value: Buffer.from('v') }];
  const bytes = Buffer.from(body);
  const rest = { expirationSeconds: 0, text: bytes.toString() };
  return { id, subject: 'a.b', publishedAt: 1_000, headers, body: bytes, ...rest };
}

/** A broker that keeps what it is told. */
export class FakeBroker implements Connection {
  readonly published: PublishInput[] = [];
  readonly asked: unknown[] = [];
  messages: Message[] = [message(1, 'one'), message(2, 'two'), message(3, 'three')];
  failAt = Number.POSITIVE_INFINITY;
  isClosed = false;

  async publish(input: PublishInput): Promise<number> {
    if (this.published.length + 1 === this.failAt)
      throw new CliError(EXIT.failed, 'the queue is full (QUEUE_FULL)', 'wait and retry');
    this.published.push(input);
    return this.published.length;
  }
  async fetch(subject: string, id: number): Promise<Message> {
    this.asked.push({ subject, id });
    return message(id, Buffer.from([0xff, 0x00]));
  }
  async *subscribe(subjects: readonly string[], start: Start): AsyncGenerator<Message> {
    this.asked.push({ subjects, start });
    yield* this.messages;
  }
  async status(): Promise<NodeStatus> {
    return this.node;
  }
  node: NodeStatus = STATUS;
  async subscriptions(request: SubscriptionsRequest): Promise<OpenSubscriptions> {
    this.asked.push({ subscriptions: request });
    return { subscriptions: [SUBSCRIPTION], total: 3, lagMax: 1_500 };
  }
  async connections(limit: number): Promise<OpenConnections> {
    this.asked.push({ connections: limit });
    return { connections: [CONNECTION], total: 1 };
  }
  async topSubjects(limit: number): Promise<TopSubjects> {
    this.asked.push({ topSubjects: limit });
    return { subjects: [{ tenant: '', subject: 'orders.eu', shard: 0, messagesPerSecond: 1_000, share: 0.8 }] };
  }
  healthStatus: HealthStatus = 'SERVING';
  async health(service: string): Promise<HealthStatus> {
    this.asked.push({ service });
    return this.healthStatus;
  }
  async *listSubjects(prefix: string) {
    this.asked.push({ prefix });
    yield { tenant: '', subject: 'a', first: 1, settled: 9, head: 10 };
    yield { tenant: '', subject: 'long.name', first: 1, settled: 1_000, head: 1_000 };
  }
  async subjectInfo(subject: string) {
    return { tenant: '', subject, first: 1, settled: 2, head: 3 };
  }
  async trim(subject: string, first: number) {
    return { tenant: '', subject, first, settled: 9, head: 9 };
  }
  /** What is left of a change each time it is asked after. */
  changes: ShardsChange[] = [];
  async listShards() {
    return { shards: [SHARD], change: this.changes.shift() ?? CHANGED };
  }
  async resizeShards(shards: number): Promise<ShardsChange> {
    this.asked.push({ shards });
    return { ...CHANGED, running: true };
  }
  async moveSlot(slot: number, shard: number): Promise<ShardsChange> {
    this.asked.push({ slot, shard });
    return CHANGED;
  }
  recommended = 2;
  async adviseShards() {
    const advice = { shards: 1, recommended: this.recommended, reason: 'shard 0 is busy', effect: 'it is less so' };
    return { advice, shards: [SHARD] };
  }
  /** What each call of `members` is answered with; the last one for ever. */
  views: ClusterMembers[] = [VIEW];
  async tenants(limit: number): Promise<Tenants> {
    this.asked.push({ tenants: limit });
    return TENANTS;
  }
  async members() {
    return (this.views.length > 1 ? this.views.shift() : this.views[0]) ?? VIEW;
  }
  async addMember(member: object) {
    this.asked.push({ add: member });
    return CHANGE;
  }
  async removeMember(nodeId: string, instanceId: string, force: boolean) {
    this.asked.push({ remove: nodeId, instanceId, force });
    return CHANGE;
  }
  keys: GossipKeys = KEYS;
  verification: Verification[] = [];
  async *verify(prefix: string, bytesPerSecond: number): AsyncGenerator<Verification> {
    this.asked.push({ verify: prefix, bytesPerSecond });
    yield* this.verification;
  }
  async gossipKeys(change: GossipKeyChange) {
    this.asked.push({ keys: change.action, ...(change.key === undefined ? {} : { key: change.key.toString('hex') }) });
    return this.keys;
  }
  settingRows: NodeSetting[] = [
    { key: 'shards.count', value: '3', origin: 'flag', place: '--shards', live: false },
    { key: 'log.level', value: 'info', origin: 'default', place: '', live: true },
  ];
  async settings() {
    return this.settingRows;
  }
  async changeSetting(key: string, value: string): Promise<NodeSetting> {
    this.asked.push({ change: key, value });
    return { key, value, origin: 'changed', place: 'config set', live: true };
  }
  /** Answers of a node that does not know all calls. */
  answers: Partial<Record<InspectMethod, object>> = {};
  async inspect(method: InspectMethod): Promise<object> {
    return this.answers[method] ?? Promise.reject(new CliError(EXIT.failed, `the method ${method} does not exist`));
  }
  debugParts: { readonly name: string; readonly content: Uint8Array }[] = [];
  async *debugInfo(cpuProfileMs: number) {
    this.asked.push({ cpuProfileMs });
    yield* this.debugParts;
  }
  async promoteMember(nodeId: string) {
    this.asked.push({ promote: nodeId });
    return CHANGE;
  }
  async transferLeader(nodeId: string) {
    this.asked.push({ transfer: nodeId });
    return CHANGE;
  }
  async close(): Promise<void> {
    this.isClosed = true;
  }
}

export const TENANTS: Tenants = {
  tenants: [
    {
      tenant: 'acme',
      subjectPrefix: 'orders',
      messagesPerSecondMax: 50,
      bytesPerSecondMax: 0,
      messagesPerSecond: 12.34,
      bytesPerSecond: 1_000.6,
      messages: 1_234,
      bytes: 99_000,
      refused: 3,
      shrunk: 4,
    },
  ],
  quotas: [
    { tenant: 'acme', subjectPrefix: 'orders', messagesPerSecond: 100, bytesPerSecond: 0 },
    { tenant: '', subjectPrefix: '', messagesPerSecond: 0, bytesPerSecond: 1 << 20 },
  ],
  nodes: 2,
};

export const INSTANCE = '0123456789abcdef0123456789abcdef';

export function member(nodeId: string, rest: Partial<ClusterMember> = {}): ClusterMember {
  return {
    nodeId,
    instanceId: INSTANCE,
    raftAddress: `${nodeId}:12000`,
    grpcAddress: `${nodeId}:8081`,
    role: 'voter',
    isLeader: false,
    matchIndex: 90,
    isActive: true,
    protocol: 1,
    openAllotments: 0,
    ...rest,
  };
}

export const VIEW: ClusterMembers = {
  clusterId: 'c0ffee',
  cluster: 'broker',
  nodeId: 'n2',
  leader: 'n1',
  term: 3,
  lastIndex: 95,
  committed: 95,
  applied: 94,
  votersWanted: 3,
  tolerates: 1,
  toleratesNow: 0,
  members: [
    member('n1', { isLeader: true, matchIndex: 100 }),
    member('n2', { openAllotments: 2 }),
    member('n3', { isActive: false, matchIndex: 0 }),
  ],
  warnings: ['voter n3 is not heard of'],
  seen: [],
};
export const KEYS: GossipKeys = {
  nodes: 3,
  answered: 3,
  failures: [],
  keys: [
    { fingerprint: '3f9a0011aabbccdd', nodes: 3, primaryOn: 3 },
    { fingerprint: '00ff0011aabbccdd', nodes: 1, primaryOn: 0 },
  ],
};
export const CHANGE: ClusterChange = { members: [...VIEW.members], leader: 'n1' };

export const STATUS: NodeStatus = {
  nodeId: 'n1',
  cluster: 'broker',
  version: '1.2.3',
  store: 'embedded',
  durability: 'durable',
  shards: 2,
  uptimeMs: 11_520_000,
  subjects: 1_234,
  subjectsMax: 1_000_000,
  producers: 10,
  producersMax: 100_000,
  subscriptions: 3,
  callsInFlight: 0,
  bytesInFlight: 0,
  raftTerm: 2,
  raftApplied: 99,
  raftSnapshot: 0,
  openAllotments: 0,
  storeBytes: 12_300_000,
  storeSegments: 4,
  messagesPublished: 5_000,
  damaged: 0,
  warnings: [],
  resize: '',
  role: 'alone',
  leader: 'n1',
  ready: true,
  notReady: [],
  messagesInPerSecond: 12_345,
  messagesOutPerSecond: 24_690,
  bytesInPerSecond: 3_100_000,
  bytesOutPerSecond: 6_200_000,
  mainUtilization: 0.42,
  cpuUtilization: 0.2,
  publishP99Ms: 2,
  storeWriteP99Ms: 1.024,
  diskFreeBytes: 400e9,
  diskBytes: 1_000e9,
  connections: 7,
  clockMs: Date.parse('2026-01-01T00:00:00Z'),
};

export const SUBSCRIPTION: OpenSubscriptions['subscriptions'][number] = {
  id: 7,
  kind: 'consume',
  subject: 'orders.eu',
  pattern: 'orders.*',
  peer: '10.0.0.9:40000',
  tenant: 'default',
  sent: 1_000,
  settled: 2_500,
  lag: 1_500,
  state: 'waiting',
  messages: 1_000,
  bytes: 120_000,
  unsentBytes: 65_536,
  openMs: 45_000,
  space: '',
};

export const CONNECTION: OpenConnections['connections'][number] = {
  peer: '10.0.0.9:40000',
  agent: 'grpc-node-js/1.14.7',
  tenant: 'default',
  openMs: 45_000,
  calls: 2,
  publishStreams: 1,
  subscriptions: 1,
  callsTotal: 5_000,
  bytesIn: 1_200_000,
  bytesOut: 3_400,
};

export const SHARD: ShardRow = {
  shard: 0,
  slots: 1_024,
  serving: true,
  utilization: 0.512,
  storeBusy: 0.25,
  messagesPerSecond: 1_234.4,
  bytesPerSecond: 500_000,
  queueWaitMs: 0.1,
  storeWriteMs: 1.5,
  groupMessages: 33,
  hotSubjects: [
    { tenant: '', subject: 'orders.eu', share: 0.5 },
    { tenant: '', subject: 'orders.us', share: 0.125 },
  ],
};
export const CHANGED: ShardsChange = {
  running: false,
  what: '1 -> 2 shards',
  slotsMoved: 512,
  slotsTotal: 512,
  pauseMsMax: 3.456,
  durationMs: 120,
  error: '',
};

const noRecovery = async () => ({ kind: 'refused', message: 'no recovery here', next: 'try elsewhere' }) as const;

export async function broker(
  argv: readonly string[],
  options: Partial<RunOptions> & { fake?: FakeBroker; input?: string | null } = {},
) {
  const fake = options.fake ?? new FakeBroker();
  const connected: ConnectOptions[] = [];
  const served: Config[] = [];
  const copied: CopyRequest[] = [];
  const stdout = new Sink();
  const stderr = new Sink();
  const stdin = Object.assign(Readable.from(options.input === undefined ? [] : [Buffer.from(options.input ?? '')]), {
    isTTY: false,
  });
  const code = await run(argv, {
    environment: {},
    stdin,
    stdout,
    stderr,
    now: () => Date.parse('2026-01-01T00:00:00Z'),
    serve: async (loaded) => {
      served.push(loaded.config);
      return 0;
    },
    copyStore: async (request) => {
      copied.push(request);
      return { kind: 'refused', message: 'no copy here', next: 'try elsewhere' };
    },
    recovery: { recover: noRecovery, restore: noRecovery, backup: noRecovery, verify: noRecovery },
    connect: (given) => {
      connected.push(given);
      return fake;
    },
    ...options,
  });
  return { code, out: stdout.text, bytes: stdout.bytes, err: stderr.text, fake, connected, served, copied };
}
