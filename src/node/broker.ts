import { randomUUID } from 'node:crypto';
import { defined } from '../base/assert.ts';
import { Exclusive } from '../base/exclusive.ts';
import { armFailpoints } from '../base/failpoint.ts';
import { type LoadedAccess, loadAccessFile } from '../config/access-file.ts';
import { hostNames } from '../config/console-rules.ts';
import { formatEndpoint } from '../config/endpoint.ts';
import { failpointSpec } from '../config/environment.ts';
import {
  joinsNeedProof,
  openListeners,
  refuseStrangers,
  type Strangers,
  strangersOf,
} from '../config/listener-rules.ts';
import { advertisedBy, hasGossip } from '../config/membership-rules.ts';
import { RING_RECORD_OVERHEAD_BYTES } from '../config/rules.ts';
import type { Config } from '../config/schema.ts';
import { shownSetting } from '../config/shown-setting.ts';
import { hasAdminTls, peersTls, portTls, tlsFiles } from '../config/tls-rules.ts';
import { WebConsole } from '../console/console.ts';
import type { ConsoleSources } from '../console/ports.ts';
import { openDiscovery } from '../discovery/open-discovery.ts';
import { AnswerBudget } from '../grpc/answer-budget.ts';
import { createGrpcServer, type GrpcServer } from '../grpc/server.ts';
import { LogLimit } from '../net/log-limit.ts';
import { createDoorbell, Doorbell } from '../shm/doorbell.ts';
import { type ClaimedDatabase, checkStoreKind, markStore } from '../storage/bind-store.ts';
import {
  type DataDirectory,
  type NodeIdentity,
  openDataDirectory,
  readNodeIdentity,
} from '../storage/data-directory.ts';
import { databaseOptions } from '../storage/database-options.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { diskRoom } from '../storage/disk-room.ts';
import type { DatabaseOptions } from '../storage/open-database.ts';
import { AdminServer, type AdminSources, type Health } from '../telemetry/admin-http.ts';
import type { Logger } from '../telemetry/log.ts';
import type { MetricsRegistry } from '../telemetry/metrics.ts';
import type { TlsKeeper } from '../tls/tls-keeper.ts';
import { type AccessControl, type AccessControlOptions, openAccess } from '../workers/access/access-control.ts';
import { AdminService } from '../workers/admin/admin-service.ts';
import { ConsoleFetches } from '../workers/admin/console-fetches.ts';
import { debugInfoOf } from '../workers/admin/debug-sources.ts';
import { InspectService } from '../workers/admin/inspect-service.ts';
import { watchNodes } from '../workers/admin/live-nodes.ts';
import { openShardsAdmin } from '../workers/admin/open-shards-admin.ts';
import type { SettingsService } from '../workers/admin/settings-service.ts';
import type { ShardsAdmin } from '../workers/admin/shards-admin.ts';
import { TenantsService } from '../workers/admin/tenants-service.ts';
import { OverloadGuard } from '../workers/front/admission.ts';
import { Dispatcher } from '../workers/front/dispatcher.ts';
import { dispatcherLimits } from '../workers/front/dispatcher-limits.ts';
import { watchLoad } from '../workers/front/load-watch.ts';
import { MeteredEngine } from '../workers/front/metered-engine.ts';
import { Quotas } from '../workers/front/quotas.ts';
import { traceDispatcher } from '../workers/front/trace-dispatcher.ts';
import { Membership } from '../workers/membership/membership.ts';
import { PeerSecurity } from '../workers/membership/peer-security.ts';
import type { LogLine, RaftThreadData } from '../workers/messages.ts';
import { addDiskSpace } from '../workers/metrics/disk-metrics.ts';
import { frontMetrics } from '../workers/metrics/front-metrics.ts';
import { addMembers } from '../workers/metrics/raft-metrics.ts';
import { addTls } from '../workers/metrics/tls-metrics.ts';
import { meetPeers } from '../workers/peers/meet-peers.ts';
import { RaftCounters } from '../workers/raft/raft-counters.ts';
import { RaftHandle } from '../workers/raft/raft-handle.ts';
import { raftSettings } from '../workers/raft/raft-settings.ts';
import { ShardCounters } from '../workers/shard/shard-counters.ts';
import { shardSettings } from '../workers/shard/shard-settings.ts';
import { ShardPool } from '../workers/shard-pool.ts';
import { MoveCounters } from '../workers/slots/move-counters.ts';
import type { Resizer } from '../workers/slots/resizer.ts';
import { SlotTable } from '../workers/slots/slot-table.ts';
import { compareWithLog, tellLosses } from '../workers/store/check-database.ts';
import { DatabaseKeeper } from '../workers/store/database-keeper.ts';
import { FenceWatch } from '../workers/store/fence-watch.ts';
import { RetentionKeeper } from '../workers/store/retention-keeper.ts';
import { sealSegments } from '../workers/store/seal-segments.ts';
import { StoreHealth } from '../workers/store/store-health.ts';
import { WeaknessWatch } from '../workers/store/weakness-watch.ts';
import { addTraceMetrics } from '../workers/tracing/trace-metrics.ts';
import { Tracing } from '../workers/tracing/tracing.ts';
import { VerifyService } from '../workers/verify/verify-service.ts';
import { Ending } from './ending.ts';
import { EXIT } from './exit-codes.ts';
import { InsecureListeners } from './insecure-listeners.ts';
import { listening } from './listening.ts';
import { needAuthorities, openTls } from './open-tls.ts';

