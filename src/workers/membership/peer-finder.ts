import { BrokerError } from '../../base/errors.ts';
import type { Address } from '../../gossip/types.ts';
import type { GossipKeysRequest, GossipKeysResponse } from '../../grpc/gen/broker/v1/cluster.ts';
import { brokersIn, type OwnTags, raftAddressesIn, seedsIn, tagsOf } from '../gossip/gossip-view.ts';
import { changeKeys, type KeyQueries } from '../gossip/key-changes.ts';
import type { GossipMember } from '../gossip/types.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import type { Seeds } from './enter-cluster.ts';

/** A gossip agent (src/workers/gossip) as far as membership needs one. */
export interface Gossip extends KeyQueries {
  setTags(tags: Readonly<Record<string, string>>): void;
  /** Tells the others that it leaves; resolves when enough know, or after `withinMs`. */
  leave(withinMs: number): Promise<void>;
  stop(): Promise<void>;
}

/** Where others may be found: DNS or the Kubernetes API (src/discovery). */
export interface Discovery {
  start(): void;
  stop(): void;
}

export interface DiscoveryEvents {
  /** Gossip addresses; all that are known, each time. */
  onSeeds(addresses: readonly Address[]): void;
  /** Why nothing is found, in words. */
  onProblem(reason: string): void;
}

export interface PeerFinderOptions {
  readonly nodeId: string;
  readonly own: OwnTags;
  /** gRPC addresses that the configuration names (`join`). */
  readonly join: readonly string[];
  /** bootstrap_expect */
  readonly expect: number;
  /** Something besides `join` tells whom to ask: gossip.join, discovery. */
  readonly hasSource: boolean;
  /** gossip.key: what the node shows and asks for also where it does not gossip. */
  readonly keys?: readonly Uint8Array[];
}

/**
 * How a node finds others: what it is told by the configuration, and whom it meets by gossip. Gossip says where somebody is and how many seem to be
 * there. It never says who votes: nothing here changes a member (P9, G1, G8).
 */
export class PeerFinder implements Seeds {
  readonly #options: PeerFinderOptions;
  #instance: string;
  #gossip: Gossip | null = null;
  #discovery: Discovery | null = null;
  #clusterId = '';
  #raft: Pick<RaftHandle, 'heardOf'> | null = null;
  /** What the Raft thread was told last. */
  #told = '[]';
  readonly #waiting = new Set<() => void>();

  constructor(options: PeerFinderOptions) {
    this.#options = options;
    this.#instance = options.own.instance;
  }

  /** From now on it gossips. */
  use(gossip: Gossip, discovery: Discovery | null): void {
    this.#gossip = gossip;
    this.#discovery = discovery;
    discovery?.start();
  }

  get hasSource(): boolean {
    return this.#options.hasSource || this.#options.join.length > 0;
  }

  get expect(): number {
    return this.#options.expect;
  }

  list(clusterId: string): readonly string[] {
    const { join, own, nodeId } = this.#options;
    const met = seedsIn(this.#gossip?.view() ?? [], { cluster: own.cluster, clusterId, self: nodeId });
    return [...new Set([...join, ...met])];
  }

  isTold(seed: string): boolean {
    return this.#options.join.includes(seed);
  }

  seen(): number {
    return this.#gossip === null ? 1 : brokersIn(this.#gossip.view(), this.#options.own.cluster);
  }

  /** Null: it does not gossip, or no more. Who gossips sees itself. */
  view(): readonly GossipMember[] | null {
    const view = this.#gossip?.view() ?? [];
    return view.length === 0 ? null : view;
  }

  keys(): readonly Uint8Array[] {
    return this.#gossip?.keys() ?? this.#options.keys ?? [];
  }

  async changeKeys(request: GossipKeysRequest): Promise<GossipKeysResponse> {
    if (this.#gossip === null) throw new BrokerError('GOSSIP_OFF');
    return await changeKeys(this.#gossip, request);
  }

  /** Resolves when gossip has heard something new, or the signal is aborted: who waits on for years leaves nothing behind. */
  news(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        this.#waiting.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      if (signal.aborted) {
        resolve();
        return;
      }
      this.#waiting.add(end);
      signal.addEventListener('abort', end);
    });
  }

  /** Who waits for news. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What gossip says has changed. */
  changed(): void {
    for (const end of [...this.#waiting]) end();
    this.#tellRaft();
  }

  /** It has found its cluster: others may ask it to be taken in. `instance`: what it is there, which a mended log changes. */
  entered(clusterId: string, instance = this.#instance): void {
    this.#clusterId = clusterId;
    this.#instance = instance;
    this.#gossip?.setTags(tagsOf({ ...this.#options.own, clusterId, instance }));
  }

  /** From now on the Raft thread is told where members say they are. */
  follow(raft: Pick<RaftHandle, 'heardOf'>): void {
    this.#raft = raft;
    this.#tellRaft();
  }

  #tellRaft(): void {
    if (this.#raft === null || this.#gossip === null) return;
    const addresses = raftAddressesIn(this.#gossip.view(), this.#options.own.cluster, this.#clusterId);
    const told = JSON.stringify(addresses);
    if (told === this.#told) return;
    this.#told = told;
    this.#raft.heardOf(addresses);
  }

  async leave(withinMs: number): Promise<void> {
    this.#discovery?.stop();
    await this.#gossip?.leave(withinMs);
  }

  async stop(): Promise<void> {
    this.#raft = null;
    this.#discovery?.stop();
    await this.#gossip?.stop();
    this.#gossip = null;
  }
}
