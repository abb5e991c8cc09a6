import { Prng } from '../../src/base/prng.ts';
import type { ConfigChangeKind } from '../../src/raft/config-change.ts';
import type { Message, NodeId } from '../../src/raft/messages.ts';
import { withoutAmbient } from './determinism.ts';
import { RaftCheckers, SafetyViolation } from './raft-checkers.ts';
import type { MachineState, SimDisk } from './raft-disk.ts';
import { type NodeWorld, SimNode } from './raft-node.ts';
import { RaftStorms } from './raft-storms.ts';

const ELECTION_TICKS = 10;
const HEARTBEAT_TICKS = 2;
const FAULT_STEPS = 900;
/** After the last fault: enough for any number of split votes that is likely in a year of runs. */
const HEAL_STEPS = 2_000;
const NAMES: readonly NodeId[] = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const DATA_BYTES = 8;

export interface SimResult {
  readonly seed: number;
  readonly committed: number;
  readonly leaderTerms: number;
  readonly crashes: number;
  readonly ioErrors: number;
  readonly reads: number;
  /** Depends on every message and every choice: equal for equal seeds. */
  readonly trace: number;
}

/** Runs one seed. Throws, with the seed in the message, when a promise is broken. `isCalm`: without the storms of raft-storms.ts. */
export function simulateRaft(seed: number, isCalm = false): SimResult {
  return withoutAmbient(() => {
    try {
      return new RaftSimulation(seed, isCalm).run();
    } catch (error) {
      throw new SafetyViolation(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  });
}

class RaftSimulation implements NodeWorld {
  readonly #seed: number;
  readonly prng: Prng;
  readonly checkers = new RaftCheckers();
  readonly snapshots = new Map<string, MachineState>();
  readonly writeStepsMax: number;
  readonly pipelineMax: number;
  readonly #nodes = new Map<NodeId, SimNode>();
  readonly #mail = new Map<number, Message[]>();
  readonly #blocked = new Set<string>();
  readonly #dropPercent: number;
  readonly #hasMembershipChanges: boolean;
  readonly #storms: RaftStorms;
  now = 0;
  #isHealing = false;
  #crashes = 0;
  #trace = 0;

  constructor(seed: number, isCalm: boolean) {
    this.#seed = seed;
    this.prng = new Prng(seed);
    this.writeStepsMax = this.prng.nextBelow(8);
    this.pipelineMax = 1 + this.prng.nextBelow(4);
    this.#dropPercent = [0, 1, 5, 20][this.prng.nextBelow(4)] as number;
    this.#hasMembershipChanges = this.prng.chance(1, 2);
    const founders = NAMES.slice(0, [1, 3, 3, 4, 5][this.prng.nextBelow(5)]);
    // Small limits, so that windows fill, appends are cut and proposals are refused.
    const limits = { appendBytesMax: 100, inflightMessagesMax: 4, inflightBytesMax: 400, applyBytesMax: 200 };
    for (const id of NAMES) {
      const node = new SimNode(id, this, {
        ...limits,
        uncommittedBytesMax: 600,
        electionTicks: ELECTION_TICKS,
        heartbeatTicks: HEARTBEAT_TICKS,
      });
      if (founders.includes(id)) {
        node.disk.install({ index: 1, term: 1, config: { voters: founders, learners: [] }, ref: '' });
        node.disk.hardState = { term: 1, vote: '', commit: 1 };
      }
      this.#nodes.set(id, node);
      if (founders.includes(id) || this.#hasMembershipChanges) {
        node.start();
      }
    }
    this.#storms = new RaftStorms(seed, [...this.#nodes.values()], isCalm);
  }

  disk(node: NodeId): SimDisk {
    return (this.#nodes.get(node) as SimNode).disk;
  }

  send(message: Message): void {
    this.#trace = (Math.imul(this.#trace, 31) + message.index * 7 + message.term + message.type.length) >>> 0;
    const isLost =
      this.#blocked.has(`${message.from}>${message.to}`) ||
      this.#storms.isCut(message.from, message.to, this.now) ||
      (!this.#isHealing && this.prng.nextBelow(100) < this.#dropPercent);
    if (message.type === 'snapshot') {
      this.#reportLater(message, isLost);
    }
    if (isLost) {
      return;
    }
    this.#post(message);
    if (!this.#isHealing && this.prng.chance(1, 30)) {
      this.#post(message);
    }
  }

  /** The transport's word on a snapshot: right mostly, late, and sometimes "failed" although it arrives. */
  #reportLater(message: Message, isLost: boolean): void {
    const outcome = isLost || this.prng.chance(1, 10) ? 'failed' : 'delivered';
    const report = {
      ...message,
      from: message.to,
      to: message.from,
      type: 'heartbeat',
      commit: outcome === 'failed' ? 0 : 1,
    } as const;
    this.#at(this.now + 5 + this.prng.nextBelow(10), { ...report, context: SNAPSHOT_REPORT });
  }

  #post(message: Message): void {
    const isLate = !this.#isHealing && this.prng.chance(1, 50);
    this.#at(this.now + 1 + this.prng.nextBelow(isLate ? 80 : 5), message);
  }

  #at(step: number, message: Message): void {
    const box = this.#mail.get(step);
    if (box === undefined) {
      this.#mail.set(step, [message]);
    } else {
      box.push(message);
    }
  }

  run(): SimResult {
    for (let step = 0; step < FAULT_STEPS; step += 1) {
      this.#injectFault();
      this.#storms.act(this.now);
      this.#act();
      this.#step();
    }
    this.#heal();
    return {
      seed: this.#seed,
      committed: this.checkers.committedMax,
      leaderTerms: this.checkers.leaderTerms,
      crashes: this.#crashes + this.#storms.crashes,
      ioErrors: [...this.#nodes.values()].reduce((sum, { ioErrors }) => sum + ioErrors, 0),
      reads: [...this.#nodes.values()].reduce((sum, node) => sum + node.readsAnswered, 0),
      trace: this.#trace,
    };
  }

  #step(): void {
    this.now += 1;
    const mail = this.#mail.get(this.now) ?? [];
    this.#mail.delete(this.now);
    while (mail.length > 0) {
      const [message] = mail.splice(this.prng.nextBelow(mail.length), 1) as [Message];
      this.#deliver(message);
    }
    for (const node of this.#nodes.values()) {
      if (node.core !== null && node.pausedUntil <= this.now) {
        if (this.prng.chance(1, 2)) {
          node.tick();
        }
        node.run();
      }
    }
  }

  #deliver(message: Message): void {
    const node = this.#nodes.get(message.to);
    if (node === undefined || node.core === null) {
      return;
    }
    if (node.pausedUntil > this.now) {
      this.#at(node.pausedUntil, message);
      return;
    }
    if (message.context === SNAPSHOT_REPORT) {
      node.core.reportSnapshot(message.from, message.commit === 1 ? 'delivered' : 'failed');
    } else {
      node.core.step(message);
      this.checkers.onHeard(node.id, message, node.ticks);
    }
  }

  /** Nodes outside of the cluster wait with an empty disk to be added. */
  #wasStarted(node: SimNode): boolean {
    return this.#hasMembershipChanges || node.disk.last > 0;
  }

  #up(): SimNode[] {
    return [...this.#nodes.values()].filter((node) => node.isUp);
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.prng.nextBelow(Math.max(1, from.length))];
  }

  /** Clients and operators. */
  #act(): void {
    const node = this.#pick(this.#up());
    if (node === undefined || node.core === null) {
      return;
    }
    const leader = this.#up().find((candidate) => candidate.core?.role === 'leader');
    if (this.prng.chance(1, 3)) {
      (this.prng.chance(9, 10) ? (leader ?? node) : node).core?.propose(this.#data());
    }
    if (this.prng.chance(1, 10)) {
      node.read();
    }
    if (this.prng.chance(1, 60)) {
      node.compact();
    }
    if (this.prng.chance(1, 120)) {
      const isStarted = leader?.core?.transferLeadership(this.#pick(NAMES) as NodeId) === 'started';
      if (leader !== undefined && isStarted) {
        this.checkers.onTransfer(leader.id);
      }
    }
    if (this.prng.chance(1, 150)) {
      leader?.core?.reportUnreachable(this.#pick(NAMES) as NodeId);
    }
    if (this.prng.chance(1, 200)) {
      node.core.forgetLeader();
    }
    if (this.#hasMembershipChanges && this.prng.chance(1, 12)) {
      const kind = this.#pick<ConfigChangeKind>([
        'add-voter',
        'add-voter',
        'add-learner',
        'remove',
      ]) as ConfigChangeKind;
      const asked = this.#pick(this.#up().filter((candidate) => candidate.core?.role === 'leader'));
      asked?.core?.proposeConfigChange({ kind, node: this.#pick(NAMES) as NodeId, context: this.#data() });
    }
  }

  #data(): Uint8Array {
    const data = new Uint8Array(DATA_BYTES + this.prng.nextBelow(30));
    new DataView(data.buffer).setUint32(0, this.prng.nextUint32());
    return data;
  }

  #injectFault(): void {
    if (this.prng.chance(1, this.#storms.isOn ? 240 : 60)) {
      const node = this.#pick(this.#up());
      if (node !== undefined) {
        node.crash();
        this.#crashes += 1;
      }
    }
    if (this.prng.chance(1, 40)) {
      this.#pick([...this.#nodes.values()].filter((node) => !node.isUp && node.disk.last > 0))?.start();
    }
    if (this.prng.chance(1, this.#storms.isOn ? 360 : 90)) {
      this.#partition();
    }
    if (this.prng.chance(1, 50)) {
      this.#blocked.clear();
    }
  }

  #partition(): void {
    const victim = this.#pick(NAMES) as NodeId;
    const mode = this.prng.nextBelow(4);
    const split = 1 + this.prng.nextBelow(NAMES.length - 1);
    NAMES.forEach((from, i) => {
      NAMES.forEach((to, j) => {
        const isCut =
          (mode === 0 && (from === victim || to === victim)) ||
          (mode === 1 && from === victim) ||
          (mode === 2 && i < split !== j < split) ||
          (mode === 3 && this.prng.chance(1, 4));
        if (isCut) {
          this.#blocked.add(`${from}>${to}`);
        }
      });
    });
  }

  /** Faults end: everybody must get to the same state, and new work must be done. */
  #heal(): void {
    this.#isHealing = true;
    this.#blocked.clear();
    this.#storms.end();
    for (const node of this.#nodes.values()) {
      if (!node.isUp && this.#wasStarted(node)) {
        node.start();
      }
    }
    const target = { index: 0 };
    for (let step = 0; step < HEAL_STEPS; step += 1) {
      this.#step();
      if (this.#isConverged(target)) {
        return;
      }
    }
    const states = this.#up().map((node) => JSON.stringify(node.core?.status()));
    throw new SafetyViolation(`no progress after the faults ended:\n${states.join('\n')}`);
  }

  #isConverged(target: { index: number }): boolean {
    const leaders = this.#up().filter((node) => node.core?.role === 'leader');
    const leader = leaders.reduce<SimNode | undefined>(
      (best, node) => ((node.core?.term ?? 0) > (best?.core?.term ?? 0) ? node : best),
      undefined,
    );
    if (leader === undefined || leader.core === null) {
      return false;
    }
    if (target.index === 0 || leader.core.lastIndex() < target.index) {
      const isTaken = leader.core.propose(this.#data()) === 'accepted';
      target.index = isTaken ? leader.core.lastIndex() : 0;
      return false;
    }
    const { voters, learners } = leader.core.configState();
    const members = [...voters, ...learners].map((id) => this.#nodes.get(id) as SimNode);
    const { hash } = leader.machine;
    return (
      leader.machine.index >= target.index &&
      members.every((node) => node.machine.index === leader.machine.index && node.machine.hash === hash)
    );
  }
}

/** Marks the transport's report of a snapshot among the mail; no real round gets there. */
const SNAPSHOT_REPORT = Number.MAX_SAFE_INTEGER - 1;
