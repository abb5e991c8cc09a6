import type { Member } from '../../src/gossip/types.ts';
import { withoutAmbient } from './determinism.ts';
import type { GossipNode, NodeWatcher } from './gossip-node.ts';
import { makeNodes } from './gossip-sim.ts';
import { CALM, GossipWorld } from './gossip-world.ts';
import { SafetyViolation } from './raft-checkers.ts';

/** How long after a kill the others called the member failed, in ms. The same fields as tools/memberlist-sim prints. */
export interface KillTimes {
  readonly firstMs: number;
  readonly medianMs: number;
  readonly lastMs: number;
  /** Members that were called failed and were not. */
  readonly false: number;
}

const SETTLE_MS = 45_000;
const PATIENCE_MS = 300_000;
const START_MS_MAX = 100;

/** One cluster, one member of it killed with SIGKILL: what tools/memberlist-sim does with HashiCorp's memberlist, step by step. */
export function simulateKill(seed: number, count: number, lossPercent = 0): KillTimes {
  return withoutAmbient(() => {
    const world = new GossipWorld(seed);
    world.weather = { ...CALM, delayMsMax: 0, lossPercent };
    const watch = new KillWatch(world);
    const nodes = makeNodes(world, watch, count, { seeds: (all) => all.slice(0, 1) });
    let startAt = 0;
    for (const node of nodes) {
      world.at(startAt, () => node.start());
      startAt += world.prng.nextBelow(START_MS_MAX);
    }
    world.runUntil(startAt + SETTLE_MS);
    // Gossip reaches everybody only most likely; whom it missed learns of the others by the next exchange of everything.
    const isKnown = (node: GossipNode): boolean => node.members().every((member) => member.state === 'alive');
    while (!nodes.every((node) => node.members().length === count && isKnown(node))) {
      if (world.now > PATIENCE_MS) {
        throw new SafetyViolation(`seed ${seed}: not everybody knows everybody`);
      }
      world.runUntil(world.now + 1_000);
    }
    const victim = nodes[world.prng.nextBelow(count)] as GossipNode;
    watch.begin(victim.name);
    victim.crash();
    const end = world.now + PATIENCE_MS;
    while (watch.seen.size < count - 1 && world.now < end) {
      world.runUntil(world.now + 1_000);
    }
    const times = [...watch.seen.values()].sort((a, b) => a - b);
    if (times.length !== count - 1) {
      throw new SafetyViolation(`seed ${seed}: ${times.length} of ${count - 1} saw it`);
    }
    return {
      firstMs: times[0] as number,
      medianMs: times[times.length >> 1] as number,
      lastMs: times[times.length - 1] as number,
      false: watch.false,
    };
  });
}

class KillWatch implements NodeWatcher {
  readonly #world: GossipWorld;
  readonly seen = new Map<string, number>();
  #victim = '';
  #at = 0;
  false = 0;

  constructor(world: GossipWorld) {
    this.#world = world;
  }

  begin(victim: string): void {
    this.#victim = victim;
    this.#at = this.#world.now;
    this.false = 0;
  }

  onLeave(node: GossipNode, member: Member): void {
    if (member.node !== this.#victim) {
      this.false += 1;
    } else if (!this.seen.has(node.name)) {
      this.seen.set(node.name, this.#world.now - this.#at);
    }
  }

  onMade(): void {
    // What is sent does not matter here.
  }

  onJoin(): void {
    // Everybody joins before the kill.
  }

  onUpdate(): void {
    // Nobody has tags that change.
  }
}
