/** Composition root of the server: opens what is needed in order, and closes it in the opposite order. */
import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import { Exclusive } from './base/exclusive.ts';
import { armFailpoints } from './base/failpoint.ts';
import { formatEndpoint } from './config/endpoint.ts';
import { failpointSpec } from './config/environment.ts';
import { advertisedBy, RING_RECORD_OVERHEAD_BYTES } from './config/rules.ts';
import type { Config } from './config/schema.ts';
import { AnswerBudget } from './grpc/answer-budget.ts';
import { createGrpcServer, type GrpcServer } from './grpc/server.ts';
import { createDoorbell, Doorbell } from './shm/doorbell.ts';
import { type ClaimedDatabase, checkStoreKind, markStore } from './storage/bind-store.ts';
import {
  type DataDirectory,
  type NodeIdentity,
  openDataDirectory,
  readNodeIdentity,
} from './storage/data-directory.ts';
import { databaseOptions } from './storage/database-options.ts';
import { type Disk, NodeDisk } from './storage/disk.ts';
import { sealLanes, sealNews } from './storage/embedded/seal-lanes.ts';
import type { DatabaseOptions } from './storage/open-database.ts';
import { StartError } from './storage/start-error.ts';
import { AdminServer, type Health } from './telemetry/admin-http.ts';
import { createLogger, type Logger } from './telemetry/log.ts';
import { DatabaseKeeper } from './workers/database-keeper.ts';
import { FenceWatch } from './workers/fence-watch.ts';
import { AdminService } from './workers/front/admin-service.ts';
import { OverloadGuard } from './workers/front/admission.ts';
import { Dispatcher } from './workers/front/dispatcher.ts';
import { frontMetrics } from './workers/front/front-metrics.ts';
import { ShardsAdmin } from './workers/front/shards-admin.ts';
import { StoreHealth } from './workers/front/store-health.ts';
import { Membership, StartStopped } from './workers/membership/membership.ts';
import type { LogLine, RaftThreadData, StoredAllotment } from './workers/messages.ts';
import { meetPeers } from './workers/peers/meet-peers.ts';
import { allotLimits } from './workers/raft/allot-limits.ts';
import { RaftCounters } from './workers/raft/raft-counters.ts';
import { CATCH_UP_ENTRIES, RaftHandle } from './workers/raft/raft-handle.ts';
import { RetentionKeeper } from './workers/retention-keeper.ts';
import { ShardCounters } from './workers/shard/shard-counters.ts';
import { ShardPool } from './workers/shard-pool.ts';
import { LoadMonitor } from './workers/slots/load-monitor.ts';
import { MoveCounters } from './workers/slots/move-counters.ts';
import { Resizer } from './workers/slots/resizer.ts';
import { SlotMover } from './workers/slots/slot-mover.ts';
import { SlotTable } from './workers/slots/slot-table.ts';
import { WeaknessWatch } from './workers/weakness-watch.ts';

/** Exit codes of the server (docs/operations.md). */
const EXIT = { ok: 0, startFailed: 1, died: 70, copied: 78 } as const;
/** How long the shards, and then the Raft thread, may take to finish what is on its way to the disk. */
const STOP_MS = 5_000;
/** Ctrl-C reaches a process that npm started twice, from the terminal and from npm: within this time it is one signal. */
const ECHO_MS = 300;
/**
 * What clients may take to read the ends of their calls once nothing of the broker is in flight. Watchers of its health, reflection and requests
 * that never end are no work: what they hold open must not use up shutdown.drain.
 */
const LAST_READS_MS = 1_000;
const OBSERVE_MS = 100;
/**
 * What batches of publish streams may wait at a database, in ms. Such a group passes two entries of the log and a commit, and waits for the
 * groups before it in each: with less than about five of these steps windows shrink until the database is idle most of the time.
 */