/** To leave the lead and gossip to others is bounded by itself (membership.ts); this ends what should not happen. */
const LEAVE_MS = 10_000;
/**
 * What clients may take to read the ends of their calls once nothing of the broker is in flight. Watchers of its health, reflection and requests
 * that never end are no work: what they hold open must not use up shutdown.drain.
 */
const LAST_READS_MS = 1_000;
const SWEEP_MS = 1_000;

/** What has been started, for stopping it in the opposite order; null = not yet. */
export class Broker {
  readonly #config: Config;
  readonly #logger: Logger;
  readonly #settings: SettingsService;
  /** The process has to end, with that code. */
  readonly #onDeath: (exit: number) => void;
  /** How the process ends, once it cannot go on. */
  died: number | null = null;
  /** Null: the start has not come to it. */
  access: AccessControl | null = null;
  readonly #quotas: Quotas;
  readonly #dispatcher: Dispatcher;
  /** One for each shard that there may be. */
  readonly #counters: readonly ShardCounters[];
  readonly #storeHealth: StoreHealth;
  readonly #table: SlotTable;
  readonly #moves: MoveCounters;
  /** What concerns all shards at once happens in turns: retention, moves of slots. */
  readonly #turns = new Exclusive();
  #resizer: Resizer | null = null;
  readonly #loop = { stopped: false };
  readonly #timers: NodeJS.Timeout[] = [];
  #bell: Doorbell | null = null;
  #directory: DataDirectory | null = null;
  #raft: RaftHandle | null = null;
  #shards: ShardPool | null = null;
  #admin: AdminServer | null = null;
  #console: ConsoleSources | null = null;
  #metrics: MetricsRegistry | null = null;
  readonly #raftCounters = new RaftCounters();
  #grpc: GrpcServer | null = null;
  readonly #ending: Ending;
  #retention: RetentionKeeper | null = null;
  #keeper: DatabaseKeeper | null = null;
  #fence: FenceWatch | null = null;
  #weakness: WeaknessWatch | null = null;
  #verify: VerifyService | null = null;
  /** Null with the embedded store, and until it is reached. */
  #claimed: ClaimedDatabase | null = null;
  /** Null with the embedded store. */
  #database: DatabaseOptions | null = null;
  readonly #membership: Membership;
  /** Of this node and the others; null: the node's name is not known yet. */
  #security: PeerSecurity | null = null;
  readonly #insecure: InsecureListeners;
  /** By the access file. */
  #strangers: Strangers = { call: false, observe: false };
  /** It is known whether the node has peers. */
  #hasEntered = false;
  /** Null: no port speaks TLS, or it is not read yet. */
  #tls: TlsKeeper | null = null;
  readonly #news: LogLimit;
  /** Null: tracing.endpoint is not set. */
  readonly #tracing: Tracing | null;
  /** Why the node is not ready; empty when it is. */
  #notReady: string[] = ['starting'];
  /** It has been ready: what ends it before is a start that failed, such as a log that is older than the store. */
  #hasServed = false;

