import { Worker } from 'node:worker_threads';
import type { SubjectReport } from '../../allot/queries.ts';
import { defined } from '../../base/assert.ts';
import type { SubjectScope } from '../../base/subject-space.ts';
import type { PeerMaterial } from '../../net/peer-tls.ts';
import type { ClusterView, MemberChange, MemberChangeResult } from '../../replica/types.ts';
import { packSubjects } from '../heads.ts';
import type {
  FromRaftThread,
  LogLine,
  OpenAllotment,
  RaftAddress,
  RaftStatus,
  RaftThreadData,
  ReportPage,
  ShardRings,
  SubjectRow,
  ToRaftThread,
} from '../messages.ts';
import { THREAD_MEMORY } from '../thread-memory.ts';
import type { ForeignIds } from '../tracing/trace-record.ts';

export interface RaftHandleEvents {
  onLog(line: LogLine): void;
  /** The thread is gone or cannot go on: the process must end. `reason` is a word for the exit log. */
  onDeath(reason: string, message: string): void;
  /** Who leads has changed; '' = nobody is known to. `grpc`: HOST:PORT of its gRPC port. */
  onLeader(leader: string, grpc: string): void;
  /** The Raft port is open. */
  onListening(port: number): void;
  /** The shards wait for answers that will never come: replace them. */
  onAnswersLost(): void;
  /** This node leads: traced ids were given to another node. */
  onGaveIds?(ids: ForeignIds): void;
}

export type RaftReady = Extract<FromRaftThread, { kind: 'ready' }>;

interface Waiter {
  resolve(message: FromRaftThread): void;
}

/** The main thread's side of the Raft thread: starts it, asks it, notices its death. */
export class RaftHandle {
  readonly #worker: Worker;
  readonly #events: RaftHandleEvents;
  readonly #waiting = new Map<number, Waiter>();
  readonly #ready: Promise<RaftReady>;
  readonly #opened = Promise.withResolvers<string | null>();
  readonly #mayMend: boolean;
  #nextToken = 1;
  /** It has stopped in good order: its end is no death. */
  #stopped = false;
  #dead = false;

