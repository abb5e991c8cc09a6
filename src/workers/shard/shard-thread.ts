import { threadId } from 'node:worker_threads';
import { defined } from '../../base/assert.ts';
import { armFailpoints, failpoint } from '../../base/failpoint.ts';
import { subjectFields } from '../../base/subject-space.ts';
import { childContext } from '../../base/trace-context.ts';
import { Doorbell } from '../../shm/doorbell.ts';
import { RingConsumer } from '../../shm/ring-consumer.ts';
import { type SealReport, sealNews } from '../../storage/embedded/seal-lanes.ts';
import type { SegmentSummary } from '../../storage/embedded/sidecar.ts';
import { transferablesOf } from '../../storage/embedded/slot-transfer.ts';
import { BATCH_MESSAGES_MAX } from '../link.ts';
import type { FromShardThread, LogLine, ShardTask, ToShardThread } from '../messages.ts';
import { ShardTraces } from '../tracing/shard-traces.ts';
import type { RowTrace } from '../tracing/trace-record.ts';
import { AllotRequests } from './allot-requests.ts';
import { Delivery } from './delivery.ts';
import { ForeignRepeats } from './foreign-repeats.ts';
import { HotSubjectsSketch } from './hot-subjects.ts';
import { LookupPath } from './lookup-path.ts';
import { MainPort } from './main-port.ts';
import { PeerBatches } from './peer-batches.ts';
import { PublishPath } from './publish-path.ts';
import { RaftClient } from './raft-client.ts';
import { ReleaseJobs } from './release-job.ts';
import { ShardAgent } from './shard-agent.ts';
import { ShardCounters } from './shard-counters.ts';
import { NO_LEVELS, openShardStore, STORE_OPENERS, type StoreOpeners } from './shard-store.ts';
import { OwnedSlots, SlotDrain } from './slot-drain.ts';
import { resolveInDatabase, resolveLeftOpen, verifyHeads } from './start-up.ts';
import { StreamFailures } from './stream-failures.ts';
import { type ActiveSubject, ActiveSubjects, type Unresolved } from './subjects.ts';
import { untilThere } from './until-there.ts';

const NOT_TRACED: readonly RowTrace[] = [];
/** How often parked calls, closes and idle subjects are looked at, in ms, while there are any. */
const TICK_MS = 20;
/** How often levels are counted and retention is judged, in ms. */
const COARSE_MS = 1_000;

/**
 * The endless task of one shard thread (Piscina calls it once). Resolves when the shard was told to stop and has finished, with the sealed
 * segments that it counted: somebody else has to from then on.
 */
export default async function runShard(task: ShardTask): Promise<readonly SegmentSummary[]> {
  try {
    return await serveShard(task);
  } catch (error) {
    // For Piscina a failed task is no reason to end its thread: this one's timers and writes would go on beside those of the thread after it.
    setImmediate(() => {
      throw error;
    });
    return await new Promise(() => undefined);
  }
}