  constructor(
    config: Config,
    logger: Logger,
    settings: SettingsService,
    stopping: AbortSignal,
    onDeath: (exit: number) => void,
  ) {
    this.#onDeath = onDeath;
    this.#config = config;
    this.#logger = logger;
    this.#ending = new Ending(logger);
    this.#news = new LogLimit(logger);
    this.#insecure = new InsecureListeners(logger);
    this.#settings = settings;
    const { overload, shards } = config;
    this.#counters = Array.from({ length: shards.max }, () => new ShardCounters());
    this.#storeHealth = new StoreHealth(this.#counters);
    this.#table = new SlotTable(shards.count);
    this.#moves = new MoveCounters(shards.max);
    this.#membership = new Membership({
      config,
      seeds: (config.join ?? []).map(formatEndpoint),
      gossips: hasGossip(config),
      seeks: config.gossip.join !== null || config.discovery.kind !== 'none',
      openDiscovery: (events) => openDiscovery(config.discovery, events),
      joinsNeedProof: joinsNeedProof(config),
      advertised: advertisedBy(config),
      log: logger,
      stopping,
      onLeaderless: (isLeaderless) => this.#serveCalls(!isLeaderless),
    });
    this.#quotas = new Quotas(config.quotas);
    settings.register('quotas.rules', ({ quotas }) => this.#quotas.apply(quotas.rules));
    settings.register('quotas.burst', ({ quotas }) => this.#quotas.setLimits(quotas));
    settings.register('quotas.tenants_max', ({ quotas }) => this.#quotas.setLimits(quotas));
    this.#dispatcher = new Dispatcher(
      dispatcherLimits(config, RING_RECORD_OVERHEAD_BYTES),
      new OverloadGuard({ targetMs: overload.targetMs, intervalMs: overload.intervalMs }),
      this.#table,
      this.#quotas,
    );
    const { endpoint } = config.tracing;
    this.#tracing = endpoint === null ? null : new Tracing({ ...config.tracing, endpoint }, logger);
  }

  /**
   * Ports are opened last, the gRPC port only when everything behind it works. StartStopped if it is told to stop while it waits for other nodes.
   */
  async start(): Promise<void> {
    const config = this.#config;
    const startedAt = performance.now();
    const failpoints = failpointSpec();
    armFailpoints(failpoints);
    this.#tls = openTls(tlsFiles, config, this.#logger, this.#settings);
    this.#database = databaseOptions(config);
    const { redactor } = this.#settings;
    const load: AccessControlOptions['load'] = (path, onRead) => this.#loadAccess(path, onRead);
    this.access = openAccess({ config, load, log: this.#logger, redactor, shownSetting });
    const disk = new NodeDisk();
    const nodeId = config.nodeId ?? readNodeIdentity(disk, config.dataDir)?.nodeId ?? randomUUID().slice(0, 8);
    this.#directory = openDataDirectory(disk, config.dataDir, { clusterName: config.cluster, nodeId, now: Date.now() });
    const { path } = this.#directory;
    let { node } = this.#directory;
    const admin = await this.#openAdmin(this.#directory);
    checkStoreKind(disk, path, config.store.kind);
    this.#security = new PeerSecurity({
      ...{ cluster: config.cluster, nodeId: node.nodeId, mode: peersTls(config), keeper: this.#tls },
      ...{ log: this.#logger, news: this.#news },
    });
    await this.#membership.meet(this.#directory, this.#metrics, this.#security);
    if (this.#database === null) sealSegments(disk, path, this.#logger);
    else node = await this.#enter(disk, this.#database, this.#directory);

    this.#judgeListeners();
    if (this.#membership.cluster !== null) needAuthorities(config);
    this.#hasEntered = true;
    const mainDoorbell = createDoorbell();
    const raftDoorbell = createDoorbell();
    const open = (of: NodeIdentity): RaftHandle => this.#startRaft(path, of, raftDoorbell, mainDoorbell, failpoints);
    this.#raft = open(node);
    const damage = await this.#membership.damageOf(this.#raft);
    if (damage !== null && this.#database !== null) {
      const mended = await this.#membership.mend(disk, this.#directory, node, damage);
      await this.#claimed?.close();
      node = await this.#enter(disk, this.#database, mended);
      this.#raft = open(node);
      await this.#membership.damageOf(this.#raft);
    }
    this.#membership.follow(this.#raft, this.#dispatcher.peers);
    const { cluster } = this.#membership;
    if (cluster !== null && this.#metrics !== null) addMembers(this.#metrics, this.#raft);
    if (cluster !== null) this.#notReady = ['starting: more than half of the voters have to reach each other'];
    if (this.#claimed !== null)
      await this.#membership.unlessStopped(compareWithLog(this.#claimed, this.#raft, this.#logger));
    const { status, lastStored } = await this.#membership.unlessStopped(this.#raft.ready);
    this.#logger.info('the log is recovered', { ...status });
    await this.#membership.settle(disk, path, this.#raft);
    if (this.#claimed !== null) {
      await this.#takeOver(this.#claimed, path);
      await tellLosses(this.#claimed, lastStored, this.#logger);
    }
    this.#bell = new Doorbell(mainDoorbell);
    this.#bell
      .run(() => this.#dispatcher.doWork(), this.#loop)
      .catch((error: unknown) => this.die('main_loop_failed', error));
    this.#shards = this.#makeShards(path, this.#raft, raftDoorbell, mainDoorbell, failpoints);
    await this.#shards.start(await this.#raft.openAllotments());
    this.#timers.push(...watchLoad(this.#dispatcher, this.#counters));
    if (this.#database === null) this.#retention = this.#keepRetention(disk, path, this.#raft, this.#shards);
    if (this.#claimed !== null) this.#keepDatabase(this.#claimed, this.#raft);

    if (this.#tracing !== null) traceDispatcher(this.#tracing, this.#dispatcher, node.nodeId);
    const grpc = await this.#openGrpc(this.#raft, node, this.#manageShards(this.#shards));
    this.#notReady = [];
    this.#hasServed = true;
    this.#serveCalls(true);
    this.#membership.watch();
    const ms = Math.round(performance.now() - startedAt);
    this.#logger.info('ready', { node: node.nodeId, grpc, admin, shards: config.shards.count, ms });
  }

  async #enter(disk: Disk, database: DatabaseOptions, directory: DataDirectory): Promise<NodeIdentity> {
    const { node, claimed } = await this.#membership.enter(disk, database, directory);
    this.#claimed = claimed;
    this.#judgeWeaknesses(claimed.weaknesses);
    for (const weakness of claimed.weaknesses) {
      this.#logger.warn('acknowledged messages are replicated, not durable', { weakness });
    }
    markStore(disk, directory.path, this.#config.store.kind);
    return node;
  }

  /** At the start, and whenever the file is another one. */
  #loadAccess(path: string, onRead: (file: string) => void): LoadedAccess {
    const loaded = loadAccessFile(path, onRead);
    refuseStrangers(this.#config, loaded.policy);
    this.#strangers = strangersOf(loaded.policy);
    if (this.#hasEntered) this.#judgeListeners();
    return loaded;
  }

  /** Again, with what the configuration alone could not know: what the access file says, and whether the data directory is one of a node with peers. */
  #judgeListeners(): void {
    const config = this.#config;
    const found = { isClustered: this.#membership.cluster !== null, strangers: this.#strangers };
    this.#insecure.judge(openListeners(config, found), config.insecure);
  }

  /** What calls ask for needs the log, reads included: without a leader new ones would only wait. */
  #serveCalls(isServing: boolean): void {
    if (isServing) this.#dispatcher.admit();
    else this.#dispatcher.refuseNew('NOT_READY');
    this.#grpc?.setServing(isServing);
  }

  /** What an acknowledgement means from now on. */
  #judgeWeaknesses(weaknesses: readonly string[]): void {
    this.#dispatcher.producers.isWeak = weaknesses.length > 0;
    this.#storeHealth.weaknesses = weaknesses;
  }

  #keepDatabase(database: ClaimedDatabase, raft: RaftHandle): void {
    const log = (line: LogLine): void => this.#log('main', line);
    const onChanged = (found: readonly string[]): void => this.#judgeWeaknesses(found);
    const weakness = new WeaknessWatch({ database, log, onChanged }, database.weaknesses);
    const [counters, health] = [this.#counters, this.#storeHealth];
    this.#keeper = new DatabaseKeeper({ database, counters, health, raft, log, onBack: () => void weakness.look() });
    this.#weakness = weakness;
    this.#keeper.start();
    weakness.start();
  }

  /**
   * From here on the database is this process's, whoever had it. Behind all that may refuse the start for what is in the data directory: a copy of
   * it that cannot be served must not end the right broker. Before anything is written to the database.
   */
  async #takeOver(database: ClaimedDatabase, path: string): Promise<void> {
    await database.takeOver();
    const { fence } = database;
    this.#fence = new FenceWatch({
      fence,
      log: (line) => this.#log('main', line),
      onLost: (to) => {
        const why = `another broker has started on a copy of this data directory (${path}): the database is of ${to}, not of this process (incarnation ${fence.incarnation}) any more. Keep one of the two directories`;
        this.die('DATA_DIRECTORY_COPIED', why, EXIT.copied);
      },
    });
    this.#fence.start();
  }

  /** No new work, then the work in flight is answered, at most for shutdown.drain. */
  async drain(): Promise<void> {
    this.#notReady = ['shutting down'];
    const resized = this.#resizer?.stop();
    this.#verify?.stop();
    this.#grpc?.setServing(false);
    this.#dispatcher.refuseNew('SHUTTING_DOWN');
    const deadline = performance.now() + this.#config.shutdown.drainMs;
    // What is in flight is finished by the next leader, without an election in between.
    await this.#ending.step('the part in the cluster', () => this.#membership.leave(this.#raft), LEAVE_MS);
    const { producers } = this.#dispatcher;
    while ((this.#dispatcher.callsInFlight > 0 || !producers.isIdle) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#dispatcher.refuseHeld('SHUTTING_DOWN');
    this.#resizer?.abandon();
    await this.#ending.step('a move of slots', () => resized);
    producers.endAll('SHUTTING_DOWN');
    this.#dispatcher.subscriptions.endAll('SHUTTING_DOWN');
    this.#dispatcher.consumers.endAll('SHUTTING_DOWN');
    this.#dispatcher.peers.stop();
    await this.#grpc?.drain(Math.max(0, Math.min(LAST_READS_MS, deadline - performance.now())));
  }

  /** True if a part did not stop: the process has to be ended. */
  get isStuck(): boolean {
    return this.#ending.isStuck;
  }

  /** Whatever becomes of one step, the next ones have their turn: above all, the lock of the data directory is given back. */
  async stop(): Promise<void> {
    const ending = this.#ending;
    // Closed already behind a drain. A start that is given up takes no last calls.
    await ending.step('the gRPC port', () => this.#grpc?.drain(0));
    await ending.step('the access file', () => this.access?.stop());
    await ending.step('retention', () => this.#retention?.stop());
    await ending.step('the watch of the database', () => this.#keeper?.stop());
    await ending.step('the watch of the fence', () => this.#fence?.stop());
    await ending.step('the watch of settings of the database', () => this.#weakness?.stop());
    await ending.step('connections to other nodes', () => this.#dispatcher.peers.stop());
    await ending.step('quotas', () => this.#quotas.stop());
    await ending.step('the shards', () => this.#shards?.stop());
    await ending.step('gossip', () => this.#membership.stop());
    await ending.step('the Raft thread', () => this.#raft?.stop());
    await ending.step('the main loop', () => {
      this.#loop.stopped = true;
      this.#bell?.poke();
      for (const timer of this.#timers) clearInterval(timer);
    });
    await ending.step('certificates', () => this.#tls?.stop());
    await ending.step('warnings', () => this.#insecure.stop());
    await ending.step('tracing', () => this.#tracing?.close());
    await ending.step('the database', () => this.#claimed?.close());
    await ending.step('the admin port', () => this.#admin?.close());
    await ending.step('the data directory', () => this.#directory?.close());
  }

  #startRaft(
    path: string,
    node: NodeIdentity,
    doorbell: SharedArrayBuffer,
    mainDoorbell: SharedArrayBuffer,
    failpoints: string,
  ): RaftHandle {
    const data: RaftThreadData = {
      ...raftSettings(this.#config),
      dataDirectory: path,
      nodeName: node.nodeId,
      instanceId: node.instanceId,
      hasDatabase: this.#database !== null,
      counters: this.#raftCounters.buffer,
      owners: this.#table.buffer,
      doorbell,
      mainDoorbell,
      failpoints,
      cluster: this.#membership.cluster,
      isTracing: this.#tracing !== null,
    };
    return new RaftHandle(data, {
      onLog: (line) => this.#log('raft', line),
      onDeath: (reason, message) => this.die(reason, message),
      ...this.#membership.events,
      onGaveIds: (ids) => this.#tracing?.gaveIds(ids),
      onAnswersLost: () => this.#shards?.replaceAll('a snapshot of the leader stands for answers of the log'),
    });
  }

  #makeShards(
    path: string,
    raft: RaftHandle,
    raftDoorbell: SharedArrayBuffer,
    mainDoorbell: SharedArrayBuffer,
    failpoints: string,
  ): ShardPool {
    const { shards } = this.#config;
    return new ShardPool(
      {
        shards: shards.count,
        shardsMax: shards.max,
        hasPeers: this.#membership.cluster !== null,
        table: this.#table,
        dataDirectory: path,
        ...shardSettings(this.#config, this.#database),
        mainDoorbell,
        raftDoorbell,
        counters: this.#counters.map(({ buffer }) => buffer),
        failpoints,
        tracing: this.#tracing?.shardSettings ?? null,
      },
      raft,
      {
        onLog: (line) => this.#log('shard', line),
        onShardDied: (shard, message) => {
          this.#logger.error('a shard thread died; its calls are answered OUTCOME_UNKNOWN and it is replaced', {
            shard,
            error: message,
          });
          this.#dispatcher.detach(shard);
        },
        onShardReady: (connection) => this.#dispatcher.attach(connection),
        onShardRetired: (shard) => {
          this.#dispatcher.retire(shard);
          this.#counters[shard]?.clearLevels();
        },
        onFatal: (reason, message) => this.die(reason, message),
      },
    );
  }

  #keepRetention(disk: Disk, path: string, raft: RaftHandle, shards: ShardPool): RetentionKeeper {
    const keeper = new RetentionKeeper({
      disk,
      dataDirectory: path,
      policy: this.#config.retention,
      shards,
      raft,
      log: (line) => this.#log('main', line),
      turns: this.#turns,
    });
    keeper.start();
    return keeper;
  }

  /** Resolves with HOST:PORT, with the port that the system chose for 0. */
  async #openAdmin(directory: DataDirectory): Promise<string> {
    const shards = {
      counters: this.#counters,
      table: this.#table,
      moves: this.#moves,
      isThere: (shard: number) => this.#shards?.members.includes(shard) ?? shard < this.#config.shards.count,
    };
    const metrics = frontMetrics({
      dispatcher: this.#dispatcher,
      shards,
      raft: this.#raftCounters,
      config: this.#config,
      nodeId: directory.node.nodeId,
      isReady: () => this.#ready().ready,
      connections: () => this.#grpc?.connections ?? null,
    });
    addDiskSpace(metrics, directory.path);
    this.access?.addMetrics(metrics);
    this.#insecure.addTo(metrics);
    addTls(
      metrics,
      this.#tls,
      () => this.#grpc?.handshakeFailures ?? null,
      () => this.#grpc?.certificates ?? null,
    );
    if (this.#tracing !== null) addTraceMetrics(metrics, this.#tracing);
    this.#metrics = metrics;
    const sources: AdminSources = {
      metrics: () => metrics.text(),
      metricsContentType: metrics.contentType,
      ready: () => this.#ready(),
      alive: () => this.#alive(),
      onError: (error) => this.#logger.error('an admin page failed', { error: String(error) }),
      ...this.access?.metricsGuard,
      ...(this.#config.console.enabled ? { pages: this.#webConsole() } : {}),
    };
    const keeper = hasAdminTls(this.#config) ? this.#tls : null;
    const tls = keeper === null ? null : { ...portTls(this.#config), keeper, news: this.#news };
    this.#admin = new AdminServer(sources, {}, tls);
    const { host, port } = this.#config.admin.listen;
    return formatEndpoint({ host, port: await listening('admin.listen', this.#admin.listen(host, port)) });
  }

  #webConsole(): WebConsole {
    return new WebConsole({
      sources: () => this.#console,
      access: this.access?.observers ?? null,
      mayWrite: this.#config.console.write,
      hosts: hostNames(this.#config),
      onChange: (change) => this.access?.audit.acted(change),
      onDefect: (error) => this.#logger.error('an answer of the console failed', { error: String(error) }),
      now: Date.now,
    });
  }

  /** Traffic that only writes has no business here while the store takes nothing; the process is well and reads go on. */
  #ready(): Health {
    const reasons = [...this.#notReady, ...this.#membership.problems, ...this.#storeHealth.refusals()];
    return { ready: reasons.length === 0, reasons };
  }

  /** A shard that is being replaced is alive: that takes a moment and needs nobody's help. */
  #alive(): Health {
    const isAlive = this.#raft?.alive ?? true;
    return { ready: isAlive, reasons: isAlive ? [] : ['the Raft thread is gone'] };
  }

  #manageShards(pool: ShardPool): ShardsAdmin {
    const { admin, resizer, timers } = openShardsAdmin({
      config: this.#config,
      pool,
      dispatcher: this.#dispatcher,
      table: this.#table,
      moves: this.#moves,
      counters: this.#counters,
      turns: this.#turns,
      metrics: this.#metrics,
      log: this.#logger,
      logLine: (line) => this.#log('main', line),
    });
    this.#resizer = resizer;
    this.#timers.push(...timers);
    return admin;
  }

  /** Resolves with HOST:PORT, with the port that the system chose for 0. */
  async #openGrpc(raft: RaftHandle, node: NodeIdentity, shards: ShardsAdmin): Promise<string> {
    const { limits, grpc, subscribe } = this.#config;
    const answers = new AnswerBudget(limits.inFlightBytes, subscribe.stallTimeoutMs);
    this.#timers.push(setInterval(() => answers.sweep(performance.now()), SWEEP_MS));
    this.#dispatcher.consumers.useDirectory(raft);
    const cluster = this.#membership.service(
      raft,
      node,
      () => advertisedBy(this.#config)?.grpc ?? this.#grpc?.address ?? '',
    );
    if (this.#membership.cluster !== null) this.#timers.push(watchNodes(cluster, this.#quotas));
    const admin = new AdminService(
      this.#dispatcher,
      raft,
      this.#counters,
      this.#config,
      node.nodeId,
      shards,
      this.#storeHealth,
      cluster,
      {
        ready: () => this.#ready(),
        diskRoom: () => diskRoom(this.#config.dataDir),
        connections: () => this.#grpc?.connections.open ?? 0,
        warnings: () => this.#insecure.warnings,
      },
    );
    const inspect = new InspectService({
      dispatcher: this.#dispatcher,
      load: () => shards.load(),
      connections: () => this.#grpc?.connectionNotes() ?? [],
    });
    const tenants = new TenantsService(this.#quotas);
    const { subscriptions, consumers } = this.#dispatcher;
    this.#console = {
      ...{ name: node.nodeId, node: admin, members: cluster, messages: new ConsoleFetches(this.#dispatcher) },
      delivered: () => subscriptions.delivered + consumers.messages,
      ...{ inspect, tenants, settings: this.#settings },
    };
    const security = defined(this.#security, 'the node has no name');
    const options = { messageBytes: limits.messageBytes, log: this.#logger, security: security.credentials };
    this.#verify = new VerifyService({
      raft,
      dataDirectory: this.#config.dataDir,
      database: this.#database,
      log: (line) => this.#log('main', line),
    });
    const peers = this.#membership.cluster === null ? null : meetPeers(this.#dispatcher.peers, raft, node, options);
    this.#grpc = createGrpcServer({
      engine: new MeteredEngine(this.#dispatcher, this.#quotas),
      admin,
      settings: this.#settings,
      verify: this.#verify,
      debug: debugInfoOf({
        log: this.#logger,
        settings: this.#settings,
        metrics: () => this.#metrics,
        raft: raft.thread,
        shards: () => this.#shards?.threads ?? [],
      }),
      inspect,
      cluster,
      tenants,
      ...(peers === null ? {} : { peers }),
      ...this.access?.door,
      limits,
      maxConnectionAgeMs: grpc.maxConnectionAgeMs,
      ...(this.#tls === null ? {} : { tls: { ...portTls(this.#config), keeper: this.#tls } }),
      news: this.#news,
      callers: security.callers(this.access?.callers ?? null, this.access?.audit ?? null),
      log: this.#logger,
      abuseLog: new LogLimit(this.#logger),
      answers,
      receiving: this.#dispatcher.receiving,
      tracing: this.#tracing,
    });
    await listening('grpc.listen', this.#grpc.listen(grpc.listen));
    await this.#grpc.checkWindows();
    return this.#grpc.address;
  }

  #log(thread: string, line: LogLine): void {
    this.#logger.forward(thread, line);
  }

  /** What cannot be worked around ends the process: its clients reconnect to what is restarted, and nothing acknowledged is lost. */
  die(reason: string, cause: unknown, exit: number = EXIT.died): void {
    // Nothing more is acknowledged: what shards have stored meanwhile stays unanswered.
    this.#loop.stopped = true;
    const error = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    this.#logger.error('the broker cannot go on', { reason, error });
    this.#logger.flush();
    const code = this.#hasServed ? exit : EXIT.startFailed;
    this.died = code;
    this.#onDeath(code);
  }
}
