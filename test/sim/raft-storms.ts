import { Prng } from '../../src/base/prng.ts';
import type { NodeId } from '../../src/raft/messages.ts';
import type { SimNode } from './raft-node.ts';

interface Cut {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly since: number;
  readonly until: number;
}

const STORM_MARK = 0x5707_a1e5;

/**
 * Faults that come in a plan rather than one by one. Every seed has its own mix of them ("swarm"): a run with all of them at once would
 * do little work, and some bugs need a long fault of one kind and peace otherwise. They draw from a generator of their own, so that a
 * seed without storms is the run that it was before there were any.
 */
export class RaftStorms {
  readonly #prng: Prng;
  readonly #nodes: readonly SimNode[];
  readonly #hasStalls: boolean;
  readonly #hasPauses: boolean;
  readonly #hasUsurpers: boolean;
  readonly #hasChases: boolean;
  readonly #hasCuts: boolean;
  readonly #hasErrors: boolean;
  #cuts: Cut[] = [];
  #chased = 0;
  #chase: { readonly at: number; readonly node: SimNode } | null = null;
  /** Half of what happens otherwise does not in such a run. */
  readonly isOn: boolean;
  crashes = 0;

  constructor(seed: number, nodes: readonly SimNode[], isCalm: boolean) {
    this.#prng = new Prng(seed ^ STORM_MARK);
    this.#nodes = nodes;
    this.isOn = this.#prng.chance(2, 3) && !isCalm;
    const isOn = (): boolean => this.#prng.chance(2, 5) && this.isOn;
    this.#hasStalls = isOn();
    this.#hasPauses = isOn();
    this.#hasUsurpers = isOn();
    this.#hasChases = isOn();
    this.#hasCuts = isOn();
    this.#hasErrors = isOn();
  }

  isCut(from: NodeId, to: NodeId, now: number): boolean {
    return this.#cuts.some((cut) => cut.from === from && cut.to === to && cut.since <= now && now < cut.until);
  }

  act(now: number): void {
    this.#cuts = this.#cuts.filter((cut) => cut.until > now);
    if (!this.isOn) {
      return;
    }
    const node = this.#pick(this.#nodes.filter((candidate) => candidate.isUp));
    if (node === undefined) {
      return;
    }
    if (node.pausedUntil <= now && this.#prng.chance(1, node.core?.role === 'leader' ? 2 : 8)) {
      node.read();
    }
    if (this.#hasStalls && this.#prng.chance(1, 60)) {
      node.stalledUntil = now + 40 + this.#prng.nextBelow(160);
    }
    if (this.#hasPauses && this.#prng.chance(1, 120)) {
      node.pausedUntil = now + 20 + this.#prng.nextBelow(100);
    }
    if (this.#hasUsurpers && this.#prng.chance(1, 15)) {
      this.#usurp(node);
    }
    if (this.#hasChases) {
      this.#chaseLeader(now);
    }
    if (this.#hasCuts && this.#prng.chance(1, 150)) {
      this.#cutPlan(now);
    }
    if (this.#hasErrors && this.#prng.chance(1, 300)) {
      node.isDiskFailing = true;
    }
  }

  end(): void {
    this.#cuts = [];
    for (const node of this.#nodes) {
      node.stalledUntil = 0;
      node.pausedUntil = 0;
      node.isDiskFailing = false;
    }
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.#prng.nextBelow(Math.max(1, from.length))];
  }

  /** Everybody is told that the leader is gone, and one stands for election at once. */
  #usurp(usurper: SimNode): void {
    for (const node of this.#nodes) {
      if (this.#prng.chance(4, 5)) {
        node.core?.forgetLeader();
      }
    }
    usurper.core?.campaign();
  }

  /** A leader falls soon after its election, with its first entries on some disks. */
  #chaseLeader(now: number): void {
    if (this.#chase !== null && this.#chase.at <= now) {
      const { node } = this.#chase;
      this.#chase = null;
      if (this.#prng.chance(1, 3) && node.isUp) {
        node.crash();
        this.crashes += 1;
      } else {
        this.#isolate(node.id, now, now + 20 + this.#prng.nextBelow(60));
      }
    }
    for (const node of this.#nodes) {
      if (node.core?.role === 'leader' && node.core.term > this.#chased) {
        this.#chased = node.core.term;
        this.#chase = { at: now + this.#prng.nextBelow(20), node };
      }
    }
  }

  #isolate(node: NodeId, since: number, until: number): void {
    for (const { id } of this.#nodes) {
      this.#cuts.push({ from: node, to: id, since, until }, { from: id, to: node, since, until });
    }
  }

  /** Swizzle-clog (one after the other is cut off, and comes back in another order), a bridge, or cuts of one direction. */
  #cutPlan(now: number): void {
    const until = now + 40 + this.#prng.nextBelow(120);
    const kind = this.#prng.nextBelow(3);
    const bridge = this.#prng.nextBelow(this.#nodes.length);
    const split = this.#prng.nextBelow(this.#nodes.length);
    this.#nodes.forEach(({ id: from }, i) => {
      if (kind === 0 && this.#prng.chance(2, 3)) {
        const since = now + this.#prng.nextBelow(40);
        this.#isolate(from, since, since + 10 + this.#prng.nextBelow(120));
      }
      this.#nodes.forEach(({ id: to }, j) => {
        const isBridged = kind === 1 && i !== bridge && j !== bridge && i < split !== j < split;
        if (isBridged || (kind === 2 && this.#prng.chance(1, 4))) {
          this.#cuts.push({ from, to, since: now, until });
        }
      });
    });
  }
}
