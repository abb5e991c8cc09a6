import { compareIncarnations } from '../../src/gossip/members/incarnation.ts';
import type { AliveMessage, Member, PacketMessage, SuspectMessage } from '../../src/gossip/types.ts';
import type { GossipNode, NodeWatcher } from './gossip-node.ts';
import type { GossipWorld } from './gossip-world.ts';
import { SafetyViolation } from './raft-checkers.ts';

/** How long each promise may take to come true, in ms of quiet: no cut, and both nodes well. */
export interface Bounds {
  /** From a crash until nobody calls it alive. */
  readonly failureMs: number;
  /** From the end of trouble until everybody calls a node that is well alive, as it is. */
  readonly healMs: number;
  /** Nobody may come to call a node failed by its own judgement that has been well for this long. */
  readonly judgementMs: number;
}

export interface CheckerOptions {
  readonly bounds: Bounds;
  /** Packets are forged: incarnations may come from elsewhere, and suspicion from nowhere. */
  readonly isForged: boolean;
  /** Alive, but for a judgement on it: a node that is stopped for less than this must not be called failed by anybody. */
  readonly isJudgementFree: boolean;
}

interface Known {
  readonly incarnation: number;
  readonly state: Member['state'];
  readonly address: string;
  readonly at: number;
}

interface Accusation {
  readonly incarnation: number;
  /** By the clock of the node. */
  readonly since: number;
  readonly from: Set<string>;
  readonly members: number;
}

/** memberlist's config.go and suspicion.go: SuspicionMult 4, SuspicionMaxTimeoutMult 6, a probe a second. */
const CONFIRMATIONS = 2;
const SUSPICION_MS_MIN = 4_000;
const SUSPICION_MS_MAX = 24_000;

/** A failed member is not forgotten earlier, also by a clock that is fast (memberlist's GossipToTheDeadTime is 30 s). */
const FORGOTTEN_MS = 25_000;

const encodeAddress = (member: { readonly address: { readonly host: string; readonly port: number } }): string =>
  `${member.address.host}:${member.address.port}`;

/** The promises, from outside of the rules. Each throws when it is broken. */
export class GossipCheckers implements NodeWatcher {
  readonly #world: GossipWorld;
  readonly #options: CheckerOptions;
  readonly #nodes = new Map<string, GossipNode>();
  /** The highest that a node ever said of itself, over all its lives. */
  readonly #announced = new Map<string, number>();
  /** The highest in one life. */
  readonly #inLife = new Map<string, { readonly life: number; readonly incarnation: number }>();
  /** How many each node has called failed in its life. */
  readonly #failures = new Map<string, number>();
  readonly #accusations = new Map<string, Accusation>();
  readonly #known = new Map<string, Known>();
  declared = 0;
  wronged = 0;
  suspected = 0;
  refuted = 0;
  joins = 0;

  constructor(world: GossipWorld, options: CheckerOptions) {
    this.#world = world;
    this.#options = options;
  }

  add(node: GossipNode): void {
    this.#nodes.set(node.name, node);
  }

  onMade(node: GossipNode, message: PacketMessage): void {
    if (message.kind === 'alive' && message.node === node.name) {
      this.#onAnnounced(node, message);
    } else if (message.kind === 'suspect') {
      this.suspected += message.from === node.name ? 1 : 0;
      this.#onSuspected(node, message);
    } else if (message.kind === 'dead' && message.from === node.name && message.node !== node.name) {
      this.#onDeclared(node, message.node);
    }
  }