const DATABASE_TARGET_MIN_MS = 50;
/** The main thread counts as busy above this share of LOAD_MS. */
const BUSY_UTILIZATION = 0.8;
const LOAD_MS = 50;
const SWEEP_MS = 1_000;
/** What a publish stream may have in flight before anything is known of it: some milliseconds of what a stream can carry. */
const WINDOW_START_BYTES = 1 << 20;
/** How often the load is measured, and with shards.auto judged. */
const LOOK_MS = 1_000;
const ADVICE_MS = 5_000;
/** How often a start says how far it has compared the database with the log. */
const PROGRESS_MS = 5_000;

/** Runs a broker until it is told to stop; resolves with the exit code. */
export async function serve(config: Config): Promise<number> {
  // grpc-js writes to stderr by itself what we log with its reason.
  setLogVerbosity(logVerbosity.NONE);
  const logger = createLogger({ level: config.log.level, format: config.log.format, destination: 'stdout' });
  const stopping = new AbortController();
  const broker = new Broker(config, logger, stopping.signal);
  const signals = watchSignals(logger);
  // A broken invariant of this thread; what rejects without a listener comes here too.
  process.on('uncaughtException', (error) => broker.die('main_thread_failed', error));
  void signals.first.then(() => stopping.abort(new StartStopped()));
  try {
    await broker.start();
  } catch (error) {
    if (error instanceof StartStopped) return await endOf(broker, logger);
    if (!(error instanceof StartError)) {
      // A disk that fails, or a defect: what is open by now cannot be trusted to close, and must not keep the process.
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      logger.error('the broker could not start', { reason: 'start_failed', error: detail });
      logger.flush();
      process.exit(EXIT.startFailed);
    }
    logger.error(error.message, { reason: error.code });
    await broker.stop();
    logger.flush();
    return EXIT.startFailed;
  }
  await signals.first;
  await broker.drain();
  return await endOf(broker, logger);
}

async function endOf(broker: Broker, logger: Logger): Promise<number> {
  await broker.stop();
  logger.info('stopped');
  logger.flush();
  if (broker.isStuck) process.exit(EXIT.ok);
  return EXIT.ok;
}