  constructor(data: RaftThreadData, events: RaftHandleEvents) {
    this.#events = events;
    this.#mayMend = data.cluster !== null;
    this.#worker = new Worker(
      new URL(import.meta.url.endsWith('.ts') ? './raft-thread.ts' : './raft-thread.js', import.meta.url),
      {
        workerData: data,
        name: 'raft',
        resourceLimits: THREAD_MEMORY,
      },
    );
    let ready: (found: RaftReady) => void = () => undefined;
    this.#ready = new Promise((resolve) => {
      ready = resolve;
    });
    this.#worker.on('message', (message: FromRaftThread) => {
      if (message.kind === 'ready') ready(message);
      else this.#handle(message);
    });
    this.#worker.on('error', (error) =>
      this.#die('raft_thread_error', error instanceof Error ? (error.stack ?? error.message) : String(error)),
    );
    this.#worker.on('exit', (code) => this.#die('raft_thread_exit', `exit code ${code}`));
  }

  /** Resolves when the log is recovered, this node leads (with a database, once it was told to) and its start is recorded. */
  get ready(): Promise<RaftReady> {
    return this.#ready;
  }

  /** Resolves when the log is recovered, with null; of one of several members also if it is damaged, with the damage: the thread is gone then. */
  get opened(): Promise<string | null> {
    return this.#opened.promise;
  }

  get alive(): boolean {
    return !this.#dead;
  }

  /** For what observes it from outside. */
  get thread(): Worker {
    return this.#worker;
  }

  attach(shard: number, rings: ShardRings, doorbell: SharedArrayBuffer): void {
    this.#post({ kind: 'attach', shard, rings, doorbell });
  }

  /** Resolves when nothing more of that shard's requests will be applied under its old links. */
  async detach(shard: number): Promise<void> {
    await this.#ask((token) => ({ kind: 'detach', token, shard }));
  }

  async openAllotments(): Promise<readonly OpenAllotment[]> {
    const reply = await this.#ask((token) => ({ kind: 'open-allotments', token }));
    return reply.kind === 'open-allotments' ? reply.allotments : [];
  }

  /** `cursor`: 0 to begin, then `next` of the call before; -1 = that was all. */
  async listSubjects(
    scope: SubjectScope,
    cursor: number,
    limit: number,
  ): Promise<{ rows: readonly SubjectRow[]; next: number }> {
    const reply = await this.#ask((token) => ({ kind: 'list-subjects', token, scope, cursor, limit }));
    return reply.kind === 'subjects' ? { rows: reply.rows, next: reply.next } : { rows: [], next: -1 };
  }

  async status(): Promise<RaftStatus | null> {
    const reply = await this.#ask((token) => ({ kind: 'status', token }));
    return reply.kind === 'status' ? reply.status : null;
  }

  /** In the order of the subjects; as soon as the log is recovered. Never resolves if the thread ends before. */
  async heads(subjects: readonly Uint8Array[]): Promise<readonly number[]> {
    const packed = packSubjects(subjects);
    const reply = await this.#ask((token) => ({ kind: 'heads', token, subjects: packed }));
    // The death was told, and ends the process.
    return reply.kind === 'heads' ? reply.heads : await new Promise(() => undefined);
  }

  /** What `verify` holds the store against; see listSubjects. Empty if the thread ends before. */
  async reportPage(scope: SubjectScope, cursor: number, limit: number): Promise<ReportPage> {
    const reply = await this.#ask((token) => ({ kind: 'report-page', token, scope, cursor, limit }));
    return reply.kind === 'reports' ? reply.page : { reports: [], next: -1 };
  }

  /** Behind all that was committed before; in the order of `subjects`. Never resolves if the thread ends before. */
  async reportsNow(subjects: readonly Uint8Array[]): Promise<readonly (SubjectReport | null)[]> {
    const reply = await this.#ask((token) => ({ kind: 'report-now', token, subjects }));
    return reply.kind === 'reports-now' ? reply.reports : await new Promise(() => undefined);
  }

  /** With a database, once it is known to have nothing beyond the log. */
  lead(): void {
    this.#post({ kind: 'lead' });
  }

  /** Members and who leads, as this node knows it; null if the thread ends before. */
  async cluster(): Promise<ClusterView | null> {
    const reply = await this.#ask((token) => ({ kind: 'cluster', token }));
    return reply.kind === 'cluster' ? reply.cluster : null;
  }

  /** Resolves when the change is applied on this node or refused. Only the leader can. */
  async change(change: MemberChange): Promise<MemberChangeResult> {
    const reply = await this.#ask((token) => ({ kind: 'change', token, change }));
    return reply.kind === 'changed'
      ? reply.result
      : { reason: 'SHUTTING_DOWN', message: 'the broker is shutting down' };
  }

  /** Where members' Raft ports are, as gossip says; all of them each time. */
  heardOf(addresses: readonly RaftAddress[]): void {
    this.#post({ kind: 'addresses', addresses });
  }

  /** For connections to and from peers from now on. */
  useCertificates(material: PeerMaterial): void {
    this.#post({ kind: 'certificates', material });
  }

  async stop(): Promise<void> {
    if (this.#dead) return;
    await this.#ask((token) => ({ kind: 'stop', token }));
    // Not before the answer: a thread that dies on the way to it would be waited for without an end.
    this.#stopped = true;
    await this.#worker.terminate();
  }

  #post(message: ToRaftThread): void {
    this.#worker.postMessage(message);
  }

  #ask(make: (token: number) => ToRaftThread): Promise<FromRaftThread> {
    const token = this.#nextToken++;
    return new Promise((resolve) => {
      this.#waiting.set(token, { resolve });
      this.#post(make(token));
    });
  }

  #handle(message: FromRaftThread): void {
    if (message.kind === 'log') this.#events.onLog(message);
    else if (message.kind === 'leader') this.#events.onLeader(message.leader, message.grpc);
    else if (message.kind === 'listening') this.#events.onListening(message.port);
    else if (message.kind === 'answers-lost') this.#events.onAnswersLost();
    else if (message.kind === 'gave-ids') this.#events.onGaveIds?.(message.ids);
    else if (message.kind === 'opened') this.#opened.resolve(null);
    else if (message.kind === 'fatal' && message.reason === 'RAFT_LOG_DAMAGED' && this.#mayMend)
      this.#damaged(message.message);
    else if (message.kind === 'fatal') this.#die(message.reason, message.message);
    else if (message.kind !== 'ready') {
      const waiter = defined(
        this.#waiting.get(message.token),
        'the Raft thread answered a question that was not asked',
      );
      this.#waiting.delete(message.token);
      waiter.resolve(message);
    }
  }

  /** Nothing was written, and nobody waits for this thread yet. */
  #damaged(message: string): void {
    this.#dead = true;
    void this.#worker.terminate().then(() => this.#opened.resolve(message));
  }

  #die(reason: string, message: string): void {
    if (this.#dead) return;
    this.#dead = true;
    // Nobody may wait for an answer that will never come.
    for (const { resolve } of this.#waiting.values()) resolve({ kind: 'fatal', reason, message });
    this.#waiting.clear();
    if (!this.#stopped) this.#events.onDeath(reason, message);
  }
}
