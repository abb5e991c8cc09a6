import { performance } from 'node:perf_hooks';
import type { NodeId, Role } from '../../raft/messages.ts';
import { CounterBlock } from '../../shm/counters.ts';
import { DURATION_SHAPE, SharedHistogram } from '../../shm/histogram.ts';
import { RAFT_SLOTS, type RaftSlot } from '../../telemetry/catalogue.ts';
import type { RaftStatus } from '../messages.ts';

/** A learner is one that follows and has no vote. */
export const RAFT_ROLES = ['follower', 'learner', 'pre-candidate', 'candidate', 'leader'] as const;
export type RaftRole = (typeof RAFT_ROLES)[number];

/** What is counted of a Replica. */
export interface ReplicaLevels {
  readonly id: NodeId;
  readonly role: Role;
  readonly committed: number;
  readonly machine: { counts(): { readonly bytes: number } };
  configState(): { readonly voters: readonly NodeId[] };
}

const NAMES = [
  ...RAFT_SLOTS,
  'role',
  ...SharedHistogram.slotNames('append', DURATION_SHAPE),
  ...SharedHistogram.slotNames('sync', DURATION_SHAPE),
];

/** The counters of the Raft thread in shared memory: written by it alone, read by the main thread at scrape. */
export class RaftCounters {
  readonly #block: CounterBlock;
  readonly append: SharedHistogram;
  readonly sync: SharedHistogram;
  #utilization = performance.eventLoopUtilization();

  constructor(buffer?: SharedArrayBuffer) {
    this.#block = new CounterBlock(NAMES, buffer);
    this.append = new SharedHistogram(this.#block, 'append', DURATION_SHAPE);
    this.sync = new SharedHistogram(this.#block, 'sync', DURATION_SHAPE);
  }

  get buffer(): SharedArrayBuffer {
    return this.#block.buffer;
  }

  get(slot: RaftSlot): number {
    return this.#block.get(this.#block.indexOf(slot));
  }

  entry(commandBytes: number): void {
    this.#block.add(this.#block.indexOf('entries_total'), 1);
    this.#block.add(this.#block.indexOf('command_bytes_total'), commandBytes);
  }

  /** Another leader is known, or none ('' = nobody) any more. */
  leaderChanged(leader: string): void {
    this.#block.add(this.#block.indexOf('leader_changes_total'), 1);
    this.#set('has_leader', leader === '' ? 0 : 1);
  }

  snapshotTaken(): void {
    this.#block.add(this.#block.indexOf('snapshots_total'), 1);
  }

  /** Null before the first look at it. */
  get role(): RaftRole | null {
    return RAFT_ROLES[this.#block.get(this.#block.indexOf('role')) - 1] ?? null;
  }

  /** About once a second. */
  levels(status: RaftStatus, replica: ReplicaLevels, logBytes: number): void {
    const { role, id, committed, machine } = replica;
    const shown: RaftRole = role === 'follower' && !replica.configState().voters.includes(id) ? 'learner' : role;
    this.#block.set(this.#block.indexOf('role'), RAFT_ROLES.indexOf(shown) + 1);
    const next = performance.eventLoopUtilization();
    this.#set('event_loop_utilization', performance.eventLoopUtilization(next, this.#utilization).utilization);
    this.#utilization = next;
    this.#set('term', status.term);
    this.#set('applied', status.applied);
    this.#set('committed', committed);
    this.#set('last_index', status.lastIndex);
    this.#set('snapshot_index', status.snapshotIndex);
    this.#set('subjects', status.subjects);
    this.#set('producers', status.producers);
    this.#set('state_bytes', machine.counts().bytes);
    this.#set('log_memory_bytes', logBytes);
    this.#set('open_allotments', status.openAllotments);
    this.#set('log_time_ms', status.logTime);
  }

  /** Connections to the Raft port, since the start. */
  untrusted(connections: number): void {
    this.#set('untrusted_total', connections);
  }

  #set(slot: RaftSlot, value: number): void {
    this.#block.set(this.#block.indexOf(slot), value);
  }
}
