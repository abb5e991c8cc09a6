import type { Address } from '../../src/gossip/types.ts';
import { withoutAmbient } from './determinism.ts';
import { type Bounds, GossipCheckers } from './gossip-checkers.ts';
import { FAULTS, type Fault, GossipFaults } from './gossip-faults.ts';
import { type Foe, GHOSTS_MAX, GossipFoes } from './gossip-foes.ts';
import { GossipNode, type NodeWatcher } from './gossip-node.ts';
import { CALM, GossipWorld, type Weather } from './gossip-world.ts';
import { SafetyViolation } from './raft-checkers.ts';

const STEP_MS = 1_000;
const FAULT_STEPS = 150;
/** What a heal may take, and a little. */
const BOUNDS = { failureMs: 60_000, healMs: 180_000 };
/** A node that nobody has accused to its face is hard to tell from one that is dead: among many, pings come seldom. */
const JUDGEMENT_MS = { few: 16_000, many: 30_000 };
const FEW = 10;
const HEAL_STEPS = 200;
/** So long all views have to be right before it counts. */
const SETTLED_STEPS = 5;
const PACKETS_A_STEP = 20;
const SEEDS = 3;
/** Of one node: 15 of gossip, and probes of its own and for others. */
const PACKETS_A_SECOND_MAX = 40;
/** The forged one itself, an answer, and what that leads to. */
const PACKETS_A_FOE_MAX = 4;

export interface GossipResult {
  readonly seed: number;
  readonly packets: number;
  readonly crashes: number;
  readonly stops: number;
  readonly flaps: number;
  /** Calls of "failed" by a node's own judgement. */
  readonly declared: number;
  /** Those of them in which the other was up, and nothing but its own stop could keep it from answering. */
  readonly wronged: number;
  readonly suspected: number;
  readonly refuted: number;
  readonly foes: number;
  /** From the end of faults until all views were equal. */
  readonly healMs: number;
  /** Depends on every packet and every choice: equal for equal seeds. */
  readonly trace: number;
}

export interface GossipPlan {
  readonly nodes: number;
  readonly weather: Weather;
  readonly faults: readonly Fault[];
  readonly foe: Foe | null;
  readonly packetsAStep: number;
  /** Clocks run up to this much too fast or too slow. */
  readonly driftPercent: number;
  readonly faultSteps: number;
  /** Sees the nodes after each second. */
  readonly onStep: (nodes: readonly GossipNode[]) => void;
}

