import { isPlanted } from '../base/planted.ts';
import { type AllotState, rowOfSubject, slotOfSubject } from './allot-state.ts';
import { AllotmentOwner, type AllotSink, AllotVerdict } from './verdicts.ts';

/** Which open allotments of a node are revoked together. */
export interface NodeRevocation {
  /** Those of that shard, or all of them if it is -1. */
  readonly shard: number;
  /** Not those of the node's latest incarnation. */
  readonly keepLatest: boolean;
}

/** Revokes more than the one allotment that a command names. Each is told to the sink as a verdict of its own. */
export class Revocations {
  readonly #state: AllotState;
  readonly #owner = new AllotmentOwner();

  constructor(state: AllotState) {
    this.#state = state;
  }

  /** Open allotments of a node, in the order of opening; how many. */
  ofNode(sink: AllotSink, node: number, { shard, keepLatest }: NodeRevocation): number {
    const { pool, nodes } = this.#state;
    const row = nodes.get(node);
    let revoked = 0;
    for (let holder = row.listFirst; holder !== 0; holder = pool.nodeNext(holder)) {
      if (pool.state(holder) !== AllotVerdict.OPEN || (shard >= 0 && pool.shard(holder) !== shard)) continue;
      const isLatest =
        pool.incarnationLow(holder) === row.incarnationLow && pool.incarnationHigh(holder) === row.incarnationHigh;
      if (keepLatest && isLatest) continue;
      this.#revoke(sink, holder);
      revoked += 1;
    }
    return revoked;
  }

  /**
   * What the process that opened `first` has open behind it in the same subject, in the order of ids; how many. Its closes may be on their way: were
   * they applied, `first` would come again behind what followed it (design section 3, promise 5).
   */
  behind(sink: AllotSink, first: number): number {
    const { pool } = this.#state;
    if (isPlanted('S7-no-cascade')) return 0;
    const subject = pool.subject(first);
    const tail = this.#state.slotOf(subject).tail(rowOfSubject(subject));
    let revoked = 0;
    for (let holder = first; holder !== tail; ) {
      holder = pool.next(holder);
      if (pool.state(holder) !== AllotVerdict.OPEN || !this.#haveOneOwner(first, holder)) continue;
      this.#revoke(sink, holder);
      revoked += 1;
    }
    return revoked;
  }

  #haveOneOwner(one: number, other: number): boolean {
    const { pool } = this.#state;
    return (
      pool.node(one) === pool.node(other) &&
      pool.incarnationLow(one) === pool.incarnationLow(other) &&
      pool.incarnationHigh(one) === pool.incarnationHigh(other)
    );
  }

  #revoke(sink: AllotSink, holder: number): void {
    const { pool } = this.#state;
    const subject = pool.subject(holder);
    this.#state.beforeSubjectChange(slotOfSubject(subject), rowOfSubject(subject));
    this.#state.becomeRevoked(holder);
    this.#state.describeOwner(this.#owner, holder);
    const { names } = this.#state.slotOf(subject);
    const row = rowOfSubject(subject);
    const start = names.nameStart(row);
    const end = start + names.nameLength(row);
    const base = pool.base(holder);
    const count = pool.end(holder) - base + 1;
    sink.verdict(names.names, start, end, names.hashAt(row), base, count, AllotVerdict.REVOKED, true, this.#owner);
  }
}
