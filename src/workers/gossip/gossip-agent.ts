import { mkdirSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { type Endpoint, formatEndpoint } from '../../base/endpoint.ts';
import { lanProfile, localProfile, MemberList, type Profile, wanProfile } from '../../gossip/members/member-list.ts';
import type { KeyResponse } from '../../gossip/serf/messages.ts';
import { CLUSTER_TAG, Serf, whyNotTags } from '../../gossip/serf/serf.ts';
import type {
  KeyOperation,
  QueryEvent,
  QueryRequest,
  QueryStart,
  QueryWatcher,
  SerfPort,
  SerfRefusal,
  UserEvent,
} from '../../gossip/serf/types.ts';
import { type Address, META_BYTES_MAX, type Versions } from '../../gossip/types.ts';
import { isWildcard, ownAddress, resolveHost } from '../../net/gossip/hosts.ts';
import { RandomBytes } from '../../net/gossip/random.ts';
import { serfCodec } from '../../net/gossip/serf-codec.ts';
import { GossipTransport, overheadBytes } from '../../net/gossip/transport.ts';
import { Keyring } from '../../net/gossip/wire/keyring.ts';
import { encodeMessage } from '../../net/gossip/wire/messages.ts';
import { NodeDisk } from '../../storage/disk.ts';
import { StartError } from '../../storage/start-error.ts';
import { GossipRun } from './gossip-run.ts';
import { KeptKeyring } from './kept-keyring.ts';
import { KeyringFile } from './keyring-file.ts';
import { MovedAddress, nextLife } from './moved-address.ts';
import { RejoinFile } from './rejoin-file.ts';
import type { GossipFigures, GossipMember, GossipOptions, GossipProfile, GossipStatus } from './types.ts';

/** memberlist's protocols 1 to 5, of which 2 is spoken; Serf's 2 to 5, of which 5. What the real agents say (serf config.go ProtocolVersionMap). */
const VERSIONS: Versions = [1, 5, 2, 2, 5, 5];
const PROFILES: Readonly<Record<GossipProfile, () => Profile>> = {
  local: localProfile,
  lan: lanProfile,
  wan: wanProfile,
};
/** Parts of a leave that end by themselves when nobody is there to hear it (serf config.go BroadcastTimeout, LeavePropagateDelay; shorter: a broker that stops is waited for). */
const LEAVE_BROADCAST_MS = 2_000;
const LEAVE_PROPAGATE_MS = 500;
/** When a node that has lost its name tries again, in ms: the other one may only be what others remember of itself. It doubles each time. */
const NAME_RETRY_MS_MIN = 30_000;
const NAME_RETRY_MS_MAX = 300_000;
const FOLDER = 'gossip';
const FOLDER_MODE = 0o750;

/**
 * A node's gossip: Serf's protocol, so that real agents and their tools work with it. It finds others and says who seems to be alive; it decides nothing.
 *
 * `start` opens the port; `join` asks seeds until one answers, and whenever nobody else is there; `view` is what is known now, `onChange` of the options says
 * that it is new. `leave` tells the others, `stop` closes; both may be called at any time and more than once.
 */
export class GossipAgent {
  readonly #options: GossipOptions;
  readonly #keyring = new Keyring();
  readonly #random = new RandomBytes();
  #run: GossipRun | null = null;
  #rejoin: RejoinFile | null = null;
  /** As they are to be: kept while the node gossips no more. */
  #tags: Readonly<Record<string, string>>;
  readonly #told = new Set<string>();
  #found: readonly string[] = [];
  /** Whoever asks is answered, even if gossip ends first. */
  readonly #asking = new Set<QueryWatcher>();
  #retryMs: number;
  #retry: NodeJS.Timeout | null = null;
  #hasLeft = false;
  #hasStopped = false;

  constructor(options: GossipOptions) {
    this.#options = options;
    this.#tags = options.tags;
    this.#retryMs = options.nameRetryMs ?? NAME_RETRY_MS_MIN;
  }

  /** StartError: the port cannot be had, the advertised name cannot be found, the tags are too large, or the keyring file is damaged. */
  async start(): Promise<void> {
    assert(this.#run === null, 'gossip: started once');
    const { log } = this.#options;
    const folder = this.#folder();
    const keyringFile = folder === null ? null : new KeyringFile(new NodeDisk(), folder);
    this.#rejoin = folder === null ? null : new RejoinFile(join(folder, 'snapshot'), log);
    for (const key of keyringFile?.choose(this.#options.keys, log) ?? this.#options.keys) this.#keyring.add(key);
    const tags = this.#checkedTags(this.#tags);
    const opening: { run: GossipRun | null } = { run: null };
    const transport = await this.#open(opening);
    const address = await this.#ownAddress(transport);
    const moved = this.#movedTo(address, transport);
    const profile = this.#profile();
    const run = new GossipRun({
      profile,
      transport,
      random: this.#random,
      isEncrypted: this.#keyring.primary !== null,
      rejoin: this.#rejoin,
      moved,
      log,
      onChange: () => this.#options.onChange?.(),
      onTold: (event) => this.#tell(event),
      onNameLost: () => void this.#giveUpName(),
    });
    const nodes = (this.#rejoin?.restored.nodes ?? []).filter(({ node }) => node !== this.#options.node);
    // Before anybody hears of the new address: who did would refuse it until then.
    const others = nodes.map((target) => target.address);
    if (moved !== null) await farewell(moved, others);
    if (this.#hasStopped) {
      await transport.close();
      return;
    }
    opening.run = run;
    this.#run = run;
    this.#begin(run, { address, profile, tags, keyringFile, isMoved: moved !== null });
    if (moved !== null) run.meet(others);
    // A node that is killed at once and starts again elsewhere must know where it was.
    this.#rejoin?.noteSelf({ address, incarnation: run.list.self.incarnation });
    await this.#rejoin?.flush();
    log.info('gossip is ready', {
      listen: formatEndpoint({ host: this.#options.listen.host, port: transport.port }),
      advertise: formatEndpoint(address),
      encrypted: this.#keyring.primary !== null,
      remembered: nodes.length,
    });
  }

  /** Where others reach this node; null before `start`. */
  get address(): Address | null {
    return this.#run?.list.self.address ?? null;
  }

  /** HOST:PORT, in any number, also again. Resolves when one has answered, or after `leave` or `stop`; never rejects. */
  join(seeds: readonly string[]): Promise<void> {
    for (const seed of seeds) this.#told.add(seed);
    return this.#run?.seeds.add(seeds) ?? Promise.resolve();
  }

  /** The same for what discovery knows now; these take the place of those before. */
  found(seeds: readonly string[]): Promise<void> {
    this.#found = seeds;
    return this.#run?.seeds.found(seeds) ?? Promise.resolve();
  }

  /** Everybody who is known, this node included; nobody before `start`, and when this node gossips no more. */
  view(): readonly GossipMember[] {
    const run = this.#run;
    if (run === null) return [];
    return run.serf.members.flatMap(({ node, address, tags, status, versions }) => {
      if (status === 'none') return [];
      const isSuspect = status === 'alive' && run.list.get(node)?.state === 'suspect';
      const seen: GossipStatus = isSuspect ? 'suspect' : status;
      const [, , , least, most, current] = versions;
      return [
        {
          node,
          status: seen,
          address,
          tags: Object.fromEntries(tags),
          protocol: [least, most, current] as const,
          isSelf: node === this.#options.node,
        },
      ];
    });
  }

  /** What gossip is encrypted with, the primary key first; none: it is not. */
  keys(): readonly Uint8Array[] {
    return this.#keyring.keys;
  }

  /** What a node says to a query about keys; null: it is no such answer. */
  decode(payload: Uint8Array): KeyResponse | null {
    const answer = serfCodec.decode(payload);
    return answer?.kind === 'keyResponse' ? answer : null;
  }

  /** Replaces all tags; `cluster` is added. A refusal changes nothing. While the node gossips no more they wait until it does. */
  setTags(tags: Readonly<Record<string, string>>): SerfRefusal | null {
    const refusal = this.#do((run, now) => run.serf.setTags(this.#withCluster(tags), now), null);
    if (refusal === null) this.#tags = tags;
    return refusal;
  }

  /** Tells an event to every node, this one too; name and payload together at most 512 bytes. `coalesce`: of several of one name the newest is enough. */
  event(name: string, payload: Uint8Array, coalesce: boolean): SerfRefusal | null {
    return this.#do((run, now) => run.serf.event(name, payload, { coalesce }, now), 'NOT_ALIVE');
  }

  /** Asks every node that `request` means. */
  query(request: QueryRequest, watcher: QueryWatcher): QueryStart {
    return this.#ask(watcher, (run, asking, now) => run.serf.query(request, asking, now));
  }

  /** Answers what `onQuery` told. */
  respond(handle: number, payload: Uint8Array): SerfRefusal | null {
    return this.#do((run, now) => run.serf.respond(handle, payload, now), 'NOT_ALIVE');
  }

  /** Asks every node to change or list its keys; answers are KeyResponse messages. `key`: null for list-keys. */
  queryKeys(operation: KeyOperation | 'list-keys', key: Uint8Array | null, watcher: QueryWatcher): QueryStart {
    return this.#ask(watcher, (run, asking, now) => run.serf.queryKeys(operation, key, asking, now));
  }

  /** Calls a failed node left, for everybody, so that nobody tries to reach it any more. */
  forceLeave(node: string): SerfRefusal | null {
    return this.#do((run, now) => run.serf.forceLeave(node, { prune: false }, now), 'NOT_ALIVE');
  }

  /** For /metrics and tests; null before `start`. */
  get figures(): GossipFigures | null {
    const run = this.#run;
    if (run === null) return null;
    return {
      health: run.list.health,
      rules: run.list.counters,
      nodeQueue: run.list.queueLength,
      serf: run.serf.statistics,
      transport: run.transport.counters,
      keys: this.#keyring.keys.length,
    };
  }

  /** Tells the others that this node leaves on purpose, which spares them to find out. Resolves when they know, or after `withinMs`; then only `stop` is left. */
  async leave(withinMs: number): Promise<void> {
    if (this.#run === null || this.#hasLeft) return;
    this.#hasLeft = true;
    await this.#run.leave(withinMs);
  }

  /** Resolves when the port is free and what was learned is written down. */
  async stop(): Promise<void> {
    this.#hasStopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    await this.#end();
  }

  async #end(): Promise<void> {
    const run = this.#run;
    this.#run = null;
    run?.stop();
    for (const asking of [...this.#asking]) asking.onDone?.();
    await run?.transport.close();
    await this.#rejoin?.flush();
  }

  #begin(
    run: GossipRun,
    {
      address,
      profile,
      tags,
      keyringFile,
      isMoved,
    }: {
      readonly address: Address;
      readonly profile: Profile;
      readonly tags: ReadonlyMap<string, string>;
      readonly keyringFile: KeyringFile | null;
      readonly isMoved: boolean;
    },
  ): void {
    const { node, log } = this.#options;
    const now = performance.now();
    const isEncrypted = this.#keyring.primary !== null;
    const port: SerfPort = {
      ...serfCodec,
      random: (below) => this.#random.below(below),
      keyring: isEncrypted ? new KeptKeyring(this.#keyring, keyringFile, log, () => performance.now()) : null,
      onEvent: (event) => run.onEvent(event),
    };
    const serf = new Serf(
      {
        node,
        tags,
        gossipIntervalMs: profile.gossipIntervalMs,
        retransmitMultiplier: profile.retransmitMultiplier,
        broadcastTimeoutMs: LEAVE_BROADCAST_MS,
        leavePropagateDelayMs: LEAVE_PROPAGATE_MS,
        // All others know the old address: they would vote against the new one.
        resolvesNameConflicts: !isMoved,
        ...(this.#rejoin === null ? {} : { restored: this.#rejoin.restored }),
      },
      port,
      now,
    );
    const list = new MemberList(
      {
        node,
        address,
        versions: VERSIONS,
        profile,
        incarnation: nextLife(this.#rejoin?.past ?? null),
        overheadBytes: overheadBytes(this.#options.label, this.#keyring),
      },
      run,
      serf,
      now,
    );
    serf.attach(list);
    run.begin(list, serf);
  }

  /** A failed name may come back at another address at once: identities are the cluster's matter, gossip only has to find them. */
  #profile(): Profile {
    const profile = PROFILES[this.#options.profile]();
    return { ...profile, deadNodeReclaimMs: profile.probeIntervalMs };
  }

  async #open(opening: { readonly run: GossipRun | null }): Promise<GossipTransport> {
    const { listen, label, log } = this.#options;
    try {
      const [host] = await resolveHost(listen.host);
      return await GossipTransport.open({
        host: host ?? listen.host,
        port: listen.port,
        label,
        keyring: this.#keyring,
        random: this.#random,
        handler: {
          onMessages: (messages, from) => opening.run?.onMessages(messages, from),
          onStream: (message, from) => opening.run?.onStream(message, from) ?? null,
        },
        log,
      });
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      const words = `gossip.listen: ${message}; choose another address, or stop what uses it`;
      throw new StartError('PORT_UNAVAILABLE', words, { cause });
    }
  }

  async #ownAddress(transport: GossipTransport): Promise<Address> {
    const { advertise, listen } = this.#options;
    const chosen: Endpoint = advertise ?? listen;
    try {
      const [bound = listen.host] = await resolveHost(listen.host);
      const hosts = await resolveHost(chosen.host);
      // Of a name with addresses of both kinds the one that this socket can answer from.
      const host = hosts.find((one) => bound === '::' || isIPv6(one) === isIPv6(bound)) ?? hosts[0] ?? chosen.host;
      return {
        host: isWildcard(host) ? ownAddress(host) : host,
        port: chosen.port === 0 ? transport.port : chosen.port,
      };
    } catch (cause) {
      await transport.close();
      const message = cause instanceof Error ? cause.message : String(cause);
      const words = `gossip.advertise: ${message}; name an address that the other nodes reach this one at`;
      throw new StartError('ADVERTISE_NEEDED', words, { cause });
    }
  }

  #movedTo(address: Address, transport: GossipTransport): MovedAddress | null {
    const past = this.#rejoin?.past ?? null;
    if (past === null || (past.address.host === address.host && past.address.port === address.port)) return null;
    const meta = serfCodec.encodeTags(this.#withCluster(this.#tags));
    return new MovedAddress(
      { node: this.#options.node, past, versions: VERSIONS, meta },
      {
        send: (to, message) => transport.send(to, [encodeMessage(message)], false),
        now: () => performance.now(),
      },
    );
  }

  #checkedTags(tags: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
    const all = this.#withCluster(tags);
    const refusal = whyNotTags(serfCodec, all);
    if (refusal === null) return all;
    const words = `the tags of this node have more than ${META_BYTES_MAX} bytes with their names: shorten ${[...all.keys()].join(', ')}`;
    throw new StartError('ADVERTISE_NEEDED', words);
  }

  #withCluster(tags: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
    return new Map([...Object.entries(tags), [CLUSTER_TAG, this.#options.clusterName]]);
  }

  #folder(): string | null {
    const { dataDirectory } = this.#options;
    if (dataDirectory === null) return null;
    const folder = join(dataDirectory, FOLDER);
    try {
      mkdirSync(folder, { mode: FOLDER_MODE, recursive: true });
    } catch (cause) {
      throw new StartError('DATA_DIRECTORY_UNUSABLE', `${folder} cannot be made: ${String(cause)}`, { cause });
    }
    return folder;
  }

  #tell(event: UserEvent | QueryEvent): void {
    if (event.kind === 'user') this.#options.onUserEvent?.(event);
    else this.#options.onQuery?.(event);
  }

  /**
   * Two that go by one name would each undo what the other says, so this one is quiet. For a while only: the other may be this node itself, which was
   * somewhere else a moment ago and has forgotten it.
   */
  async #giveUpName(): Promise<void> {
    const { node, log, onChange } = this.#options;
    const ms = this.#retryMs;
    this.#retryMs = Math.min(Math.max(NAME_RETRY_MS_MAX, ms), ms * 2);
    log.error(
      'another node has the name of this one: it gossips no more, and tries again later. If the other one is no former self of it, start it again with another --node-id',
      { node, retryMs: ms },
    );
    await this.#end();
    onChange?.();
    if (!this.#hasStopped) this.#retry = setTimeout(() => void this.#startAgain(), ms);
  }

  async #startAgain(): Promise<void> {
    this.#retry = null;
    if (this.#hasStopped || this.#hasLeft) return;
    try {
      await this.start();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#options.log.error('gossip does not come back, and is tried again later', {
        reason,
        retryMs: this.#retryMs,
      });
      this.#retry = setTimeout(() => void this.#startAgain(), this.#retryMs);
      return;
    }
    void this.join([...this.#told]);
    if (this.#found.length > 0) void this.found(this.#found);
    this.#options.onChange?.();
  }

  #ask(watcher: QueryWatcher, act: (run: GossipRun, asking: QueryWatcher, now: number) => QueryStart): QueryStart {
    const asking: QueryWatcher = {
      ...watcher,
      onDone: () => {
        if (this.#asking.delete(asking)) watcher.onDone?.();
      },
    };
    this.#asking.add(asking);
    const started = this.#do((run, now) => act(run, asking, now), { refusal: 'NOT_ALIVE' } as QueryStart);
    if ('refusal' in started) this.#asking.delete(asking);
    return started;
  }

  /** `otherwise`: before `start`, and when it has stopped, which it does by itself when it has lost its name. */
  #do<T>(act: (run: GossipRun, now: number) => T, otherwise: T): T {
    const run = this.#run;
    if (run === null) return otherwise;
    const result = act(run, performance.now());
    run.touch();
    return result;
  }
}

/** Resolves when they have heard it, or the packets are lost. */
function farewell(moved: MovedAddress, targets: readonly Address[]): Promise<void> {
  return targets.length === 0 ? Promise.resolve() : new Promise((resolve) => moved.farewell(targets, resolve));
}
