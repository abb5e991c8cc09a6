import type { AllotMachine } from '../allot/allot-machine.ts';
import { closeSize, RevokeReach, revokeNodeSize, writeRevoke, writeRevokeNode } from '../allot/commands.ts';
import type { AllotmentInfo } from '../allot/queries.ts';
import { NOBODY, type NodeId } from '../raft/messages.ts';

/** Allotments that one round revokes by name. */
const REVOKES_MAX = 256;

/** When whom was heard last, and what the leader does about what the silent left open (docs/adr/0012-cluster.md, voids). */
export class Supervision {
  readonly #own: NodeId;
  /** Two election timeouts. */
  readonly #silentTicks: number;
  readonly #openMsMax: number;
  readonly #heard = new Map<NodeId, number>();
  /** Tick from which on this node leads: whom it did not follow was not silent before, since followers say nothing to each other. */
  #since = 0;
  /** Who led before this node, and was heard by it as long as it lived. */
  #former: NodeId = NOBODY;

  constructor(own: NodeId, silentTicks: number, openMsMax: number) {
    this.#own = own;
    this.#silentTicks = silentTicks;
    this.#openMsMax = openMsMax;
  }

  /** `former`: the leader that this node has followed last. Its silence began when it was last heard, and not with this node's lead. */
  lead(tick: number, former: NodeId): void {
    this.#since = tick;
    this.#former = former;
  }

  heard(node: NodeId, tick: number): void {
    this.#heard.set(node, tick);
  }

  keepOnly(nodes: readonly NodeId[]): void {
    for (const node of [...this.#heard.keys()]) if (!nodes.includes(node)) this.#heard.delete(node);
  }

  /** Heard of within `ticks`. */
  isActive(node: NodeId, tick: number, ticks: number): boolean {
    if (node === this.#own) return true;
    const at = this.#heard.get(node);
    return at !== undefined && tick - at <= ticks;
  }

  isSilent(node: NodeId, tick: number): boolean {
    if (node === this.#own) return false;
    const heard = this.#heard.get(node) ?? 0;
    const from = node === this.#former && heard > 0 ? heard : Math.max(heard, this.#since);
    return tick - from >= this.#silentTicks;
  }

  /** Commands that revoke what is open of silent nodes, and what anybody has open for too long at `logTime`. */
  revokes(machine: AllotMachine, tick: number, logTime: number): Uint8Array[] {
    const commands: Uint8Array[] = [];
    if (machine.counts().open === 0) return commands;
    let named = 0;
    for (const name of machine.nodeNames()) {
      const isSilent = this.isSilent(new TextDecoder().decode(name), tick);
      let hasOpen = false;
      machine.openAllotmentsOf(name, (allotment) => {
        hasOpen = true;
        // In the order of opening: those behind are younger.
        if (isSilent || named >= REVOKES_MAX || logTime - allotment.openedAt < this.#openMsMax) return false;
        commands.push(revokeOf(allotment));
        named += 1;
        return true;
      });
      if (isSilent && hasOpen) commands.push(revokeNodeOf(name));
    }
    return commands;
  }

  /**
   * Revoked allotments whose owner will not mark them void: it is silent, no member, or a later process. Or it does not know of them: that of its threads
   * which had them is another one by now, and looked at what is open just before the revoke. It has had a minute then, and two marks are as good as one.
   */
  orphans(
    machine: AllotMachine,
    tick: number,
    logTime: number,
    isMember: (node: NodeId) => boolean,
    limit: number,
    visit: (allotment: AllotmentInfo) => void,
  ): void {
    let left = machine.counts().revoked === 0 ? 0 : limit;
    for (const name of machine.nodeNames()) {
      if (left <= 0) return;
      const node = new TextDecoder().decode(name);
      const isAway = this.isSilent(node, tick) || !isMember(node);
      machine.revokedAllotmentsOf(name, (allotment) => {
        if (left <= 0) return false;
        const isLatest = machine.isLatest(allotment.node, allotment.incarnationLow, allotment.incarnationHigh);
        const isOld = logTime - allotment.openedAt >= 2 * this.#openMsMax;
        if (isAway || !isLatest || isOld) {
          left -= 1;
          visit(allotment);
        }
        return true;
      });
    }
  }
}

/** Also of this node's own: its shards have not asked for it, and their closes may stand in front of it or behind. */
function revokeOf({ subject, hash, base }: AllotmentInfo): Uint8Array {
  const bytes = new Uint8Array(closeSize(subject.length));
  writeRevoke(new DataView(bytes.buffer), bytes, 0, subject, hash, base, RevokeReach.BEHIND);
  return bytes;
}

function revokeNodeOf(name: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(revokeNodeSize(name.length));
  writeRevokeNode(new DataView(bytes.buffer), bytes, 0, name, -1);
  return bytes;
}