  /** Incarnation numbers belong to the node: they only rise. */
  #onAnnounced(node: GossipNode, message: AliveMessage): void {
    const before = this.#inLife.get(node.name);
    if (
      before !== undefined &&
      before.life === node.life &&
      message.incarnation < before.incarnation &&
      !this.#options.isForged
    ) {
      this.#fail(`${node.name} goes back from incarnation ${before.incarnation} to ${message.incarnation}`);
    }
    if (before !== undefined && before.life === node.life && message.incarnation > before.incarnation) {
      this.refuted += 1;
    }
    this.#inLife.set(node.name, { life: node.life, incarnation: message.incarnation });
    this.#announced.set(node.name, Math.max(this.#announced.get(node.name) ?? 0, message.incarnation));
  }

  /** A node passes on each accusation that it has not heard before, so what it says tells when its suspicion began, and who shares it. */
  #onSuspected(node: GossipNode, { node: name, incarnation, from }: SuspectMessage): void {
    const key = `${node.name}/${node.life}/${name}`;
    const accusation = this.#accusations.get(key);
    if (accusation?.incarnation === incarnation) {
      accusation.from.add(from);
    } else {
      const members = node.members().length;
      this.#accusations.set(key, { incarnation, since: node.clock(), from: new Set([from]), members });
    }
  }

  /** Lifeguard, "dynamic suspicion timeouts": fewer that share a suspicion, more time to refute it. memberlist's LAN timing, up to ten nodes. */
  #checkTime(node: GossipNode, name: string): void {
    const accusation = this.#accusations.get(`${node.name}/${node.life}/${name}`);
    if (this.#options.isForged || accusation === undefined || accusation.members - 2 < CONFIRMATIONS) {
      return;
    }
    const confirmations = Math.min(CONFIRMATIONS, accusation.from.size - 1);
    const share = Math.log(confirmations + 1) / Math.log(CONFIRMATIONS + 1);
    const leastMs = SUSPICION_MS_MAX - share * (SUSPICION_MS_MAX - SUSPICION_MS_MIN);
    const tookMs = node.clock() - accusation.since;
    if (tookMs < leastMs - 1) {
      this.#fail(
        `${node.name} calls ${name} failed after ${Math.round(tookMs)} ms, with ${confirmations} confirmations`,
      );
    }
  }

  /** [G5] whoever was blocked must not take its own silence for that of others. */
  #onDeclared(node: GossipNode, name: string): void {
    // What it said in its last life may come back, and is passed on.
    const key = `${node.name}/${node.life}`;
    const failures = node.rules?.counters.failures ?? 0;
    if (failures === (this.#failures.get(key) ?? 0)) {
      return;
    }
    this.#failures.set(key, failures);
    this.declared += 1;
    this.#checkTime(node, name);
    const judged = this.#nodes.get(name);
    if (judged === undefined || !this.#options.isJudgementFree) {
      return;
    }
    const known = node.rules?.get(name);
    const judge = judged.rules?.get(node.name);
    // One of them moved: where it was, nobody answers, and from where it is, nobody is listened to until its name is free.
    if (
      !known ||
      !judge ||
      encodeAddress(known) !== encodeAddress(judged) ||
      encodeAddress(judge) !== encodeAddress(node)
    ) {
      return;
    }
    this.wronged += judged.stopMs === 0 && Number.isFinite(judged.wellSince) ? 1 : 0;
    const { judgementMs, failureMs } = this.#options.bounds;
    const { now, wholeSince, streamsWholeSince } = this.#world;
    const quietMs = now - Math.max(judged.wellSince, wholeSince);
    // Without datagrams it does not hear that it is suspected; but a connection that works starts no suspicion.
    const streamsQuietMs = now - Math.max(judged.wellSince, streamsWholeSince);
    const isMoved = now - Math.max(node.movedAt, judged.movedAt) < failureMs;
    if (!isMoved && (quietMs >= judgementMs || streamsQuietMs >= failureMs)) {
      const own = Number.isFinite(node.wellSince) ? `well for ${this.#world.now - node.wellSince} ms` : 'not well';
      this.#fail(`${node.name} (${own}) calls ${name} failed, which is well for ${streamsQuietMs} ms`);
    }
  }

  onJoin(node: GossipNode, member: Member): void {
    this.joins += 1;
    this.#world.noteText(`${node.name}+${member.node}`);
    const before = this.#known.get(`${node.name}/${node.life}/${member.node}`);
    if (
      !this.#options.isForged &&
      before !== undefined &&
      before.state !== 'alive' &&
      before.address === encodeAddress(member) &&
      compareIncarnations(member.incarnation, before.incarnation) <= 0 &&
      this.#world.now - before.at < FORGOTTEN_MS
    ) {
      this.#fail(
        `${node.name} takes ${member.node} back with incarnation ${member.incarnation}, which was called failed with ${before.incarnation}`,
      );
    }
    this.#learn(node, member);
  }

  onLeave(node: GossipNode, member: Member): void {
    this.#world.noteText(`${node.name}-${member.node}`);
    this.#learn(node, member);
  }

  onUpdate(node: GossipNode, member: Member): void {
    this.#world.noteText(`${node.name}~${member.node}`);
    this.#learn(node, member);
  }

  #learn(node: GossipNode, member: Member): void {
    const key = `${node.name}/${node.life}/${member.node}`;
    this.#checkOwner(node, member);
    this.#known.set(key, {
      incarnation: member.incarnation,
      state: member.state,
      address: encodeAddress(member),
      at: this.#world.now,
    });
  }

  /** Nobody else makes up an incarnation. */
  #checkOwner(node: GossipNode, member: Member): void {
    const announced = this.#announced.get(member.node);
    if (!this.#options.isForged && (announced === undefined || member.incarnation > announced)) {
      this.#fail(
        `${node.name} knows incarnation ${member.incarnation} of ${member.node}, which said ${announced ?? 'nothing'}`,
      );
    }
  }

  /** Looks at all views; to be called about once a second. Whether nothing is left to wait for. */
  check(): boolean {
    let isSettled = true;
    for (const node of this.#nodes.values()) {
      if (node.isUp && !node.isStopped) {
        isSettled = this.#checkView(node) && isSettled;
      }
    }
    return isSettled;
  }

  #checkView(node: GossipNode): boolean {
    const view = new Map(node.members().map((member) => [member.node, member]));
    if (node.hasLeft) {
      return true;
    }
    let isSettled = true;
    for (const other of this.#nodes.values()) {
      const wrong = other === node ? null : this.#wrongOf(other, view.get(other.name));
      if (wrong !== null) {
        isSettled = false;
        const { failureMs, healMs } = this.#options.bounds;
        const patienceMs = Number.isFinite(other.wellSince) ? healMs : failureMs;
        const since = Number.isFinite(other.wellSince) ? other.wellSince : other.downSince;
        const { now, wholeSince, foesSince } = this.#world;
        const quietMs = now - Math.max(since, other.changedAt, node.wellSince, wholeSince, foesSince);
        if (quietMs > patienceMs) {
          this.#fail(`after ${quietMs} ms of quiet ${node.name} has ${other.name} ${wrong}`);
        }
      }
    }
    for (const member of view.values()) {
      this.#checkOwner(node, member);
      isSettled &&= this.#nodes.has(member.node) || member.state === 'dead' || member.state === 'left';
    }
    return isSettled;
  }

  /** What is wrong in a view; null if nothing is, or nothing can be asked of it now. */
  #wrongOf(other: GossipNode, member: Member | undefined): string | null {
    const isThere = member?.state === 'alive' || member?.state === 'suspect';
    if (!other.isUp || other.hasLeft) {
      return isThere ? `as ${member?.state}, which is ${other.isUp ? 'leaving' : 'down'}` : null;
    }
    if (!Number.isFinite(other.wellSince)) {
      return null;
    }
    if (member === undefined || member.state !== 'alive') {
      return `as ${member?.state ?? 'unknown'}, which is well`;
    }
    if (encodeAddress(member) !== encodeAddress(other)) {
      return `at ${encodeAddress(member)}, which is at ${encodeAddress(other)}`;
    }
    const announced = this.#inLife.get(other.name)?.incarnation;
    if (member.incarnation !== announced) {
      return `with incarnation ${member.incarnation}, which says ${announced}`;
    }
    return Buffer.compare(member.meta, other.meta) === 0 ? null : 'with tags of before';
  }

  #fail(what: string): never {
    throw new SafetyViolation(`${what} (at ${this.#world.now} ms)`);
  }
}