/** Runs one seed. Throws, with the seed in the message, when a promise is broken. `plan`: instead of what the seed draws. */
export function simulateGossip(seed: number, plan: Partial<GossipPlan> = {}): GossipResult {
  return withoutAmbient(() => {
    try {
      return new GossipSimulation(seed, plan).run();
    } catch (error) {
      throw new SafetyViolation(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  });
}

class GossipSimulation {
  readonly #seed: number;
  readonly #world: GossipWorld;
  readonly #plan: GossipPlan;
  readonly #checkers: GossipCheckers;
  readonly #nodes: readonly GossipNode[];
  readonly #faults: GossipFaults;
  readonly #foes: GossipFoes | null;

  constructor(seed: number, plan: Partial<GossipPlan>) {
    this.#seed = seed;
    this.#world = new GossipWorld(seed);
    this.#plan = { ...this.#draw(), ...plan };
    const isForged = this.#plan.foe === 'forge';
    const judgementMs = this.#plan.nodes <= FEW ? JUDGEMENT_MS.few : JUDGEMENT_MS.many;
    const bounds: Bounds = { ...BOUNDS, judgementMs };
    this.#checkers = new GossipCheckers(this.#world, { bounds, isForged, isJudgementFree: !isForged });
    this.#nodes = makeNodes(this.#world, this.#watcher(), this.#plan.nodes, {
      driftPercent: this.#plan.driftPercent,
    });
    this.#faults = new GossipFaults(this.#world, this.#nodes, this.#plan.faults);
    this.#foes = this.#plan.foe === null ? null : new GossipFoes(this.#world, this.#nodes, this.#plan.foe);
    for (const node of this.#nodes) {
      this.#checkers.add(node);
    }
  }

  #draw(): GossipPlan {
    const { prng } = this.#world;
    const delayMsMax = [1, 5, 50, 200][prng.nextBelow(4)] as number;
    return {
      nodes: [3, 3, 4, 5, 5, 7, 9, 16][prng.nextBelow(8)] as number,
      weather: {
        lossPercent: [0, 0, 1, 5, 20][prng.nextBelow(5)] as number,
        duplicatePercent: [0, 3, 20][prng.nextBelow(3)] as number,
        latePercent: [0, 3, 20][prng.nextBelow(3)] as number,
        delayMsMin: 0,
        delayMsMax,
      },
      faults: FAULTS.filter(() => prng.chance(1, 4)),
      foe: ([null, null, null, 'replay', 'forge'] as const)[prng.nextBelow(5)] as Foe | null,
      packetsAStep: PACKETS_A_STEP,
      driftPercent: [0, 0, 2, 10][prng.nextBelow(4)] as number,
      faultSteps: FAULT_STEPS,
      onStep: () => undefined,
    };
  }

  #watcher(): NodeWatcher {
    const checkers = (): GossipCheckers => this.#checkers;
    return {
      onMade: (node, message) => {
        this.#foes?.hear(message);
        checkers().onMade(node, message);
      },
      onJoin: (node, member) => checkers().onJoin(node, member),
      onLeave: (node, member) => checkers().onLeave(node, member),
      onUpdate: (node, member) => checkers().onUpdate(node, member),
    };
  }

  run(): GossipResult {
    for (const node of this.#nodes) {
      this.#world.at(this.#world.prng.nextBelow(3_000), () => node.start());
    }
    this.#world.runUntil(10_000);
    this.#world.weather = this.#plan.weather;
    for (let step = 0; step < this.#plan.faultSteps; step += 1) {
      this.#faults.act();
      this.#step(true);
    }
    const healMs = this.#heal();
    return {
      seed: this.#seed,
      packets: this.#world.packets,
      crashes: this.#faults.crashes,
      stops: this.#faults.stops,
      flaps: this.#faults.flaps,
      declared: this.#checkers.declared,
      wronged: this.#checkers.wronged,
      suspected: this.#checkers.suspected,
      refuted: this.#checkers.refuted,
      foes: this.#foes?.sent ?? 0,
      healMs,
      trace: this.#world.trace,
    };
  }

  #step(isFoul: boolean): boolean {
    const [packets, foes] = [this.#world.packets, this.#foes?.sent ?? 0];
    if (this.#foes !== null && isFoul) {
      this.#foes.act(this.#plan.packetsAStep);
      this.#world.foesSince = this.#world.now + STEP_MS;
    }
    this.#world.runUntil(this.#world.now + STEP_MS);
    this.#checkLoad(this.#world.packets - packets, (this.#foes?.sent ?? 0) - foes);
    this.#plan.onStep(this.#nodes);
    return this.#checkers.check();
  }

  /** Nothing grows without bound, whatever comes in: neither what is sent nor what is remembered. */
  #checkLoad(packets: number, foes: number): void {
    const packetsMax = PACKETS_A_SECOND_MAX * this.#nodes.length + PACKETS_A_FOE_MAX * foes;
    const membersMax = this.#nodes.length + (this.#plan.foe === 'forge' ? GHOSTS_MAX : 0);
    const members = Math.max(...this.#nodes.map((node) => node.members().length));
    if (packets > packetsMax || members > membersMax) {
      throw new SafetyViolation(`${packets} packets in a second, ${members} members (at ${this.#world.now} ms)`);
    }
  }

  /** Everybody is up and can talk: all views become equal. */
  #heal(): number {
    this.#world.weather = CALM;
    this.#faults.end();
    const began = this.#world.now;
    let settled = 0;
    for (let step = 0; step < HEAL_STEPS; step += 1) {
      settled = this.#step(false) ? settled + 1 : 0;
      if (settled >= SETTLED_STEPS) {
        return this.#world.now - began - (SETTLED_STEPS - 1) * STEP_MS;
      }
    }
    const views = this.#nodes.map(
      (node) =>
        `${node.name}: ${node
          .members()
          .map((m) => `${m.node} ${m.state} ${m.incarnation}`)
          .join(', ')}`,
    );
    throw new SafetyViolation(`views differ after the faults ended:\n${views.join('\n')}`);
  }
}

export interface NodesOptions {
  readonly driftPercent?: number;
  /** Whom a node that knows nobody asks. */
  readonly seeds?: (all: readonly Address[]) => readonly Address[];
}

export function makeNodes(
  world: GossipWorld,
  watcher: NodeWatcher,
  count: number,
  { driftPercent = 0, seeds = (all) => all.slice(0, SEEDS) }: NodesOptions = {},
): readonly GossipNode[] {
  const nodes: GossipNode[] = [];
  for (let i = 0; i < count; i += 1) {
    const drift = driftPercent === 0 ? 0 : world.prng.nextBelow(2 * driftPercent + 1) - driftPercent;
    nodes.push(
      new GossipNode(world, watcher, {
        name: `n${i}`,
        address: { host: `10.0.${i >> 8}.${i & 255}`, port: 7946 },
        seeds: () => seeds(nodes.map((node) => node.address)),
        clockRate: 1 + drift / 100,
      }),
    );
  }
  return nodes;
}