/** `outside`: a simulation has stores of its own. */
export async function serveShard(
  task: ShardTask,
  outside: StoreOpeners = STORE_OPENERS,
): Promise<readonly SegmentSummary[]> {
  armFailpoints(task.failpoints);
  const { port, shard } = task;
  const logTimeoutMs = task.hasPeers ? defined(task.store.database, 'nodes share a database').timeoutMs : null;
  const post = (message: FromShardThread): void => port.postMessage(message);
  const log = (level: LogLine['level'], message: string, fields: LogLine['fields'] = {}): void =>
    post({ kind: 'log', level, message, fields: { shard, thread: threadId, ...fields } });
  const signal = { stopped: false };
  const doorbell = new Doorbell(task.doorbell);
  const counters = new ShardCounters(task.counters);
  const onFatal = (error: unknown): void => {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    post({ kind: 'fatal', reason: 'store_failed', message });
  };

  const owned = new OwnedSlots(task.slots);
  const onNotice = (message: string, error: unknown): void => log('warn', message, { error: String(error) });
  // What comes while the database is waited for is looked at when it is there; only a stop is heeded at once.
  const early: ToShardThread[] = [];
  const onEarly = (message: ToShardThread): void => void early.push(message);
  port.on('message', onEarly);
  const whenThere = <T>(work: () => Promise<T>): Promise<T | null> =>
    task.isReplacement && task.store.database !== null
      ? untilThere(
          work,
          () => early.some(({ kind }) => kind === 'stop'),
          (error) =>
            onNotice('the database is waited for; until then messages and reads of this shard are refused', error),
        )
      : work();
  const endEarly = (): readonly SegmentSummary[] => {
    post({ kind: 'stopped' });
    port.close();
    return [];
  };
  const onSealed = (report: SealReport): void => {
    for (const { level, message, fields } of sealNews(report)) log(level, message, fields);
  };
  const opened = await whenThere(() => openShardStore(task, owned, onFatal, onNotice, onSealed, counters, outside));
  if (opened === null) return endEarly();
  const { store, embedded, database, writesMax, groupsMin, connections, hasRoomFor } = opened;
  const subjects = new ActiveSubjects(task.hasPeers);
  const main = new MainPort(task.rings.toMainControl, task.rings.toMainPayload, task.mainDoorbell);
  if (task.tracing !== null) main.traces = new ShardTraces(shard, task.tracing, main.payload, () => main.touched());
  const raft = new RaftClient(task.rings.toRaft, task.raftDoorbell, task.generation);
  const requests = new AllotRequests(raft, shard);
  const onProgress = (): void => doorbell.poke();
  const onDamage = (subject: ActiveSubject, id: number): void => {
    counters.damaged();
    const fields = { ...subjectFields(subject.ref.bytes), id, reason: 'DATA_LOSS' };
    log('error', 'a stored message is missing or damaged', fields);
  };
  const delivery = new Delivery(store, main, onProgress, onDamage, (subject, learned) =>
    lookup.confirm(subject, 0, learned),
  );
  const lookup: LookupPath = new LookupPath({ store, raft, main, delivery, onProgress, onDamage, database });
  const failures = new StreamFailures();
  const peerBatches = new PeerBatches(main, database, counters);
  const hot = new HotSubjectsSketch(owned);
  const publish: PublishPath = new PublishPath(
    store,
    requests,
    main,
    {
      onProgress,
      onFatal,
      onSealed: (subject, messages) => hot.add(subject.ref, messages),
      onForgotten(subject, allotment) {
        // As of a void, but for those who ask what became of them: the log says that they are trimmed, and repeats are looked up by themselves.
        delivery.resolved(subject, allotment, null);
        peerBatches.resolved(subject.ref, allotment, null);
        agent.resolved(subject, allotment.base);
        if (subject.awaiting > 0) lookup.reached(subject, allotment);
        if (lookup.parked > 0) lookup.forgotten(subject, allotment.base, allotment.count);
      },
      onResolved(subject, allotment, bytes, traces) {
        if (bytes !== null && database !== null) {
          database.recent.add(subject.ref, allotment.base, allotment.count, bytes);
          database.arrivals.added(subject.ref, allotment.base);
        }
        delivery.resolved(subject, allotment, bytes);
        const [traced] = traces ?? NOT_TRACED;
        peerBatches.resolved(subject.ref, allotment, bytes, traced && childContext(traced.context, traced.spanId));
        agent.resolved(subject, allotment.base);
        if (subject.awaiting > 0) lookup.reached(subject, allotment);
        if (lookup.parked > 0) lookup.resolved(subject, allotment.base, allotment.count);
        if (subject.repeats.length > 0) answerRepeats(subject, allotment, main, publish, bytes !== null);
      },
      onRepeat(subject) {
        if (!subject.isShared) return;
        repeats.added(subject);
        lookup.follow(subject);
      },
    },
    counters,
    failures,
    {
      seal: {
        groupsInFlight: Math.max(groupsMin, task.limits.groupsInFlight),
        lingerMs: task.limits.lingerMs,
        fullBytes: task.limits.batchBytes / 4,
      },
      batchBytes: task.limits.batchBytes,
      writesMax,
      databaseTimeoutMs: task.store.database?.timeoutMs ?? null,
      isStoreFull: () => embedded?.isFull ?? false,
      hasRoomFor,
      logTimeoutMs,
    },
  );
  const repeats = new ForeignRepeats({
    store,
    confirm: (subject, id, learned) => lookup.confirm(subject, id, learned),
    stored: ({ call, id }) => main.ack(call, id),
    madeVoid: (subject, { call, sequence }) => publish.repeatRefused(subject, call, sequence),
    unknown(subject, { call, sequence }) {
      failures.note(subject, call, sequence, 'OUTCOME_UNKNOWN');
      main.refuse(call, 'OUTCOME_UNKNOWN');
    },
    onProgress,
  });
  const releases = new ReleaseJobs(store, subjects, requests);
  const fromMainPayload = new RingConsumer(task.rings.mainPayload);
  const drain = new SlotDrain({
    owned,
    store,
    subjects,
    requests,
    lookup,
    delivery,
    failures,
    peerBatches,
    main,
    fromMainPayload,
    onExported: (token, exported) =>
      port.postMessage(
        { kind: 'exported', token, exported } satisfies FromShardThread,
        transferablesOf(exported.columns),
      ),
    onCancelled: (token) => post({ kind: 'drain-cancelled', token }),
  });
  const agent = new ShardAgent({
    store,
    releases,
    subjects,
    publish,
    failures,
    lookup,
    delivery,
    peerBatches,
    drain,
    requests,
    raft,
    main,
    counters,
    fromMainControl: new RingConsumer(task.rings.mainControl),
    fromMainPayload,
    fromRaft: new RingConsumer(task.rings.fromRaft),
    limits: { ...task.limits, records: BATCH_MESSAGES_MAX },
    onDamage,
    peers: logTimeoutMs === null ? null : { repeats, timeoutMs: logTimeoutMs },
  });

  const verified = embedded === null ? 0 : verifyHeads(embedded, raft);
  const left =
    embedded === null
      ? await whenThere(() => resolveInDatabase(task.leftOpen, store, subjects, publish, requests, onDamage))
      : resolveLeftOpen(task.leftOpen, embedded, subjects, publish, requests);
  if (left === null) {
    await store.close();
    return endEarly();
  }
  // Behind the verified heads on the ring: when it is answered, the store knows what the log has trimmed.
  lookup.barrier(() => {
    log('info', 'shard is up', { subjects: verified, closed: left.stored, revoked: left.revoked });
    post({ kind: 'ready' });
  });
  raft.flush();

  let stopping = false;
  const onMessage = (message: ToShardThread): void => {
    switch (message.kind) {
      case 'stop':
        stopping = true;
        break;
      case 'give-up':
        throw new Error(message.why);
      case 'segments':
        post({
          kind: 'segments',
          token: message.token,
          report: { segments: store.sealedSegments(), openBytes: store.openBytes },
        });
        break;
      case 'release':
        releases.release(message.segments, message.isTrimmed, () => post({ kind: 'released', token: message.token }));
        break;
      case 'cancel-drain':
        drain.cancel(message.token);
        break;
      case 'import':
        drain.import(message.slots, message.columns, message.failures);
        post({ kind: 'done', token: message.token });
        break;
      case 'adopt':
        store.adoptSegments(message.segments);
        post({ kind: 'done', token: message.token });
        break;
      case 'disown':
        store.disownLane(message.lane);
        post({ kind: 'done', token: message.token });
        break;
      case 'cache':
        store.resizeCache(message.bytes);
        break;
      case 'hot':
        post({ kind: 'hot', token: message.token, hot: hot.report(message.limit) });
        break;
    }
    doorbell.poke();
  };
  port.off('message', onEarly);
  port.on('message', onMessage);
  for (const message of early) onMessage(message);
  const wake = new Wake(onProgress);
  let tickTimer: NodeJS.Timeout | null = null;
  const coarse = setInterval(() => {
    counters.levels(
      {
        activeSubjects: subjects.size,
        subscriptions: delivery.members,
        parkedFetches: lookup.waitingFetches,
        behind: delivery.behind(),
        connections: connections(),
      },
      embedded?.stats() ?? NO_LEVELS,
    );
    // A node that gets no traffic because it is not ready would not learn otherwise that there is space again.
    if (counters.storeRefusal !== null && publish.refusal === null) counters.storeRefuses(null);
    hot.tick();
    agent.tick();
    if (!task.hasPeers) return;
    agent.sweep(performance.now());
    onProgress();
  }, COARSE_MS);
  await doorbell.run(() => {
    failpoint('shard.round');
    const done = agent.doWork();
    if (done > 0) return done;
    if (stopping && publish.idle && agent.idle) {
      requests.send();
      raft.flush();
      signal.stopped = !raft.blocked && !main.blocked;
    }
    wake.in(publish.nextDeadline(), main.blocked || raft.blocked || delivery.waiting || lookup.waiting);
    if (tickTimer === null && (requests.closesWait || lookup.waitingFetches > 0)) {
      tickTimer = setTimeout(() => {
        tickTimer = null;
        agent.tick();
        onProgress();
      }, TICK_MS);
    }
    return 0;
  }, signal);
  clearInterval(coarse);
  if (tickTimer !== null) clearTimeout(tickTimer);
  await store.close();
  post({ kind: 'stopped' });
  port.close();
  return store.sealedSegments();
}

/** A repeated sequence is answered with its first id once that is stored; if that id became void nothing was stored, and it may be sent again. */
function answerRepeats(
  subject: ActiveSubject,
  allotment: Unresolved,
  main: MainPort,
  publish: PublishPath,
  isStored: boolean,
): void {
  for (const repeat of subject.repeats.splice(0)) {
    const isOfIt = repeat.id >= allotment.base && repeat.id < allotment.base + allotment.count;
    if (!isOfIt) subject.repeats.push(repeat);
    else if (isStored) main.ack(repeat.call, repeat.id);
    else publish.repeatRefused(subject, repeat.call, repeat.sequence);
  }
}

/** Waits for room on a full ring are short: its reader does not ring when it has made some. */
const RETRY_MS = 1;

/** At most one timer that wakes the loop at the next moment something may be due. */
class Wake {
  readonly #wake: () => void;
  #timer: NodeJS.Timeout | null = null;

  constructor(wake: () => void) {
    this.#wake = wake;
  }

  in(ms: number, isBlocked: boolean): void {
    const delay = isBlocked ? Math.min(ms, RETRY_MS) : ms;
    if (this.#timer !== null || delay === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#wake();
    }, delay);
  }
}
