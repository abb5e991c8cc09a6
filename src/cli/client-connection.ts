/** The client as the commands see it: an interrupt ends every call, and failures are explained to a person. */
import {
  type Client,
  type ConnectOptions as ClientConnectOptions,
  ClientError,
  type ClusterChange,
  type ClusterMember,
  type ClusterMembers,
  ConnectionError,
  connect,
  type GossipKeys,
  type HealthStatus,
  type InspectMethod,
  type Message,
  type NodeSetting,
  type NodeStatus,
  type OpenConnections,
  type OpenSubscriptions,
  readAddress,
  type Start,
  type SubjectInfo,
  type SubscriptionsRequest,
  type Tenants,
  type TopSubjects,
  tlsWanted,
  type Verification,
} from '../client/index.ts';
import type { Connection, GossipKeyChange, PublishInput, ShardRow, ShardsAdvice, ShardsChange } from './connection.ts';
import type { ConnectOptions } from './context.ts';
import { CliError, EXIT, explain, usageError } from './failure.ts';
import { speaksTls } from './tls.ts';

/** Nothing is sent before the first call. */
export function connectWithClient(options: ConnectOptions): Connection {
  return new ClientConnection(options);
}

class ClientConnection implements Connection {
  readonly #options: ConnectOptions;
  readonly #client: Client;

  constructor(options: ConnectOptions) {
    this.#options = options;
    // Whoever types a command wants to know at once that nobody is there.
    const { timeoutMs, tenant, tls, token } = options;
    this.#client = clientOf(options.addresses, { timeoutMs, tenant, tls, token, failFast: true });
  }

  publish({ subject, body, options }: PublishInput): Promise<number> {
    return this.#run((signal) => this.#client.publish(subject, body, { ...options, signal }));
  }

  fetch(subject: string, id: number): Promise<Message> {
    return this.#run((signal) => this.#client.fetch(subject, id, { signal }));
  }

