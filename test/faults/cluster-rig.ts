/** A cluster under load with the checker and the file of operations beside it: what the campaigns on clusters share. */
import { join } from 'node:path';
import { Prng } from '../../src/base/prng.ts';
import { type Counts, History, type ReadResult, type Violation } from '../support/checker.ts';
import { BrokerClient } from '../support/client.ts';
import { Cluster, type ClusterNode, type ClusterOptions } from '../support/cluster.ts';
import type { ClusterNetwork } from '../support/network.ts';
import { Operations, VOID_KEY } from '../support/operations.ts';
import { checkLinearizability, type LinearizabilityVerdict } from '../support/porcupine.ts';
import { isUsable } from '../support/tools.ts';
import { pause, until } from '../support/until.ts';
import { fetchOnce, keyOf, LoadContext, recordFetch } from './cluster-context.ts';
import { ClusterLoad, type LoadSize } from './cluster-load.ts';
import { delivered } from './kill-load.ts';

/** Default of `raft.election_timeout`: a follower waits for this to twice this. */
export const ELECTION_TIMEOUT_MS = 1_000;
const RECOVERY_TIMEOUT_MS = 180_000;
const READ_TIMEOUT_MS = 180_000;
const READ_ATTEMPTS = 5;
/** Of what a stream gave, so many messages are fetched as well. */
const FETCHED_TOO = 2_000;

export interface RigVerdict {
  readonly counts: Counts;
  readonly violations: readonly Violation[];
  /** Null without Go. */
  readonly linearizability: LinearizabilityVerdict | null;
}

export class ClusterRig implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly history: History;
  readonly load: ClusterLoad;
  readonly network: ClusterNetwork | null;
  readonly #operations: Operations;

  private constructor(
    cluster: Cluster,
    network: ClusterNetwork | null,
    fields: { readonly seed: number; readonly size: LoadSize | undefined },
  ) {
    this.cluster = cluster;
    this.network = network;
    this.history = new History();
    this.#operations = new Operations(join(cluster.folder, 'operations.jsonl'));
    const context = new LoadContext({
      history: this.history,
      operations: this.#operations,
      prng: new Prng(fields.seed),
      addresses: cluster.addresses,
      label: `s${fields.seed}`,
    });
    this.load = new ClusterLoad(context, fields.size);
  }

  static async start(
    options: ClusterOptions & { readonly seed: number; readonly size?: LoadSize },
  ): Promise<ClusterRig> {
    const cluster = await Cluster.start(options);
    return new ClusterRig(cluster, options.network ?? null, { seed: options.seed, size: options.size });
  }

  /** Until so many more messages are acknowledged. */
  async loaded(count: number, timeoutMs = RECOVERY_TIMEOUT_MS): Promise<void> {
    const enough = this.load.acked + count;
    const missing = (): string => `${enough - this.load.acked} of ${count} messages were not acknowledged`;
    await this.#until(() => this.load.acked >= enough, missing, timeoutMs);
  }

  /** Until each of these nodes has acknowledged what was sent to it after `since` (performance.now()). */
  async answering(nodes: readonly ClusterNode[], since: number): Promise<void> {
    const silent = (): ClusterNode[] =>
      nodes.filter(({ index }) => (this.load.probes[index]?.lastAckedSentAt ?? 0) <= since);
    const describe = (): string => `no publish was acknowledged by ${silent().map(({ id }) => id)}`;
    await this.#until(() => silent().length === 0, describe, RECOVERY_TIMEOUT_MS);
  }

  /** Longest time without an acknowledgement that the client of each node has seen since then, in ms. */
  gapsMs(nodes: readonly ClusterNode[], since: number, before = performance.now()): number[] {
    return nodes.map(({ index }) => this.load.probes[index]?.gapMs(since, before) ?? 0);
  }

  async #until(holds: () => boolean, describe: () => string, timeoutMs: number): Promise<void> {
    const explain = (): string => {
      const ended = this.cluster.nodes.filter(({ broker }) => !broker.running).map(({ id }) => id);
      return `${describe()}; not running: ${ended.join() || 'none'}; logs in ${this.cluster.keep()}`;
    };
    await until(() => this.load.failure !== null || holds(), explain, timeoutMs);
    this.#throwFailure();
  }

  #throwFailure(): void {
    const { failure } = this.load;
    if (failure !== null)
      throw new Error(`the load ended: ${failure}; logs in ${this.cluster.keep()}`, { cause: failure });
  }

  /** All nodes are up: ends the load, retries what has no answer, reads everything from every node, and judges. */
  async judge(): Promise<RigVerdict> {
    await this.load.stop();
    this.#throwFailure();
    await this.load.settle();
    const stored = new Map<string, ReadResult>();
    for (const node of this.cluster.nodes) await this.#readNode(node, stored);
    await this.#readBack(stored);
    this.#operations.close();
    const { violations, counts } = this.history.judge();
    const linearizability = isUsable('go') ? await checkLinearizability(this.#operations.path) : null;
    return { violations, counts, linearizability };
  }

  /** A subscription of each subject from its beginning: rising ids, none missing. */
  async #readNode(node: ClusterNode, into: Map<string, ReadResult>): Promise<void> {
    const client = new BrokerClient(node.address);
    await Promise.all(
      this.history.subjects().map(async (subject) => {
        const until = this.history.highestMessage(subject);
        if (until === 0) return;
        const name = `final stream of ${node.id}`;
        const stream = this.history.openStream({ name, subject, start: { at: 'earliest' } });
        const keys: number[] = [];
        const start = Operations.now();
        const { promise, resolve } = Promise.withResolvers<void>();
        const timer = setTimeout(resolve, READ_TIMEOUT_MS);
        const subscription = client.subscribe(
          subject,
          { at: 'earliest' },
          {
            onMessage: (message) => {
              const what = delivered(message);
              this.history.deliver(stream, what);
              while (keys.length < message.id - 1) keys.push(VOID_KEY);
              keys.push(keyOf(message.body));
              if (node.index === 0) into.set(`${subject}/${message.id}`, { kind: 'message', ...what });
              if (message.id >= until) resolve();
            },
            onEnd: () => resolve(),
          },
        );
        await promise;
        clearTimeout(timer);
        subscription.cancel();
        this.history.completeStream(stream);
        this.#operations.scan({ client: node.id, subject, start, end: Operations.now(), id: 1, keys });
      }),
    );
    client.close();
  }

  /** By what the streams gave; ids that they did not have, and a sample of the others, by Fetch from the nodes in turn. */
  async #readBack(stored: ReadonlyMap<string, ReadResult>): Promise<void> {
    const clients = this.cluster.addresses.map((address) => new BrokerClient(address));
    const every = Math.max(1, Math.floor(stored.size / FETCHED_TOO));
    let count = 0;
    await this.history.readBack(
      async (subject, id) => {
        const found = stored.get(`${subject}/${id}`);
        count += 1;
        if (found !== undefined && count % every !== 0) return found;
        return this.#fetch(clients[count % clients.length] as BrokerClient, subject, id);
      },
      { from: 'start' },
    );
    for (const client of clients) client.close();
  }

  /** A failure is tried again before it counts. */
  async #fetch(client: BrokerClient, subject: string, id: number): Promise<ReadResult> {
    for (let attempt = 1; ; attempt++) {
      const start = Operations.now();
      const found = await fetchOnce(client, subject, id);
      recordFetch(this.#operations, found, { client: 'read-back', subject, id, start });
      if (found.result.kind !== 'failed' || attempt === READ_ATTEMPTS) return found.result;
      await pause(100 * attempt);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
    await this.load.stop();
    this.#operations.close();
  }
}