/** The first SIGTERM or SIGINT resolves; the second one ends the process at once, which is as safe as a crash. */
function watchSignals(logger: Logger): { readonly first: Promise<void> } {
  let firstAt = 0;
  const first = new Promise<void>((resolve) => {
    const onSignal = (signal: NodeJS.Signals): void => {
      const now = performance.now();
      if (firstAt > 0 && now - firstAt < ECHO_MS) return;
      logger.info(firstAt === 0 ? 'stopping' : 'stopping at once', { signal });
      if (firstAt > 0) process.exit(EXIT.ok);
      firstAt = now;
      resolve();
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  });
  return { first };
}

/** What has been started, for stopping it in the opposite order; null = not yet. */
class Broker {
  readonly #config: Config;
  readonly #logger: Logger;
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
  readonly #raftCounters = new RaftCounters();
  #grpc: GrpcServer | null = null;
  #isStuck = false;
  #retention: RetentionKeeper | null = null;
  #keeper: DatabaseKeeper | null = null;
  #fence: FenceWatch | null = null;
  #weakness: WeaknessWatch | null = null;
  /** Null with the embedded store, and until it is reached. */
  #claimed: ClaimedDatabase | null = null;
  /** Null with the embedded store. */
  #database: DatabaseOptions | null = null;
  readonly #membership: Membership;
  /** Why the node is not ready; empty when it is. */
  #notReady: string[] = ['starting'];
  /** It has been ready: what ends it before is a start that failed, such as a log that is older than the store. */
  #hasServed = false;

  constructor(config: Config, logger: Logger, stopping: AbortSignal) {
    this.#config = config;
    this.#logger = logger;
    const { limits, subscribe, overload, shards, batch, publish, store } = config;
    this.#counters = Array.from({ length: shards.max }, () => new ShardCounters());
    this.#storeHealth = new StoreHealth(this.#counters);
    this.#table = new SlotTable(shards.count);
    this.#moves = new MoveCounters(shards.max);
    this.#membership = new Membership({
      config,
      seeds: (config.join ?? []).map(formatEndpoint),
      advertised: advertisedBy(config),
      log: logger,
      stopping,
      onLeaderless: (isLeaderless) => this.#serveCalls(!isLeaderless),
    });
    this.#dispatcher = new Dispatcher(
      {
        shardsMax: shards.max,
        ringBytes: config.ring.bytes,
        callsMax: limits.inFlightCalls,
        bytesMax: limits.inFlightBytes,
        receiveTimeoutMs: limits.receiveTimeoutMs,
        subscriptionsMax: limits.subscriptions,
        consumerSubjectsMax: limits.consumerSubjects,
        bufferBytes: subscribe.bufferBytes,
        unsentBytesMax: subscribe.unsentBytes,
        stallTimeoutMs: subscribe.stallTimeoutMs,
        producerStreamsMax: limits.producerStreams,
        // A batch is as large as a group may be, and one message always fits.
        sectionBytesMax: Math.max(batch.bytes, limits.bodyBytes + limits.headersBytes + RING_RECORD_OVERHEAD_BYTES / 2),
        window: {
          bytesMin: publish.windowMin,
          bytesStart: Math.max(publish.windowMin, Math.min(publish.windowMax, WINDOW_START_BYTES)),
          bytesMax: publish.windowMax,
          targetMs:
            store.kind === 'embedded' ? publish.targetDelayMs : Math.max(DATABASE_TARGET_MIN_MS, publish.targetDelayMs),
        },
        scan: { bodyBytes: limits.bodyBytes, headersBytes: limits.headersBytes, headersCount: limits.headersCount },
      },
      new OverloadGuard({ targetMs: overload.targetMs, intervalMs: overload.intervalMs }),
      this.#table,
    );
  }

  /**
   * Ports are opened last, the gRPC port only when everything behind it works. StartStopped if it is told to stop while it waits for other nodes.
   */
  async start(): Promise<void> {
    const config = this.#config;
    const startedAt = performance.now();
    const failpoints = failpointSpec();
    armFailpoints(failpoints);
    this.#database = databaseOptions(config);
    const disk = new NodeDisk();
    const nodeId = config.nodeId ?? readNodeIdentity(disk, config.dataDir)?.nodeId ?? randomUUID().slice(0, 8);
    this.#directory = openDataDirectory(disk, config.dataDir, { clusterName: config.cluster, nodeId, now: Date.now() });
    const { path } = this.#directory;
    let { node } = this.#directory;
    const admin = await this.#openAdmin();
    checkStoreKind(disk, path, config.store.kind);
    if (this.#database === null) this.#sealSegments(disk, path);
    else {
      const entered = await this.#membership.enter(disk, this.#database, this.#directory);
      node = entered.node;
      this.#claimed = entered.claimed;
      this.#tellWeaknesses(entered.claimed.weaknesses);
      markStore(disk, path, config.store.kind);
    }

    const mainDoorbell = createDoorbell();
    const raftDoorbell = createDoorbell();
    this.#raft = this.#startRaft(path, node, raftDoorbell, mainDoorbell, failpoints);
    const { cluster } = this.#membership;
    if (cluster !== null) this.#notReady = ['starting: more than half of the voters have to reach each other'];
    if (this.#claimed !== null) await this.#membership.unlessStopped(this.#compare(this.#claimed, this.#raft));
    const { status, lastStored } = await this.#membership.unlessStopped(this.#raft.ready);
    this.#logger.info('the log is recovered', { ...status });
    this.#membership.settle(disk, path);
    if (this.#claimed !== null) {
      await this.#takeOver(this.#claimed, path);
      await this.#lookForLosses(this.#claimed, lastStored);
    }
    this.#bell = new Doorbell(mainDoorbell);
    this.#bell
      .run(() => this.#dispatcher.doWork(), this.#loop)
      .catch((error: unknown) => this.die('main_loop_failed', error));
    this.#shards = this.#makeShards(path, this.#raft, raftDoorbell, mainDoorbell, failpoints);
    await this.#shards.start(await this.#raft.openAllotments());
    this.#watch();
    if (this.#database === null) this.#retention = this.#keepRetention(disk, path, this.#raft, this.#shards);
    if (this.#claimed !== null) this.#keepDatabase(this.#claimed, this.#raft);

    const grpc = await this.#openGrpc(this.#raft, node, this.#manageShards(this.#shards));
    this.#notReady = [];
    this.#hasServed = true;
    this.#serveCalls(true);
    this.#membership.watch();
    const ms = Math.round(performance.now() - startedAt);
    this.#logger.info('ready', { node: node.nodeId, grpc, admin, shards: config.shards.count, ms });
  }

  #sealSegments(disk: Disk, path: string): void {
    const report = sealLanes(disk, join(path, 'segments'));
    for (const { level, message, fields } of sealNews(report)) this.#logger[level](message, fields);
    const counts = { torn: report.torn.length, damages: report.damages.length };
    this.#logger.info('segments are whole', { ...report, ...counts });
  }

  /** What calls ask for needs the log, reads included: without a leader new ones would only wait. */
  #serveCalls(isServing: boolean): void {
    if (isServing) this.#dispatcher.admit();
    else this.#dispatcher.refuseNew('NOT_READY');
    this.#grpc?.setServing(isServing);
  }

  #tellWeaknesses(weaknesses: readonly string[]): void {
    this.#judgeWeaknesses(weaknesses);
    for (const weakness of weaknesses) {
      this.#logger.warn('acknowledged messages are replicated, not durable', { weakness });
    }
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

  /** StartError if the log is older than the database; the log goes on only if not. */
  async #compare(database: ClaimedDatabase, raft: RaftHandle): Promise<void> {
    let rows = 0;
    const progress = setInterval(() => {
      this.#logger.info('comparing the database with the log', { rows });
    }, PROGRESS_MS);
    try {
      await database.compare(
        (subjects) => raft.heads(subjects),
        (more) => {
          rows += more;
        },
      );
    } finally {
      clearInterval(progress);
    }
    raft.lead();
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

  /** A database that was put back from an older copy than the log: ids go on behind what is lost, and the rest is served. */
  async #lookForLosses(database: ClaimedDatabase, stored: readonly StoredAllotment[]): Promise<void> {
    const missing = await database.missing(stored);
    const [first] = missing;
    if (first === undefined) return;
    this.#logger.error(
      'the database lacks acknowledged messages: it is an older copy than the log, or rows were deleted',
      {
        reason: 'DATA_LOSS',
        missingBatches: missing.length,
        ofTheLast: stored.length,
        subject: Buffer.from(first.subject).toString(),
        id: first.base,
      },
    );
  }

  /** No new work, then the work in flight is answered, at most for shutdown.drain. */
  async drain(): Promise<void> {
    this.#notReady = ['shutting down'];
    const resized = this.#resizer?.stop();
    this.#grpc?.setServing(false);
    this.#dispatcher.refuseNew('SHUTTING_DOWN');
    const deadline = performance.now() + this.#config.shutdown.drainMs;
    // What is in flight is finished by the next leader, without an election in between.
    await this.#membership.leave(this.#raft);
    const { producers } = this.#dispatcher;
    while ((this.#dispatcher.callsInFlight > 0 || !producers.isIdle) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#dispatcher.refuseHeld('SHUTTING_DOWN');
    this.#resizer?.abandon();
    await this.#within(STOP_MS, 'a move of slots', resized);
    producers.endAll('SHUTTING_DOWN');
    this.#dispatcher.subscriptions.endAll('SHUTTING_DOWN');
    this.#dispatcher.consumers.endAll('SHUTTING_DOWN');
    this.#dispatcher.peers.stop();
    await this.#grpc?.drain(Math.max(0, Math.min(LAST_READS_MS, deadline - performance.now())));
  }

  /** Waits no longer than `ms`: what does not end by itself is cut off by the end of the process, which is as safe as a crash. */
  async #within(ms: number, what: string, stopped: Promise<void> | undefined): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), ms);
    });
    const outcome = await Promise.race([stopped, late]);
    clearTimeout(timer);
    if (outcome !== 'late') return;
    this.#logger.error('something did not stop in time', { what, ms });
    this.#isStuck = true;
  }

  /** True if a part did not stop: the process has to be ended. */
  get isStuck(): boolean {
    return this.#isStuck;
  }

  async stop(): Promise<void> {
    this.#retention?.stop();
    this.#keeper?.stop();
    this.#fence?.stop();
    this.#weakness?.stop();
    this.#dispatcher.peers.stop();
    await this.#within(STOP_MS, 'the shards', this.#shards?.stop());
    await this.#within(STOP_MS, 'the Raft thread', this.#raft?.stop());
    this.#loop.stopped = true;
    this.#bell?.poke();
    for (const timer of this.#timers) clearInterval(timer);
    await this.#within(STOP_MS, 'the database', this.#claimed?.close());
    await this.#admin?.close();
    this.#directory?.close();
  }

  #startRaft(
    path: string,
    node: NodeIdentity,
    doorbell: SharedArrayBuffer,
    mainDoorbell: SharedArrayBuffer,
    failpoints: string,
  ): RaftHandle {
    const { raft, shards, acceptClock } = this.#config;
    const data: RaftThreadData = {
      dataDirectory: path,
      nodeName: node.nodeId,
      instanceId: node.instanceId,
      ...allotLimits(this.#config),
      snapshotEntries: raft.snapshotEntries,
      snapshotBytes: raft.snapshotBytes,
      catchUpEntries: CATCH_UP_ENTRIES,
      acceptClock,
      hasDatabase: this.#database !== null,
      heartbeatMs: raft.heartbeatMs,
      counters: this.#raftCounters.buffer,
      electionMs: raft.electionTimeoutMs,
      shardsMax: shards.max,
      owners: this.#table.buffer,
      doorbell,
      mainDoorbell,
      failpoints,
      cluster: this.#membership.cluster,
    };
    return new RaftHandle(data, {
      onLog: (line) => this.#log('raft', line),
      onDeath: (reason, message) => this.die(reason, message),
      ...this.#membership.events,
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
    const { shards, ring, limits, batch, groups, store, segment } = this.#config;
    return new ShardPool(
      {
        shards: shards.count,
        shardsMax: shards.max,
        hasPeers: this.#membership.cluster !== null,
        table: this.#table,
        dataDirectory: path,
        ringBytes: ring.bytes,
        limits: {
          bodyBytes: limits.bodyBytes,
          headersBytes: limits.headersBytes,
          headersCount: limits.headersCount,
          batchBytes: batch.bytes,
          lingerMs: batch.lingerMs,
          groupsInFlight: groups.inFlight,
        },
        store: {
          segmentBytes: segment.bytes,
          lowSpaceBytes: store.lowSpaceBytes,
          cacheBytes: store.cacheBytes,
          database: this.#database,
        },
        mainDoorbell,
        raftDoorbell,
        counters: this.#counters.map(({ buffer }) => buffer),
        failpoints,
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
  async #openAdmin(): Promise<string> {
    const shards = {
      counters: this.#counters,
      table: this.#table,
      moves: this.#moves,
      isThere: (shard: number) => this.#shards?.members.includes(shard) ?? shard < this.#config.shards.count,
    };
    const metrics = frontMetrics(this.#dispatcher, shards, this.#raftCounters);
    this.#admin = new AdminServer({
      metrics: () => metrics.text(),
      metricsContentType: metrics.contentType,
      ready: () => this.#ready(),
      alive: () => this.#alive(),
      onError: (error) => this.#logger.error('an admin page failed', { error: String(error) }),
    });
    const { host, port } = this.#config.admin.listen;
    return formatEndpoint({ host, port: await listening('admin.listen', this.#admin.listen(host, port)) });
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

  /** What changes the shards while the broker runs. */
  #manageShards(pool: ShardPool): ShardsAdmin {
    const { shards } = this.#config;
    const log = (line: LogLine): void => this.#log('main', line);
    const mover = new SlotMover(this.#table, this.#dispatcher.slots, pool, this.#moves);
    const turns = this.#turns;
    this.#resizer = new Resizer({ table: this.#table, pool, mover, turns, shardsMax: shards.max, log });
    const monitor = new LoadMonitor({
      counters: this.#counters,
      cores: availableParallelism(),
      shardsMax: shards.max,
    });
    this.#timers.push(setInterval(() => monitor.look(), LOOK_MS));
    const admin = new ShardsAdmin({
      table: this.#table,
      pool,
      resizer: this.#resizer,
      monitor,
      moves: this.#moves,
      isAuto: shards.auto,
      autoAfterMs: shards.autoAfterMs,
    });
    if (shards.auto) {
      const everyMs = Math.min(ADVICE_MS, shards.autoAfterMs / 2);
      this.#timers.push(setInterval(() => void this.#maybeFollow(admin), everyMs));
    }
    return admin;
  }

  async #maybeFollow(admin: ShardsAdmin): Promise<void> {
    const advice = await admin.maybeFollow(performance.now());
    if (advice !== null) this.#logger.info('following the advice on the number of shards', { ...advice });
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
    const admin = new AdminService(
      this.#dispatcher,
      raft,
      this.#counters,
      this.#config,
      node.nodeId,
      shards,
      this.#storeHealth,
      cluster,
    );
    const options = { messageBytes: limits.messageBytes, log: this.#logger };
    const peers = this.#membership.cluster === null ? null : meetPeers(this.#dispatcher.peers, raft, node, options);
    this.#grpc = createGrpcServer({
      engine: this.#dispatcher,
      admin,
      cluster,
      ...(peers === null ? {} : { peers }),
      limits,
      maxConnectionAgeMs: grpc.maxConnectionAgeMs,
      log: this.#logger,
      answers,
      receiving: this.#dispatcher.receiving,
    });
    await listening('grpc.listen', this.#grpc.listen(grpc.listen));
    return this.#grpc.address;
  }

  /** Overload and stalled subscribers are judged by time, not by traffic. */
  #watch(): void {
    const taken = this.#counters.map(() => 0);
    const observe = (): void => {
      let wait: number | null = null;
      let queued = 0;
      this.#counters.forEach((counters, shard) => {
        queued += counters.get('queue_bytes');
        const count = counters.get('queue_wait_count');
        // What an idle shard took last says nothing of now.
        if (count === taken[shard]) return;
        taken[shard] = count;
        wait = Math.max(wait ?? 0, counters.get('queue_wait_ms'));
      });
      this.#dispatcher.observe(wait, queued > 0, performance.now());
    };
    let utilization = performance.eventLoopUtilization();
    const measureLoad = (): void => {
      const next = performance.eventLoopUtilization();
      this.#dispatcher.isBusy = performance.eventLoopUtilization(next, utilization).utilization > BUSY_UTILIZATION;
      utilization = next;
    };
    this.#timers.push(setInterval(measureLoad, LOAD_MS));
    this.#timers.push(setInterval(observe, OBSERVE_MS));
    const { subscriptions, consumers, receiving } = this.#dispatcher;
    const sweep = (): void => {
      receiving.sweep(performance.now(), Date.now());
      subscriptions.sweep(performance.now());
      consumers.sweep(performance.now());
    };
    this.#timers.push(setInterval(sweep, SWEEP_MS));
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
    process.exitCode = code;
    setTimeout(() => process.exit(code), 0);
  }
}

/** A port that cannot be opened is a clear end of the start, naming the key. */
async function listening<T>(key: string, opened: Promise<T>): Promise<T> {
  try {
    return await opened;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new StartError('PORT_UNAVAILABLE', `${key}: ${message}; choose another address, or stop what uses it`, {
      cause,
    });
  }
}
