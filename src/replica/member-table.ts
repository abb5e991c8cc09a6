import { assert } from '../base/assert.ts';
import type { NodeId } from '../raft/messages.ts';
import type { Member } from './types.ts';

/** Payload of a MEMBER entry: one version byte, then JSON in UTF-8. In the log, so append-only. */
const VERSION = 1;

export type MemberRowChange =
  /** A row for a node that has none, or new addresses of the same instance. Nothing if another instance has the row. */
  | { readonly op: 'set'; readonly member: Member }
  /** New addresses of an instance that has a row. Nothing if it has none any more. */
  | { readonly op: 'update'; readonly member: Member }
  | { readonly op: 'delete'; readonly node: NodeId };

export function encodeRowChange(change: MemberRowChange): Uint8Array {
  const json =
    change.op === 'delete' ? { op: 'delete', node: change.node } : { op: change.op, member: rowOf(change.member) };
  const text = new TextEncoder().encode(JSON.stringify(json));
  const bytes = new Uint8Array(1 + text.length);
  bytes[0] = VERSION;
  bytes.set(text, 1);
  return bytes;
}

/** The entry comes from our own log, so damage is a broken invariant. */
export function decodeRowChange(bytes: Uint8Array): MemberRowChange {
  assert(
    bytes[0] === VERSION,
    () => `a row of the members has version ${bytes[0]}, this program knows ${VERSION} only`,
  );
  return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(1))) as MemberRowChange;
}

/** Its fields in this order, and no others. */
function rowOf({ node, instance, raft, grpc, protocol }: Member): Member {
  return { node, instance, raft, grpc, protocol };
}

export function isSameRow(a: Member, b: Member): boolean {
  return (
    a.node === b.node &&
    a.instance === b.instance &&
    a.raft === b.raft &&
    a.grpc === b.grpc &&
    a.protocol === b.protocol
  );
}

/** Who and where the members are, as of what is applied. Equal on every replica at the same index. */
export class MemberTable {
  readonly #rows = new Map<NodeId, Member>();
  /** As of the last change; null = it is made when it is asked for. */
  #list: readonly Member[] | null = null;

  constructor(members: readonly Member[]) {
    this.replace(members);
  }

  replace(members: readonly Member[]): void {
    this.#rows.clear();
    this.#list = null;
    for (const member of members) this.#rows.set(member.node, rowOf(member));
  }

  get(node: NodeId): Member | null {
    return this.#rows.get(node) ?? null;
  }

  /** By name. The same array until something changes, so that who follows it sees at a glance that nothing did. */
  list(): readonly Member[] {
    this.#list ??= [...this.#rows.values()].sort((a, b) => (a.node < b.node ? -1 : 1));
    return this.#list;
  }

  apply(change: MemberRowChange): void {
    this.#list = null;
    if (change.op === 'delete') {
      this.#rows.delete(change.node);
      return;
    }
    const row = this.#rows.get(change.member.node);
    const isAllowed = row === undefined ? change.op === 'set' : row.instance === change.member.instance;
    if (isAllowed) this.#rows.set(change.member.node, rowOf(change.member));
  }
}
