/** The client as the commands see it: an interrupt ends every call, and failures are explained to a person. */
import {
  type Client,
  ClientError,
  type ClusterChange,
  type ClusterMember,
  type ClusterMembers,
  connect,
  type Message,
  type NodeStatus,
  type Start,
  type SubjectInfo,
} from '../client/index.ts';
import type { Connection, PublishInput, ShardRow, ShardsAdvice, ShardsChange } from './connection.ts';
import type { ConnectOptions } from './context.ts';
import { CliError, EXIT, explain } from './failure.ts';

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
    this.#client = connect(options.addresses, { timeoutMs: options.timeoutMs, failFast: true });
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
      throw this.#explained(error);
    }
  }

  status(): Promise<NodeStatus> {
    return this.#run((signal) => this.#client.status({ signal }));
  }

  async *listSubjects(prefix: string): AsyncGenerator<SubjectInfo> {
    try {
      yield* this.#client.subjects(prefix, { signal: this.#options.interrupt });
    } catch (error) {
      throw this.#explained(error);
    }
  }

  subjectInfo(subject: string): Promise<SubjectInfo> {
    return this.#run((signal) => this.#client.subject(subject, { signal }));
  }

  trim(subject: string, first: number): Promise<SubjectInfo> {
    return this.#run(async (signal) => {
      await this.#client.trim(subject, first, { signal });
      return await this.#client.subject(subject, { signal });
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

  close(): Promise<void> {
    return this.#client.close();
  }

  async #run<T>(call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await call(this.#options.interrupt);
    } catch (error) {
      throw this.#explained(error);
    }
  }

  #explained(error: unknown): unknown {
    return error instanceof ClientError ? explain(error, this.#options.addresses.join(', ')) : error;
  }
}

function twoPlaces(value: number): number {
  return Math.round(value * 100) / 100;
}