  async *subscribe(subjects: readonly string[], start: Start, broadcasts: boolean): AsyncGenerator<Message> {
    const subscription = this.#client.subscribe(subjects, { start, broadcasts, signal: this.#options.interrupt });
    try {
      for await (const message of subscription) yield message;
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  status(): Promise<NodeStatus> {
    return this.#run((signal) => this.#client.status({ signal }));
  }

  health(service: string): Promise<HealthStatus> {
    return this.#run((signal) => this.#client.health(service, { signal }));
  }

  async *listSubjects(prefix: string): AsyncGenerator<SubjectInfo> {
    try {
      yield* this.#client.subjects(prefix, { signal: this.#options.interrupt, tenant: this.#options.tenant });
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  subjectInfo(subject: string): Promise<SubjectInfo> {
    const { tenant } = this.#options;
    return this.#run((signal) => this.#client.subject(subject, { signal, tenant }));
  }

  trim(subject: string, first: number): Promise<SubjectInfo> {
    return this.#run(async (signal) => {
      const options = { signal, tenant: this.#options.tenant };
      await this.#client.trim(subject, first, options);
      return await this.#client.subject(subject, options);
    });
  }

  async listShards(): Promise<{ shards: readonly ShardRow[]; change: ShardsChange }> {
    const { shards, change } = await this.#run((signal) => this.#client.shards({ signal }));
    if (change === undefined) throw new CliError(EXIT.failed, 'the broker sent an answer without a change');
    return { shards, change };
  }

  resizeShards(shards: number): Promise<ShardsChange> {
    return this.#run((signal) => this.#client.resizeShards(shards, { signal }));
  }

  moveSlot(slot: number, shard: number): Promise<ShardsChange> {
    return this.#run((signal) => this.#client.moveSlot(slot, shard, { signal }));
  }

  async adviseShards(): Promise<{ advice: ShardsAdvice; shards: readonly ShardRow[] }> {
    const answer = await this.#run((signal) => this.#client.adviseShards({ signal }));
    const { measured, shards, recommended, reason, effect, cores, mainUtilization, cpuUtilization } = answer;
    const figures = { cores, main_busy: twoPlaces(mainUtilization), cpu_busy: twoPlaces(cpuUtilization) };
    return { advice: { shards, recommended, reason, effect, ...figures }, shards: measured };
  }

  settings(): Promise<readonly NodeSetting[]> {
    return this.#run((signal) => this.#client.settings({ signal }));
  }

  changeSetting(key: string, value: string): Promise<NodeSetting> {
    return this.#run((signal) => this.#client.changeSetting(key, value, { signal }));
  }

  inspect(method: InspectMethod): Promise<object> {
    return this.#run((signal) => this.#client.inspect(method, { signal }));
  }

  async *debugInfo(cpuProfileMs: number): AsyncGenerator<{ readonly name: string; readonly content: Uint8Array }> {
    try {
      yield* this.#client.debugInfo(cpuProfileMs, { signal: this.#options.interrupt });
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  subscriptions(request: SubscriptionsRequest): Promise<OpenSubscriptions> {
    return this.#run((signal) => this.#client.subscriptions(request, { signal }));
  }

  connections(limit: number): Promise<OpenConnections> {
    return this.#run((signal) => this.#client.connections(limit, { signal }));
  }

  topSubjects(limit: number): Promise<TopSubjects> {
    return this.#run((signal) => this.#client.topSubjects(limit, { signal }));
  }

  tenants(limit: number): Promise<Tenants> {
    return this.#run((signal) => this.#client.tenants(limit, { signal }));
  }

  members(): Promise<ClusterMembers> {
    return this.#run((signal) => this.#client.members({ signal }));
  }

  addMember(
    member: Pick<ClusterMember, 'nodeId' | 'instanceId' | 'raftAddress' | 'grpcAddress'>,
  ): Promise<ClusterChange> {
    return this.#run((signal) => this.#client.addMember(member, { signal }));
  }

  removeMember(nodeId: string, instanceId: string, force: boolean): Promise<ClusterChange> {
    return this.#run((signal) => this.#client.removeMember(nodeId, instanceId, { signal, force }));
  }

  promoteMember(nodeId: string): Promise<ClusterChange> {
    return this.#run((signal) => this.#client.promoteMember(nodeId, { signal }));
  }

  transferLeader(nodeId: string): Promise<ClusterChange> {
    return this.#run((signal) => this.#client.transferLeader(nodeId, { signal }));
  }

  gossipKeys(change: GossipKeyChange): Promise<GossipKeys> {
    return this.#run((signal) => this.#client.gossipKeys(change, { signal }));
  }

  async *verify(prefix: string, bytesPerSecond: number): AsyncGenerator<Verification> {
    const { interrupt: signal, timeoutMs, tenant = '' } = this.#options;
    try {
      yield* this.#client.verify({ prefix, bytesPerSecond, tenant }, { signal, timeoutMs });
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  async #run<T>(call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await call(this.#options.interrupt);
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  async #explained(error: unknown): Promise<unknown> {
    return error instanceof ClientError ? await explainConnected(error, this.#options) : error;
  }
}

/** Throws a usage error for certificates that cannot be used. */
export function clientOf(addresses: readonly string[], options: ClientConnectOptions): Client {
  try {
    return connect(addresses, options);
  } catch (error) {
    throw error instanceof RangeError ? usageError(error.message) : error;
  }
}

/** What a failed call means, and whether it failed for want of TLS. */
export async function explainConnected(
  error: ClientError,
  { addresses, tls }: Pick<ConnectOptions, 'addresses' | 'tls'>,
): Promise<CliError> {
  const isUnreachable = error instanceof ConnectionError && error.outcome === 'none';
  const written = addresses.map(readAddress);
  if (isUnreachable && tls === undefined && tlsWanted(written) !== true) {
    const found = await Promise.all(written.map(({ address }) => speaksTls(address)));
    const at = written[found.indexOf(true)]?.address;
    if (at !== undefined) {
      const next = 'add --tls, and --tls-ca FILE if its authority is your own';
      return new CliError(EXIT.unreachable, `cannot connect to ${at} in clear text: it takes TLS alone`, next, {
        cause: error,
      });
    }
  }
  return explain(error, addresses.join(', '));
}

function twoPlaces(value: number): number {
  return Math.round(value * 100) / 100;
}
