import { Readable, Writable } from 'node:stream';
import type { Connection, PublishInput, ShardRow, ShardsChange } from '../../src/cli/connection.ts';
import type { ConnectOptions } from '../../src/cli/context.ts';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { type RunOptions, run } from '../../src/cli/run.ts';
import type {
  ClusterChange,
  ClusterMember,
  ClusterMembers,
  Message,
  NodeStatus,
  Start,
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
    return { nodeId: 'n1', subjects: 1_234, warnings: ['low', 'slow'] } as unknown as NodeStatus;
  }
  async *listSubjects(prefix: string) {
    this.asked.push({ prefix });
    yield { subject: 'a', first: 1, settled: 9, head: 10 };
    yield { subject: 'long.name', first: 1, settled: 1_000, head: 1_000 };
  }
  async subjectInfo(subject: string) {
    return { subject, first: 1, settled: 2, head: 3 };
  }
  async trim(subject: string, first: number) {
    return { subject, first, settled: 9, head: 9 };
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
};
export const CHANGE: ClusterChange = { members: [...VIEW.members], leader: 'n1' };

export const SHARD: ShardRow = {
  shard: 0,
  slots: 1_024,
  serving: true,
  utilization: 0.512,
  storeBusy: 0.25,
  messagesPerSecond: 1_234.4,
  queueWaitMs: 0.1,
  storeWriteMs: 1.5,
  groupMessages: 33,
  hotSubjects: [{ subject: 'orders.eu', share: 0.5 }],
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
    serve: async (config) => {
      served.push(config);
      return 0;
    },
    copyStore: async (request) => {
      copied.push(request);
      return { kind: 'refused', message: 'no copy here', next: 'try elsewhere' };
    },
    recovery: { recover: noRecovery, restore: noRecovery, backup: noRecovery },
    connect: (given) => {
      connected.push(given);
      return fake;
    },
    ...options,
  });
  return { code, out: stdout.text, bytes: stdout.bytes, err: stderr.text, fake, connected, served, copied };
}
